"""The length of a number and its ends, known without computing it, and its digits in pieces."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import gmpy2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fibcore import MAX_EXACT_INDEX, MAX_INDEX
from fibcore.command.cli import main
from fibcore.stores import opener_of
from tests.support.implementations import serving
from tests.support.reference import crossing, digits_of, fibonacci_modulo
from tests.support.servers import Client


@pytest.fixture(scope="module")
def client(processes: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:  # noqa: ARG001
    with serving(tmp_path_factory.mktemp("served"), 0) as client:
        yield client


def length(client: Client, index: int) -> int:
    head = client.request("HEAD", f"/numbers/{index}", {"Accept": "text/plain"})
    return int(head.headers["content-length"])


def show(index: int, *options: str) -> str:
    """What the command prints of a sequence at ``index``."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()) as printed:
        database = Path(folder, "fibcore.db")
        opener_of(f"sqlite:{database}", "", "full", 10_000).create(index)
        with redirect_stderr(StringIO()):
            assert main(["show", "--database", str(database), *options]) == 0
    return printed.getvalue()


@given(st.integers(210, 5_000), st.integers(-1, 0))
def test_a_number_beside_a_power_of_ten_has_its_length(
    client: Client, digits: int, beside: int
) -> None:
    assert length(client, crossing(digits) + beside) == digits + 1 + beside


@given(st.integers(0, 2_000) | st.integers(0, 1_000_000))
@example(0)
def test_the_ends_of_a_number_are_those_of_its_digits(index: int) -> None:
    text = digits_of(index).decode()
    plural = "s" * (len(text) > 1)
    shown = text if len(text) <= 20 else f"{text[:20]}...{text[-20:]}"
    assert f"{shown} ({len(text)} digit{plural})\n" in show(index)


def test_the_ends_of_the_largest_number_are_known_at_once() -> None:
    last = str(gmpy2.lucasu_mod(1, -1, MAX_EXACT_INDEX, 10**20)).zfill(20)
    assert f"...{last} (208987640 digits)" in show(MAX_EXACT_INDEX)


@pytest.mark.parametrize("index", [93, 94, 10**6, MAX_INDEX])
def test_a_number_of_uint64_is_shown_modulo_2_to_the_64(index: int) -> None:
    number = str(fibonacci_modulo(index))
    assert number in show(index, "--integers", "uint64")
    assert show(index, "--integers", "uint64", "--digits") == f"{number}\n"
    assert json.loads(show(index, "--integers", "uint64", "--json"))["index"] == str(index)


@pytest.mark.parametrize("index", [0, 1, 93, 20_000, 6_000_000])
def test_all_digits_are_printed_in_pieces_that_add_up_to_the_number(index: int) -> None:
    """The last of these takes more than one piece."""
    assert show(index, "--digits").encode() == digits_of(index) + b"\n"
