"""docs/reliability.md and docs/proofs.md name tests: they must be there."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
DOCUMENTS = [TESTS.parent / "docs" / name for name in ("proofs.md", "reliability.md")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_test_that_the_document_names_exists(document: Path) -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", document.read_text())
    assert len(named) > 40
    defined = {
        (file, node.name)
        for file in {file for file, _ in named}
        for node in ast.parse(TESTS.joinpath(file).read_text()).body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    }
    assert set(named) <= defined


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_test_that_the_document_names_is_named_in_full(document: Path) -> None:
    assert not re.findall(r"`[^`\n]*::(?!\w+`)[^`\n]*`", document.read_text())
