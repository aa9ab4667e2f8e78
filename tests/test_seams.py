"""Tests know the product by its seams alone, so that what is behind them can be rebuilt.

``offenders.txt`` lists the files that still know more; it only shrinks. After a file has been
deleted or cured, ``python -m tests.test_seams`` prints the list as it should be.
"""

import ast
import re
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

TESTS: Final = Path(__file__).parent
OFFENDERS: Final = TESTS / "offenders.txt"

EXEMPT: Final = ("simulation/product.py", "test_seams.py")
"""The adapter, which makes simulated processes of the product and may know all of it; and this."""

SEAMS: Final = ("fibcore", "fibcore.client", "fibcore.problems", "fibcore.stores")
"""The modules that tests may import, with what these export, and with ``MAIN``."""
MAIN: Final = "fibcore.command.cli.main"

PRODUCT: Final = re.compile(r"(fibcore|web|supervise)\b")


def is_seam(name: str) -> bool:
    """Whether a test may import the module, or the part of a module, with this name."""
    module, _, part = name.rpartition(".")
    if name in (*SEAMS, MAIN) or module not in SEAMS:
        return name in (*SEAMS, MAIN)
    exporting: Any = import_module(module)
    return part in getattr(exporting, "__all__", vars(exporting)) and part[0] != "_"


def offences(source: str) -> Iterator[str]:
    """Yield what the code of a test knows of the product behind its seams."""
    bound = set()
    for node in ast.walk(tree := ast.parse(source)):
        names: dict[str, str] = {}
        if isinstance(node, ast.Import):
            names = {each.asname or each.name.partition(".")[0]: each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
        bound |= {name for name, thing in names.items() if PRODUCT.match(thing)}
        yield from (each for each in names.values() if PRODUCT.match(each) and not is_seam(each))
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="setattr" | "delattr" | "patch"), args=[it, *_]):
                if root(it) in bound or PRODUCT.match(ast.unparse(it).strip("f'")):
                    yield f"patches {ast.unparse(it)}"
            case ast.Attribute(attr=name) if re.match("_[^_]", name) and root(node) in bound:
                yield ast.unparse(node)
            # A program for another process.
            case ast.Constant(value=str(text)) if re.search(r"(?m)^ *(from|import) ", text):
                try:
                    yield from offences(textwrap.dedent(text))
                except SyntaxError:
                    continue


def root(node: ast.expr) -> str | None:
    """The name that a dotted expression begins with."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def offenders() -> dict[str, list[str]]:
    """The files that know more than the seams, each with what it knows."""
    files = {str(path.relative_to(TESTS)): path for path in sorted(TESTS.rglob("*.py"))}
    found = {name: list(offences(path.read_text())) for name, path in files.items()}
    return {name: found[name] for name in sorted(found) if found[name] and name not in EXEMPT}


def test_a_test_knows_only_the_seams_of_the_product() -> None:
    listed, found = OFFENDERS.read_text().split(), offenders()
    assert {name: found[name] for name in found if name not in listed} == {}
    assert [name for name in listed if name not in found] == [], "cured: to be taken off the list"


def test_what_is_behind_a_seam_is_found() -> None:
    for source in (
        "from fibcore import stepper",
        "from fibcore.stores import sqlite",
        "from fibcore.command.cli import _parser",
        "import web.server",
        "import fibcore\nfibcore._sequence.add",
        "patch.setattr('web.http.hub.FEW', 1)",
        "from fibcore import Client\npatch.setattr(Client, 'next', None)",
        "run('from supervise.run import main')",
    ):
        assert len(list(offences(source))) == 1, source
    for source in (
        "import fibcore.problems\nfrom fibcore import Sequence, client",
        "from fibcore.command.cli import main",
        "from fibcore.problems import SettingsError\nfrom fibcore.stores import Store, opener_of",
    ):
        assert list(offences(source)) == []


if __name__ == "__main__":
    print("\n".join(offenders()))
