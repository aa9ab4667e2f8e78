"""docs/figures.md: the figures of one run, for readers who will not run the benchmark."""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from bench import machine

FIGURES: Final = machine.ROOT / "docs" / "figures.md"

HEAD: Final = """# Figures

The figures of one run of `make bench`, which writes this page; do not edit it.
[benchmarks.md](benchmarks.md) describes how they are measured. Compare the ratios: absolute figures
hold for this machine only.

"""


def figures_page(
    described: Mapping[str, object],
    how: str,
    sections: Sequence[str],
    blocks: Iterable[tuple[str, str]],
    notes: Iterable[str],
) -> str:
    """The page.

    Args:
        described: the machine, its programs and the commit.
        how: ``full`` or ``quick``.
        sections: the measured sections; empty if all.
        blocks: the tables, each with its title.
        notes: sentences above the tables.
    """
    names = ", ".join(sections)
    part = f"only the section{'s' * (len(sections) > 1)} {names}" if sections else "all sections"
    of = [("run", f"{how}, {part}"), ("date", f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}")]
    text = HEAD + "| | |\n| --- | --- |\n"
    text += "".join(f"| {what} | {value} |\n" for what, value in (*of, *described.items()))
    # First, as other programs may have used so much of the machine that no figure is reliable.
    if listed := "".join(f"- {' '.join(note.split())}\n" for note in notes):
        text += f"\n{listed}"
    for title, table in blocks:
        text += f"\n## {title}\n\n```text\n{table}\n```\n"
    return text
