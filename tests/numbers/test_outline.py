"""A number's outline and its digits, compared with the number itself."""

import resource

import gmpy2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fibcore import MAX_EXACT_INDEX, MAX_INDEX
from fibcore.numbers import outline
from tests.support.reference import crossing, digits_of, fibonacci_modulo


@given(st.integers(0, 2_000) | st.integers(0, 1_000_000))
@example(outline.COMPUTED)
@example(outline.COMPUTED + 1)
def test_an_outline_agrees_with_the_number(index: int) -> None:
    text = digits_of(index).decode()
    assert outline.outline(index) == (len(text), text[:20], text[-20:])


@given(st.integers(210, 5_000), st.integers(-1, 0))
def test_a_number_beside_a_power_of_ten_has_its_length(length: int, beside: int) -> None:
    index = crossing(length) + beside
    assert outline.outline(index).digits == length + 1 + beside


def test_the_outline_of_the_largest_number_is_computed_at_once() -> None:
    assert outline.outline(MAX_EXACT_INDEX).digits == 208_987_640
    assert outline.outline(MAX_EXACT_INDEX).last == str(
        gmpy2.lucasu_mod(1, -1, MAX_EXACT_INDEX, 10**20)
    ).zfill(20)


@pytest.mark.parametrize("index", [93, 94, 10**6, MAX_INDEX])
def test_an_outline_of_uint64_is_the_number_modulo_2_to_the_64(index: int) -> None:
    text = str(fibonacci_modulo(index))
    assert outline.outline(index, "uint64") == (len(text), text, text)
    assert "".join(outline.digits(index, "uint64")) == text


@given(st.integers(0, 3_000))
@example(0)
def test_the_pieces_of_a_number_add_up_to_it(index: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outline, "PIECE", 10)
        pieces = list(outline.digits(index))
    assert "".join(pieces).encode() == digits_of(index)
    assert all(len(piece) <= 10 for piece in pieces)


def test_a_piece_may_begin_with_zeros() -> None:
    number = gmpy2.mpz(10) ** outline.PIECE * 3 + 7
    pieces = list(outline._pieces(number, outline.PIECE + 1))
    assert pieces == ["3", "7".zfill(outline.PIECE)]


def test_progress_is_reported_from_0_to_1() -> None:
    reports: list[float] = []
    index = 6_000_000
    pieces = list(outline.digits(index, report=reports.append))
    assert "".join(pieces).encode() == digits_of(index)
    assert len(pieces) == 2
    assert reports == [0, pytest.approx(len(pieces[0]) / len("".join(pieces))), 1]


def test_a_number_larger_than_the_memory_limit_is_not_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """GMP would end the process."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4 * len(digits_of(99_999)), 0))
    assert "".join(outline.digits(99_999)).encode() == digits_of(99_999)
    with pytest.raises(MemoryError):
        next(outline.digits(100_100))
