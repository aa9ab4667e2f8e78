"""What a figure is, and how one is made of runs: ratios within rounds, medians over them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.load.loads import Run

Value = Callable[[Run], float]


@dataclass(frozen=True, slots=True)
class Figure:
    """One target. `reached` is None where this run of the benchmark did not measure it."""

    what: str
    against: str
    target: float
    reached: float | None
    unit: str = "x"
    most: bool = False  # the target is a ceiling
    beside: str = ""  # durability, kind of numbers and index range

    @property
    def met(self) -> bool | None:
        if self.reached is None:
            return None
        return self.reached <= self.target if self.most else self.reached >= self.target

    @property
    def verdict(self) -> str:
        if self.met is None:
            return "not measured"
        return "met" if self.met else "SHORT"


def paired(upper: Iterable[Run], lower: Iterable[Run], value: Value) -> float | None:
    """The median over rounds of the ratio within a round: the machine drifts less within one.

    Where a round has several of the lower ones, before and after, their median is what counts.
    """
    values: dict[int, list[float]] = {}
    for run in lower:
        values.setdefault(run.round, []).append(value(run))
    below = {number: median(found) for number, found in values.items()}
    ratios = [value(run) / below[run.round] for run in upper if below.get(run.round)]
    return median(ratios) if ratios else None


def select(runs: Iterable[Run], **wanted: object) -> list[Run]:
    """The runs whose fields are as said."""
    return [run for run in runs if all(getattr(run, k) == v for k, v in wanted.items())]


def conditions(runs: Sequence[Run]) -> str:
    """Durability, kind of numbers, index range and values checked of runs of the same kind."""
    first = min((run.first_index for run in runs if run.first_index is not None), default=None)
    last = max((run.last_index for run in runs if run.last_index is not None), default=first)
    span = "n = ?" if first is None else f"n = {first:,}" + (f"-{last:,}" if last != first else "")
    checked = sum(run.checked for run in runs)
    return f"{runs[0].synchronous}, {runs[0].integers}, {span}, {checked:,} values checked"


def described(runs: Sequence[Run]) -> str:
    """Their conditions, and how busy the server was; nothing where there was no run."""
    if not runs:
        return ""
    # A server that was not busy all the time was not what bounded the throughput.
    busy = median(run.server_busy for run in runs)
    return conditions(runs) + (f", server {busy:.0%} busy" if busy else "")


DISTURBED = 0.25  # of a core, by neither the server nor the load
MANY = 0.25  # of all runs: past it none of the figures can be relied on


def disturbance(runs: Sequence[Run]) -> str:
    """Which runs other programs took much of the machine from; nothing where there was none."""
    disturbed = [run for run in runs if run.others_busy > DISTURBED]
    if not disturbed:
        return ""
    what = (
        f"In {len(disturbed)} of {len(runs)} runs other programs took more than {DISTURBED:.0%} of "
        f"a core"
    )
    if len(disturbed) > MANY * len(runs):
        return f"{what}: the figures are worth little. Measure on a quiet machine."
    return f"{what}, and these lines are worth less: {'; '.join(map(_line, disturbed))}."


def _line(run: Run) -> str:
    """What a reader finds a run by."""
    at = "" if run.nominal_index is None else f" at n = {run.nominal_index:,}"
    head = "".join(f", {each}" for each in (run.client, run.asked) if each)
    return (
        f"{run.section}, {run.peer} /{run.endpoint}{at}, {run.connections} connections{head}, "
        f"round {run.round + 1}"
    )


def throughput(run: Run) -> float:
    return run.per_second


def per_cpu_second(run: Run) -> float:
    """Answers for each second of processor that the server had: steadier on a busy machine."""
    return run.per_second / run.server_busy if run.server_busy else 0.0


def p99(run: Run) -> float:
    return run.latency.get("99", 0.0)


def nanoseconds(core: Sequence[dict[str, Any]], contender: str, index: int) -> float | None:
    """The median cost of a step in the core bench's rows, if it is there."""
    for row in core:
        if row["contender"] == contender and row["index"] == index:
            return float(row["nanoseconds"])
    return None
