"""docs/figures.md: what one run measured, for readers who will not run it."""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from bench import machine

FIGURES: Final = machine.ROOT / "docs" / "figures.md"

HEAD: Final = """# Figures

One run of the benchmark, as `make bench` wrote it; do not edit. How it measures is in
[benchmarks.md](benchmarks.md). Read the ratios: absolute figures are those of this machine.

"""


def figures_page(
    described: Mapping[str, object],
    how: str,
    sections: Sequence[str],
    blocks: Iterable[tuple[str, str]],
    notes: Iterable[str],
) -> str:
    """Returns the page.

    Args:
        described: the machine, its programs and the commit.
        how: how thorough the run was.
        sections: those that were measured; none for all.
        blocks: tables, each with its title.
        notes: what is to be known besides.
    """
    part = f"the sections {', '.join(sections)} alone" if sections else "all sections"
    of = [("run", f"{how}, {part}"), ("date", f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}")]
    text = HEAD + "| | |\n| --- | --- |\n"
    text += "".join(f"| {what} | {value} |\n" for what, value in (*of, *described.items()))
    # First, as other programs may have had so much of the machine that no figure counts.
    if listed := "".join(f"- {' '.join(note.split())}\n" for note in notes):
        text += f"\n{listed}"
    for title, table in blocks:
        text += f"\n## {title}\n\n```text\n{table}\n```\n"
    return text
