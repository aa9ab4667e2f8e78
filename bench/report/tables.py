"""Tables of figures and of runs, as text."""

from collections.abc import Iterable, Sequence
from statistics import median

from bench.load.loads import Run
from bench.report.figures import Figure, conditions, p99, per_cpu_second, throughput


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; cells that begin with a digit, < or > are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if cell[:1].isdigit() or cell[:1] in "<>" else cell.ljust(width)
            for cell, width in zip(cells, widths, strict=True)
        )
        return "  ".join(padded).rstrip()

    return "\n".join([line(headings), "  ".join("-" * width for width in widths), *map(line, rows)])


def number(value: float) -> str:
    """At least three significant digits, with thousands separated."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def share(parts: Iterable[float]) -> str:
    """The median of shares of a core, as a percentage; a dash if not measured."""
    middle = median(parts)
    return f"{middle:.0%}" if middle else "-"


def figures_table(found: Sequence[Figure]) -> str:
    """One line per figure: target, value reached, conditions."""
    rows = [
        (
            figure.what,
            figure.against,
            f"{'<=' if figure.most else '>='} {figure.target:g}{figure.unit}",
            "-" if figure.reached is None else f"{number(figure.reached)}{figure.unit}",
            figure.verdict,
            figure.conditions,
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
            *("section", "path", "peer", "connections", "load", "per second", "per CPU second"),
            *("p50 us", "p99 us", "server", "load", "others", "rounds", "conditions"),
        ),
        rows,
    )


def latency_table(runs: Sequence[Run]) -> str:
    """Latency of reads and of steps at each rate: medians over the rounds, in microseconds."""
    kinds: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        if run.section == "open loop":
            kinds.setdefault((run.rate, run.peer, run.integers), []).append(run)
    shown = ("reads 50", "reads 99", "steps 50", "steps 99", "sent late 99")
    rows = [
        (
            f"3 x {rate:,.0f}/s",
            f"{peer}, {integers}",
            *(number(median(run.latency[each] for run in same)) for each in shown),
        )
        for (rate, peer, integers), same in kinds.items()
    ]
    headings = ("reads p50", "reads p99", "steps p50", "steps p99", "send delay p99")
    return table(("rate", "peer", *headings), rows) if rows else ""
