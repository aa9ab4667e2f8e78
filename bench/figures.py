"""The figures to reach, against what was reached: ratios within rounds, medians over them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.loads import Run

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
    """The median over rounds of the ratio within a round: the machine drifts less within one."""
    below = {run.round: value(run) for run in lower}
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


def throughput(run: Run) -> float:
    return run.per_second


def per_cpu_second(run: Run) -> float:
    """Answers for each second of processor that the server had: steadier on a busy machine."""
    return run.per_second / run.server_busy if run.server_busy else 0.0


def p99(run: Run) -> float:
    return run.latency.get("99", 0.0)


def _small(runs: Sequence[Run]) -> list[Figure]:
    targets = {
        "current": (("nginx constant", 1.0), ("Go uint64", 1.8)),
        "previous": (("nginx constant", 1.0), ("Go uint64", 1.8)),
        "health": (("nginx constant", 1.0), ("Go uint64", 1.8)),
        "next": (("Go uint64", 1.2), ("nginx constant", 0.7), ("stock", 4.0)),
    }
    found = []
    for endpoint, peers in targets.items():
        same = select(runs, section="small", endpoint=endpoint, connections=100)
        ours = select(same, peer="fibcore")
        for peer, target in peers:
            reached = paired(ours, select(same, peer=peer), throughput)
            what = f"/{endpoint}, small numbers, 100 connections"
            found.append(Figure(what, peer, target, reached, beside=described(ours)))
    return found


def _large(runs: Sequence[Run], core: Sequence[dict[str, Any]]) -> list[Figure]:
    def at(index: int, **wanted: object) -> list[Run]:
        return select(runs, section="large", nominal_index=index, **wanted)

    def step(index: int, against: str, target: float, below: list[Run]) -> Figure:
        ours = at(index, peer="fibcore", endpoint="next", integers="exact")
        reached = paired(ours, below, throughput)
        return Figure(f"/next at n = {index:,}", against, target, reached, beside=described(ours))

    reads = at(30_000, peer="fibcore", endpoint="current")
    limit = at(30_000, peer="nginx static", endpoint="current")
    small_steps = at(30_000, peer="fibcore", endpoint="next", integers="uint64")
    million = at(1_000_000, peer="fibcore", endpoint="next", integers="exact")
    python = nanoseconds(core, "Python int", 1_000_000)
    rate = median(map(throughput, million)) if million else None
    return [
        Figure(
            "/current at n = 30,000",
            "nginx static",
            1.2,
            paired(reads, limit, throughput),
            beside=described(reads),
        ),
        step(30_000, "/next, uint64-sized", 0.75, small_steps),
        step(30_000, "Go math/big", 20, at(30_000, peer="Go math/big", endpoint="next")),
        step(1_000_000, "nginx static", 0.4, at(1_000_000, peer="nginx static", endpoint="next")),
        Figure(
            "/next at n = 1,000,000",
            "Python int, the step alone",
            100,
            rate * python / 1e9 if rate and python else None,
            beside=described(million),
        ),
    ]


def nanoseconds(core: Sequence[dict[str, Any]], contender: str, index: int) -> float | None:
    """The median cost of a step in the core bench's rows, if it is there."""
    for row in core:
        if row["contender"] == contender and row["index"] == index:
            return float(row["nanoseconds"])
    return None


def _core(core: Sequence[dict[str, Any]]) -> list[Figure]:
    found = []
    for index in (30_000, 100_000, 1_000_000, 10_000_000):
        ours = nanoseconds(core, "fibcore", index)
        gmpy2 = nanoseconds(core, "gmpy2", index)
        passing = nanoseconds(core, "pass, new", index)
        what = f"core step at n = {index:,}"
        found.append(
            Figure(what, "gmpy2 add and digits", 30, gmpy2 / ours if gmpy2 and ours else None)
        )
        found.append(
            Figure(
                what,
                "a pass over the digits",
                2,
                ours / passing if ours and passing else None,
                most=True,
            )
        )
    return found


def _latency(runs: Sequence[Run]) -> list[Figure]:
    same = select(runs, section="open loop", rate=1_000)
    found = []
    for integers in ("uint64", "exact"):
        ours = select(same, peer="fibcore", integers=integers)
        found.append(
            Figure(
                f"open loop 3 x 1,000/s, p99, {integers}",
                "Go uint64's p99",
                1.0,
                paired(ours, select(same, peer="Go uint64"), p99),
                most=True,
                beside=described(ours),
            )
        )
    return found


def figures(
    runs: Sequence[Run],
    core: Sequence[dict[str, Any]],
    takeover: dict[str, Any],
    memory: dict[str, Any],
) -> list[Figure]:
    """All targets, in the order in which they are stated."""
    kills = ""
    if takeover:
        kills = (
            f"{takeover['durability']}, exact, {takeover['kills']} kills, "
            f"n = {takeover['first index']:,}-{takeover['last index']:,}, "
            f"{takeover['checked']:,} values checked"
        )
    held = ""
    if memory:
        held = (
            f"{memory['durability']}, exact, {memory['processes']} processes, "
            f"n = {memory['first index']:,}-{memory['last index']:,}"
        )
        if memory["box peak MB"] is not None:
            held += f", {memory['box peak MB']:.0f} MB charged to its box with page cache"
    return [
        *_small(runs),
        *_large(runs, core),
        *_core(core),
        *_latency(runs),
        Figure(
            "takeover after kill -9, longest of all",
            "between answers",
            30,
            takeover.get("longest gap ms"),
            unit=" ms",
            most=True,
            beside=kills,
        ),
        Figure(
            "takeover, refused connections",
            "",
            0,
            takeover.get("refused connections"),
            unit="",
            most=True,
            beside=kills,
        ),
        Figure(
            "memory, 1,000 connections",
            "PSS of all processes",
            150,
            memory.get("peak MB"),
            unit=" MB",
            most=True,
            beside=held,
        ),
    ]


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, numbers (and what begins like one) to the right."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if cell[:1].isdigit() or cell[:1] in "<>" else cell.ljust(width)
            for cell, width in zip(cells, widths, strict=True)
        )
        return "  ".join(padded).rstrip()

    return "\n".join([line(headings), "  ".join("-" * width for width in widths), *map(line, rows)])


def number(value: float) -> str:
    """Three significant digits at the least, thousands apart."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def share(parts: Iterable[float]) -> str:
    """The median of parts of a core, as a percentage; nothing where it was not measured."""
    middle = median(parts)
    return f"{middle:.0%}" if middle else "-"


def figures_table(found: Sequence[Figure]) -> str:
    """Target, what was reached, and under which conditions, one line a figure."""
    rows = [
        (
            figure.what,
            figure.against,
            f"{'<=' if figure.most else '>='} {figure.target:g}{figure.unit}",
            "-" if figure.reached is None else f"{number(figure.reached)}{figure.unit}",
            figure.verdict,
            figure.beside,
        )
        for figure in found
    ]
    return table(("what", "against", "target", "reached", "", "conditions"), rows)


def runs_table(runs: Sequence[Run]) -> str:
    """Medians over the rounds of each kind of run."""
    kinds: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        key = (run.section, run.nominal_index, run.endpoint, run.connections, run.rate)
        kinds.setdefault((*key, run.tool, run.peer, run.integers), []).append(run)
    rows = []
    for same in kinds.values():
        run = same[0]
        load = run.tool if run.rate is None else f"{run.rate:,.0f}/s each"
        rows.append(
            (
                run.section,
                f"/{run.endpoint}",
                run.peer,
                f"{run.connections:,}",
                load,
                number(median(map(throughput, same))),
                number(median(map(per_cpu_second, same))) if run.server_busy else "-",
                number(median(r.latency.get("50", 0) for r in same)),
                number(median(map(p99, same))),
                share(r.server_busy for r in same),
                share(r.load_busy for r in same),
                share(r.others_busy for r in same),
                str(len(same)),
                conditions(same) if run.integers else "constant",
            )
        )
    return table(
        (
            *("section", "path", "peer", "connections", "load", "a second", "a CPU second"),
            *("p50 us", "p99 us", "server", "load", "others", "rounds", "conditions"),
        ),
        rows,
    )
