"""``docs/proofs.md``, made from the marks on the tests: ``make proofs`` writes it.

    @pytest.mark.proves("processes", "the server is killed", "the standby serves")
    @pytest.mark.proves("processes", "the server is…", control="without a standby, none serves")

A mark has the name of a table of the page, and the cells of its row. Another test joins that row by
its first cells, the last of which may be abbreviated with "…". ``control`` is the protection that
is removed, and the harm. The marks are parsed: no test is imported.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parents[1]
PAGE: Final = TESTS.parent / "docs" / "proofs.md"
TEMPLATE: Final = Path(__file__).with_name("proofs.template.md")
"""The page without its rows: ``{NAME}``, below a header, is replaced by those of a table."""


@dataclass(frozen=True)
class Mark:
    """A mark on a test."""

    test: str
    table: str
    cells: tuple[str, ...]
    control: str | None = None

    def joins(self, cells: tuple[str, ...]) -> bool:
        """Whether it belongs to the row with these ``cells``."""
        *first, last = self.cells
        at = len(first)
        return (
            list(cells[:at]) == first
            and len(cells) > at
            and (cells[at].startswith(last[:-1]) if last[-1:] == "…" else cells[at] == last)
        )


@dataclass
class Row:
    """The tests of a row."""

    tests: list[str] = field(default_factory=list)
    controls: dict[str, list[str]] = field(default_factory=dict)


def marks_of(test: str, source: str) -> Iterator[Mark]:
    """Yield the marks of a module, whose name from ``tests`` on is ``test``."""
    for node in ast.parse(source).body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        for each in node.decorator_list:
            if isinstance(each, ast.Call) and ast.unparse(each.func) == "pytest.mark.proves":
                table, *cells = (ast.literal_eval(argument) for argument in each.args)
                (control,) = [ast.literal_eval(name.value) for name in each.keywords] or [None]
                yield Mark(f"{test}::{node.name}", table, tuple(cells), control)


def all_marks() -> list[Mark]:
    """Return the marks on all tests, by their modules' names."""
    return [
        mark
        for path in sorted(TESTS.rglob("test_*.py"))
        if "mark.proves" in (source := path.read_text())
        for mark in marks_of(str(path.relative_to(TESTS)), source)
    ]


def rows_of(marks: Iterable[Mark], columns: int) -> list[str]:
    """Return the rows of one table, by their tests; those with the same first cell are together.

    Raises:
        ValueError: a mark has too many cells, or joins no row, or several.
    """
    marks = list(marks)
    full = [
        mark.cells for mark in marks if len(mark.cells) == columns and mark.cells[-1][-1] != "…"
    ]
    rows = {cells: Row() for cells in full}
    for mark in marks:
        joined = [mark.cells] if mark.cells in rows else [*filter(mark.joins, rows)]
        if len(joined) != 1:
            raise ValueError(f"{mark.test}: {mark.cells} belongs to {len(joined)} rows, not to one")
        row = rows[joined[0]]
        place = row.tests if mark.control is None else row.controls.setdefault(mark.control, [])
        if mark.test not in place:
            place.append(mark.test)
    heads = list(dict.fromkeys(cells[0] for cells in rows))
    return [
        f"| {' | '.join(cells)} | {_tests(rows[cells])} |"
        for cells in sorted(rows, key=lambda cells: heads.index(cells[0]))
    ]


def _tests(row: Row) -> str:
    parts = [_named(row.tests)] if row.tests else []
    parts += [f"control ({harm}): {_named(tests)}" for harm, tests in row.controls.items()]
    return "; ".join(parts)


def _named(tests: list[str]) -> str:
    return ", ".join(f"`{test}`" for test in tests)


def page(template: str, marks: list[Mark]) -> str:
    """Return the page.

    Raises:
        ValueError: a mark does not fit in, or a table has no row.
    """
    tables = re.findall(r"(?m)^\| --- (.*)\|\n\{([\w-]+)\}$", template)
    if unknown := {mark.table for mark in marks} - {name for _, name in tables}:
        raise ValueError(f"no table of {TEMPLATE.name} is called {', '.join(sorted(unknown))}")
    for rules, name in tables:
        rows = rows_of((mark for mark in marks if mark.table == name), rules.count("---"))
        if not rows:
            raise ValueError(f"no test has a mark for {name}")
        template = template.replace(f"|\n{{{name}}}\n", "\n".join(["|", *rows, ""]))
    return template


if __name__ == "__main__":
    PAGE.write_text(page(TEMPLATE.read_text(), all_marks()))
