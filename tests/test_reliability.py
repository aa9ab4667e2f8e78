"""docs/reliability.md names tests: they must be there."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
DOCUMENT = TESTS.parent / "docs" / "reliability.md"


def test_every_test_that_the_document_names_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", DOCUMENT.read_text())
    assert len(named) > 50
    defined = {
        (file, node.name)
        for file in {file for file, _ in named}
        for node in ast.parse(TESTS.joinpath(file).read_text()).body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    }
    assert set(named) <= defined


def test_every_test_that_the_document_names_is_named_in_full() -> None:
    assert not re.findall(r"`[^`\n]*::(?!\w+`)[^`\n]*`", DOCUMENT.read_text())
