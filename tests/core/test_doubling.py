"""Long numbers are exact, and computing them does not block other threads."""

import threading
import time
from collections.abc import Callable

import gmpy2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fibcore import Sequence

LONG = 3_000_000

AT_ONCE = 16
"""Bits of an index up to which a number is computed in one call."""

PIECE = 2**14
"""Digits of a longer one that are made at a time."""


def pair(index: int) -> tuple[bytes, bytes]:
    """The digits of F(index) and F(index - 1) as a sequence has them that starts there."""
    snapshot = Sequence(index).snapshot
    return snapshot.current, snapshot.previous


def by_gmpy2(index: int) -> tuple[bytes, bytes]:
    current, previous = gmpy2.fib2(index)
    return current.digits().encode(), previous.digits().encode()


@given(st.integers(1, 2**AT_ONCE * 20) | st.integers(0, 40).map(lambda off: 2**AT_ONCE - 20 + off))
def test_a_pair_agrees_with_gmpy2(index: int) -> None:
    assert pair(index) == by_gmpy2(index)


@pytest.mark.parametrize("pieces", [1, 2, 3, 4, 5, 8, 9])
def test_a_pair_is_exact_around_the_boundaries_of_its_pieces(pieces: int) -> None:
    """F(n) has about 0.209 n digits: at most five indexes share a length."""
    begin = round(pieces * PIECE / 0.20898764)
    for index in range(begin - 6, begin + 10, 3):
        current, previous = pair(index)
        assert (current, previous) == by_gmpy2(index)


def runs_of_others(compute: Callable[[int], object]) -> int:
    """How often another thread has run while a long number was computed."""
    computing = threading.Thread(target=compute, args=(LONG,))
    computing.start()
    runs = 0
    while computing.is_alive():
        time.sleep(0.001)
        runs += 1
    computing.join()
    return runs


def test_other_threads_run_while_a_long_number_is_computed() -> None:
    """gmpy2 alone holds the GIL from the beginning to the end of each of its four calls."""
    assert runs_of_others(pair) > 2 * runs_of_others(by_gmpy2)
