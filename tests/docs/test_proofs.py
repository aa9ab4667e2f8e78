"""docs/proofs.md names tests: they must be there."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PROOFS = TESTS.parent / "docs" / "proofs.md"


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", PROOFS.read_text())
    assert len(named) > 200
    defined = {
        (file, node.name)
        for file in {file for file, _ in named}
        for node in ast.parse(TESTS.joinpath(file).read_text()).body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    }
    assert set(named) <= defined


def test_every_test_that_is_named_is_named_in_full() -> None:
    assert not re.findall(r"`[^`\n]*::(?!\w+`)[^`\n]*`", PROOFS.read_text())
