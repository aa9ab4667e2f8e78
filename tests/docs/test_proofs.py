"""docs/proofs.md is generated from the marks on the tests."""

import pytest

from tests.docs.proofs import PAGE, TEMPLATE, all_marks, marks_of, page

TABLE = "| what | outcome | test |\n| --- | --- | --- |\n{one}\n"


def of(*decorators: str) -> str:
    """The page of tests that have these marks."""
    source = "\n".join(f"@pytest.mark.proves({each})\ndef test(): ..." for each in decorators)
    return page(TABLE, list(marks_of("test_x.py", source)))


@pytest.mark.proves("suite", "this page matches the marks on the tests")
def test_the_page_of_proofs_is_generated_from_the_marks() -> None:
    expected = page(TEMPLATE.read_text(), all_marks())
    assert PAGE.read_text() == expected, "mark tests with pytest.mark.proves, then: make proofs"
    assert len(all_marks()) > 400
    assert "::" not in TEMPLATE.read_text()


def test_a_mark_joins_the_row_that_begins_like_it() -> None:
    assert of(
        '"one", "it fails a lot", "others do not"',
        '"one", "it fails", "it serves"',
        '"one", "it fails"',
        '"one", "it fails a…", control="no"',
    ).splitlines()[2:] == [
        "| it fails a lot | others do not | `test_x.py::test`; control (no): `test_x.py::test` |",
        "| it fails | it serves | `test_x.py::test` |",
    ]
