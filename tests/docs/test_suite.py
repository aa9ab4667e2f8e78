"""The tests themselves."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_no_module_of_tests_imports_another() -> None:
    """What they share is in ``tests/support``, or in a ``conftest.py`` or a module beside them."""
    importing = [
        str(path.relative_to(TESTS))
        for path in TESTS.rglob("*.py")
        if re.search(r"(?m)^\s*(from|import) (tests\.|\.)[\w.]*\btest_", path.read_text())
    ]
    assert set(importing) <= {"server/test_service.py"}  # until seeds have taken its place
