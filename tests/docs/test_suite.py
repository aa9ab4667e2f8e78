"""The tests themselves."""

import re
from pathlib import Path

import pytest

from tests.mutants.equivalent import Equivalent

TESTS = Path(__file__).parents[1]


def test_no_test_module_imports_another() -> None:
    """Shared code is in ``tests/support``, a ``conftest.py``, or a module beside the tests."""
    importing = [
        str(path.relative_to(TESTS))
        for path in TESTS.rglob("*.py")
        if re.search(r"(?m)^\s*(from|import) (tests\.|\.)[\w.]*\btest_", path.read_text())
    ]
    assert importing == []


def test_an_equivalent_mutant_has_a_comment_at_its_line() -> None:
    its = Equivalent(
        "one = 1  # pragma: no mutate number: chosen\n"
        "# pragma: no mutate boundary, removal: either does\n"
        "del one\n"
        "two = 2  # pragma: no mutate: none counts\n"
        "three = 3  # pragma: no mutate\n"
    )
    assert its.has(1, "core/NumberReplacer")
    assert not its.has(1, "fibcore/RemoveStatement")
    assert its.has(3, "fibcore/RemoveStatement")
    assert its.has(3, "core/ReplaceComparisonOperator_Lt_LtE")
    assert not its.has(3, "core/ReplaceComparisonOperator_Lt_GtE")
    assert its.has(4, "core/AddNot")
    assert not its.has(5, "core/AddNot"), "there is no reason"
    with pytest.raises(KeyError):
        Equivalent("one = 1  # pragma: no mutate numbers: chosen\n")


def test_each_comment_on_mutants_is_parsed() -> None:
    for folder in ("fibcore", "web", "supervise"):
        for path in TESTS.parent.joinpath(folder).rglob("*.py"):
            source = path.read_text()
            assert source.count("no mutate") == len(re.findall(r"# pragma: no mutate.*: ", source))
            Equivalent(source)
