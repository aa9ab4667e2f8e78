"""Explains missed targets: what bounds the figures, in the numbers of the same run."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from bench.load.loads import Run
from bench.report.figures import Value, p99, per_cpu_second, select, throughput
from bench.report.tables import number

SYNC = "sync of 4 KiB, median us"


def limits(runs: Sequence[Run], described: Mapping[str, object]) -> Iterator[str]:
    """A sentence for each bound that this run of the benchmark has measured.

    Args:
        runs: all runs.
        described: the machine, from ``machine.describe``.
    """
    yield from _commit(runs)
    yield from _lone(runs, described)
    yield from _load(runs)
    yield from _size(runs)
    yield from _sync(runs, described)
    yield from _overload(runs)


def _median(runs: Sequence[Run], value: Value, **wanted: object) -> float | None:
    values = [value(run) for run in select(runs, **wanted)]
    return median(values) if values else None


def _commit(runs: Sequence[Run]) -> Iterator[str]:
    small = select(runs, section="small", connections=100)
    read = _median(small, per_cpu_second, peer="fibcore", endpoint="current")
    step = _median(small, per_cpu_second, peer="fibcore", endpoint="next")
    constant = _median(small, per_cpu_second, peer="nginx constant", endpoint="next")
    if read and step and constant:
        yield (
            f"A read took {1e6 / read:.1f} us of processor time, a step {1e6 / step:.1f} us "
            f"including its share of a commit, and a constant of nginx {1e6 / constant:.1f} us. "
            f"By processor time, /next therefore reaches {number(step / constant)} x nginx."
        )


def _lone(runs: Sequence[Run], described: Mapping[str, object]) -> Iterator[str]:
    alone = select(runs, section="small", connections=1, peer="fibcore")
    rate, sync = _median(alone, throughput, endpoint="next"), described.get(SYNC)
    step, read = (_median(alone, per_cpu_second, endpoint=each) for each in ("next", "current"))
    if rate and step and read and isinstance(sync, int):
        yield (
            f"A single client that steps in a closed loop got an answer every "
            f"{number(1e6 / rate)} us, {number(1e6 / rate / sync)} x a sync of the disk. A step "
            f"took {number(1e6 / step)} us of processor time; a single read takes "
            f"{number(1e6 / read)} us."
        )


def _load(runs: Sequence[Run]) -> Iterator[str]:
    constants = select(runs, section="small", connections=100, peer="nginx constant")
    if constants:
        busy = median(run.load_busy for run in constants)
        yield (
            f"While nginx answered a constant, the load used {busy:.0%} of its own core: near "
            f"100% the load is the bottleneck, and no ratio to nginx can be much above 1."
        )


def _size(runs: Sequence[Run]) -> Iterator[str]:
    large = select(runs, section="large", nominal_index=30_000)
    big = _median(large, throughput, peer="Go math/big", endpoint="next")
    static = _median(large, throughput, peer="nginx static", endpoint="next")
    if big and static:
        yield (
            f"20 x Go math/big at n = 30,000 would be {number(20 * big)} answers a second; nginx "
            f"sends a static file of that size {number(static)} times a second."
        )


def _sync(runs: Sequence[Run], described: Mapping[str, object]) -> Iterator[str]:
    same = select(runs, section="open loop", rate=1_000)
    peer = _median(same, p99, peer="Go uint64")
    steps = _median(same, lambda run: run.latency.get("steps 99", 0.0), peer="fibcore")
    if peer and steps:
        yield (
            f"A third of the requests in the open loop are steps, which are answered after a sync "
            f"of the disk: {described[SYNC]} us, and {described['sync of 4 KiB, p99 us']} us at "
            f"the 99th percentile. The 99th percentile of the steps was {number(steps)} us; that "
            f"of the Go peer, which writes nothing to disk, {number(peer)} us."
        )


def _overload(runs: Sequence[Run]) -> Iterator[str]:
    for run in select(runs, section="open loop"):
        if run.unanswered:
            yield (
                f"At 3 x {run.rate:,.0f}/s, round {run.round + 1}, {run.peer} left "
                f"{run.unanswered:,} of {run.unanswered + run.requests:,} requests unanswered; its "
                f"latencies are those of the others."
            )
