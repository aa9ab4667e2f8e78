"""The checker of answers finds every violation, and nothing else."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.checker import (
    MODULUS,
    Endpoint,
    Integers,
    Operation,
    WrongAnswer,
    check,
    index_of,
    residue_of,
)
from tests.support.reference import fibonacci, fibonacci_modulo

PRIME: Final = MODULUS["exact"]

BEFORE: Final = (0.0, 1.0)
AFTER: Final = (2.0, 3.0)
"""Two intervals: the first ends before the second begins."""
MEANWHILE: Final = (0.0, 3.0)
"""Overlaps both."""


def answered(path: Endpoint, when: tuple[float, float], index: int) -> Operation:
    number = fibonacci(index - (path == "previous"))
    return Operation(path, *when, index, number % PRIME)


def step(when: tuple[float, float], index: int) -> Operation:
    return answered("next", when, index)


def read(when: tuple[float, float], index: int, path: Endpoint = "current") -> Operation:
    return answered(path, when, index)


def unanswered(when: tuple[float, float]) -> Operation:
    return Operation("next", when[0])


# Single answers


@pytest.mark.parametrize("integers", ["exact", "uint64"])
@pytest.mark.parametrize("index", [1, 92, 93, 94, 95, 2_000])
def test_every_correct_number_passes_and_its_neighbour_does_not(
    index: int, integers: Integers
) -> None:
    value = fibonacci if integers == "exact" else fibonacci_modulo

    def check_answer(endpoint: Endpoint, number: int) -> None:
        residue = residue_of(endpoint, b'{"%b": %d}' % (endpoint.encode(), number), integers)
        answer = Operation(endpoint, *BEFORE, index, residue)
        check([answer], first=index, last=index, integers=integers)

    check_answer("current", value(index))
    check_answer("previous", value(index - 1))
    with pytest.raises(WrongAnswer, match="not the number of its index"):
        check_answer("current", value(index) + 1)


@pytest.mark.parametrize(
    "body", [b'{"current":3}', b'{"current": 3}\n', b'{"current": 03}', b'{"next": 3}', b""]
)
def test_anything_but_the_exact_bytes_is_wrong(body: bytes) -> None:
    assert residue_of("current", b'{"current": 3}') == 3
    with pytest.raises(WrongAnswer):
        residue_of("current", body)


@pytest.mark.parametrize("etag", [None, "4", 'W/"4"', '"4', '"four"'])
def test_an_etag_without_an_index_is_wrong(etag: str | None) -> None:
    assert index_of('"4"') == 4
    with pytest.raises(WrongAnswer):
        index_of(etag)


# Accepted histories


def test_a_step_without_an_answer_may_have_been_made_or_not() -> None:
    history = [unanswered(BEFORE), step(AFTER, 1)]
    assert check(history, first=0, last=1).taken == 0
    history = [unanswered(BEFORE), step(AFTER, 2)]
    assert check(history, first=0, last=2).taken == 1


def test_previous_shows_the_number_before_its_index() -> None:
    check([read(BEFORE, 10, "previous")], first=10, last=10)
    check([read(BEFORE, 0, "previous")], first=0, last=0)


# Rejected histories


@pytest.mark.parametrize(
    ("violation", "history", "last"),
    [
        ("one index, two steps", [step(MEANWHILE, 1), step(MEANWHILE, 1)], 1),
        ("it went back", [step(BEFORE, 2), step(AFTER, 1)], 2),
        ("it went back", [read(BEFORE, 1), step(AFTER, 1)], 1),
        ("lost: the sequence is at 1", [step(BEFORE, 1), step(AFTER, 2)], 1),
        ("lost", [unanswered(BEFORE), read(AFTER, 1)], 0),
        ("answered to nobody", [step(BEFORE, 2)], 2),
    ],
)
def test_an_index_answered_twice_a_step_backwards_and_a_lost_step_are_found(
    violation: str, history: list[Operation], last: int
) -> None:
    """So is a read of uncommitted steps: a later step gets the same index, or it is lost."""
    with pytest.raises(WrongAnswer, match=violation):
        check(history, first=0, last=last)


@pytest.mark.parametrize("path", ["next", "current", "previous"])
def test_a_wrong_number_is_found(path: Endpoint) -> None:
    good = answered(path, BEFORE, 100)
    with pytest.raises(WrongAnswer, match="not the number of its index"):
        check([replace(good, number=fibonacci(98) % PRIME)], first=99, last=100)


def test_a_conditional_step_from_another_index_is_found() -> None:
    wanted = replace(step(AFTER, 2), expected=1)
    check([step(BEFORE, 1), wanted], first=0, last=2)
    with pytest.raises(WrongAnswer, match="made from another index"):
        check([step(BEFORE, 1), replace(wanted, expected=0)], first=0, last=2)


# All others


def one_order_explains(history: Sequence[Operation], first: int, last: int) -> bool:
    """Whether such an order exists, by definition: try them all."""

    def explains(rest: Sequence[Operation], index: int) -> bool:
        if index == last and all(operation.index is None for operation in rest):
            return True
        for at, operation in enumerate(rest):
            if any(other.end < operation.start for other in rest):
                continue  # the other one is first
            steps = operation.endpoint == "next"
            if operation.index in (None, index + steps) and (steps or operation.index is not None):
                others = [*rest[:at], *rest[at + 1 :]]
                if explains(others, index + steps):
                    return True
        return False

    return explains(history, first)


def accepts(history: Sequence[Operation], first: int, last: int) -> bool:
    try:
        check(history, first=first, last=last)
    except WrongAnswer:
        return False
    return True


@st.composite
def small_histories(draw: st.DrawFn) -> list[Operation]:
    history = []
    for _ in range(draw(st.integers(0, 5))):
        start = draw(st.integers(0, 6))
        end = start + draw(st.integers(0, 6))
        index = draw(st.none() | st.integers(0, 4))
        path: Endpoint = "next" if index is None else draw(st.sampled_from(["next", "current"]))
        if index is None:
            history.append(unanswered((start, end)))
        else:
            history.append(answered(path, (start, end), index))
    return history


@given(small_histories(), st.integers(0, 1), st.integers(0, 5))
@example([unanswered(BEFORE), unanswered(AFTER), step(AFTER, 2), read(BEFORE, 1)], 0, 3)
def test_a_history_is_accepted_if_and_only_if_some_order_explains_it(
    history: list[Operation], first: int, last: int
) -> None:
    assert accepts(history, first, last) == one_order_explains(history, first, last)
