"""Figures: ratios within a round, medians over the rounds, and the table of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, TypeVar

from bench.load import Run

OURS: Final = "fibcore"
BESIDE: Final = "beside"
"""Names of contenders: this checkout, and the one of ``--beside``."""

Name = TypeVar("Name")
"""What contenders are called."""
Value = Callable[[Run], float]
Rounds = Mapping[str, Sequence[Run]]
"""The runs of each contender, one for each round."""


def throughput(run: Run) -> float:
    return run.per_second


def cpu(run: Run) -> float:
    return run.cpu


def p50(run: Run) -> float:
    return run.p50


def alternate(contenders: Mapping[Name, Callable[[], Run]], rounds: int) -> dict[Name, list[Run]]:
    """Measure all in each round, in turn from the first and from the last."""
    found: dict[Name, list[Run]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in list(contenders)[:: -1 if number % 2 else 1]:
            found[name].append(contenders[name]())
    return found


def paired(upper: Sequence[Run], lower: Sequence[Run], value: Value) -> float:
    """The median of the ratios within a round, during which the machine changes less."""
    return median(value(a) / value(b) for a, b in zip(upper, lower, strict=True))


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. ``target`` is a lower bound, or an upper one with ``most``."""

    section: str
    what: str
    against: str
    reached: float
    target: float | None = None
    most: bool = False
    unit: str = "x"
    runs: Sequence[Run] = ()
    """Ours, for the columns of absolute values."""
    beside: Sequence[Run] = ()
    """Those of the other checkout, in the same rounds."""

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        met = self.reached <= self.target if self.most else self.reached >= self.target
        return "met" if met else "**missed**"


def ratio(
    section: str,
    what: str,
    rounds: Rounds,
    against: str,
    target: float | None,
    value: Value = throughput,
    *,
    most: bool = False,
) -> Figure:
    """The figure that compares our runs with those of ``against``, which is in ``rounds``."""
    ours = rounds[OURS]
    reached = paired(ours, rounds[against], value)
    return Figure(
        section, what, against, reached, target, most, runs=ours, beside=rounds.get(BESIDE, ())
    )


def number(value: float) -> str:
    """At least three significant digits, with thousands separated."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(figures: Iterable[Figure]) -> str:
    """The table as Markdown; with another checkout, two columns of ratios to it."""
    figures = list(figures)
    headings = ["section", "what", "against", "target", "reached", ""]
    headings += ["answers/s", "p50 us", "p99 us", "processor us"]
    compared = any(figure.beside for figure in figures)
    headings += ["answers/s x beside", "processor x beside"] if compared else []
    rows = [headings, ["---"] * 3 + ["--:"] * 2 + ["---"] + ["--:"] * (len(headings) - 6)]
    for each in figures:
        target = "" if each.target is None else f"{'≤' if each.most else '≥'} {each.target:g}"
        row = [each.section, each.what, each.against, target, number(each.reached) + each.unit]
        row += [each.verdict]
        for value in (throughput, p50, lambda run: run.p99, cpu):
            row.append(number(median(map(value, each.runs))) if each.runs else "")
        for value in (throughput, cpu) if compared else ():
            row.append(f"{paired(each.runs, each.beside, value):.3f}" if each.beside else "")
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
