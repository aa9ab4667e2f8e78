"""Figures, and how they are computed from runs: ratios within rounds, medians over rounds."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.load.loads import Run

Value = Callable[[Run], float]


@dataclass(frozen=True, slots=True)
class Figure:
    """One target. `reached` is None if this run of the benchmark did not measure it."""

    what: str
    against: str
    target: float
    reached: float | None
    unit: str = "x"
    most: bool = False  # the target is an upper bound
    conditions: str = ""  # durability, kind of numbers, index range

    @property
    def met(self) -> bool | None:
        if self.reached is None:
            return None
        return self.reached <= self.target if self.most else self.reached >= self.target

    @property
    def verdict(self) -> str:
        if self.met is None:
            return "not measured"
        return "met" if self.met else "MISSED"


def paired(upper: Iterable[Run], lower: Iterable[Run], value: Value) -> float | None:
    """The median over rounds of the ratio within a round, during which the machine changes less.

    If a round has several of the lower runs, before and after, their median counts.
    """
    values: dict[int, list[float]] = {}
    for run in lower:
        values.setdefault(run.round, []).append(value(run))
    below = {number: median(found) for number, found in values.items()}
    ratios = [value(run) / below[run.round] for run in upper if below.get(run.round)]
    return median(ratios) if ratios else None


def select(runs: Iterable[Run], **wanted: object) -> list[Run]:
    """The runs with these values of fields."""
    return [run for run in runs if all(getattr(run, k) == v for k, v in wanted.items())]


def conditions(runs: Sequence[Run]) -> str:
    """Durability, kind of numbers, index range and values checked of runs of the same kind."""
    first = min((run.first_index for run in runs if run.first_index is not None), default=None)
    last = max((run.last_index for run in runs if run.last_index is not None), default=first)
    span = "n = ?" if first is None else f"n = {first:,}" + (f"-{last:,}" if last != first else "")
    checked = sum(run.checked for run in runs)
    return f"{runs[0].synchronous}, {runs[0].integers}, {span}, {checked:,} values checked"


def described(runs: Sequence[Run]) -> str:
    """Their conditions, and how busy the server and the store were; empty without runs."""
    if not runs:
        return ""
    # If the server was not busy all the time, it was not the bottleneck.
    shares = {
        "server": median(run.server_busy for run in runs),
        "store": median(run.store_busy for run in runs),
    }
    busy = (f"{who} {share:.0%} busy" for who, share in shares.items() if share)
    return ", ".join([conditions(runs), *busy])


DISTURBED = 0.25  # of a core, used by neither the server nor the load
MANY = 0.25  # of all runs: past it, no figure is reliable


def disturbance(runs: Sequence[Run]) -> str:
    """The runs during which other programs used much of the machine; empty without any."""
    disturbed = [run for run in runs if run.others_busy > DISTURBED]
    if not disturbed:
        return ""
    what = (
        f"During {len(disturbed)} of {len(runs)} runs other programs used more than "
        f"{DISTURBED:.0%} of a core"
    )
    if len(disturbed) > MANY * len(runs):
        return f"{what}: the figures are not reliable. Measure on a quiet machine."
    return f"{what}; these are less reliable: {'; '.join(map(_line, disturbed))}."


def _line(run: Run) -> str:
    """The name of a run, for a reader."""
    at = "" if run.nominal_index is None else f" at n = {run.nominal_index:,}"
    head = "".join(f", {each}" for each in (run.client, run.asked) if each)
    return (
        f"{run.section}, {run.peer} /{run.endpoint}{at}, {run.connections} connections{head}, "
        f"round {run.round + 1}"
    )


def throughput(run: Run) -> float:
    return run.per_second


def per_cpu_second(run: Run) -> float:
    """Answers per second of the server's processor time, which varies less on a busy machine."""
    return run.per_second / run.server_busy if run.server_busy else 0.0


def p99(run: Run) -> float:
    return run.latency.get("99", 0.0)


def nanoseconds(core: Sequence[dict[str, Any]], contender: str, index: int) -> float | None:
    """The median cost of a step in the rows of the core section; None if not measured."""
    for row in core:
        if row["contender"] == contender and row["index"] == index:
            return float(row["nanoseconds"])
    return None
