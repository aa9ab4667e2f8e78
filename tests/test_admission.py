"""The bound on the bytes of answers in flight, against the obvious count."""

import asyncio
from functools import partial

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fibcore.admission import SHED_AT_ONCE, UNCOUNTED_DIGITS, Budget, ShedPace
from tests.held import in_a_loop

LONG = UNCOUNTED_DIGITS


def test_a_number_that_several_answers_share_is_counted_once() -> None:
    budget = Budget(10 * LONG)
    digits = bytes(LONG)
    budget.hold(digits)
    budget.hold(digits)
    assert budget.used == LONG
    budget.release(digits)
    assert budget.used == LONG
    budget.release(digits)
    assert budget.used == 0


def test_equal_digits_that_are_not_the_same_object_are_counted_each() -> None:
    budget = Budget(10 * LONG)
    one, other = bytes(bytearray(LONG)), bytes(bytearray(LONG))
    budget.hold(one)
    budget.hold(other)
    assert budget.used == 2 * LONG


def test_short_numbers_are_not_counted_and_always_fit() -> None:
    budget = Budget(1)
    short = bytes(LONG - 1)
    assert budget.fits_shared(short)
    budget.hold(short)
    assert budget.used == 0
    budget.release(short)
    assert budget.used == 0


def test_what_reaches_the_limit_fits_and_what_passes_it_does_not() -> None:
    budget = Budget(2 * LONG)
    assert budget.fits(2 * LONG)
    assert not budget.fits(2 * LONG + 1)
    budget.hold(bytes(LONG))
    assert budget.fits(LONG)
    assert not budget.fits(LONG + 1)


def test_one_more_answer_with_digits_that_are_held_fits_a_full_budget() -> None:
    budget = Budget(LONG)
    digits = bytes(LONG)
    assert budget.fits_shared(digits)
    budget.hold(digits)
    assert budget.fits_shared(digits)
    assert not budget.fits_shared(bytes(bytearray(LONG)))


class AnyHolds(RuleBasedStateMachine):
    """Answers held and released in any order, against a list of what is held."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget(4 * LONG)
        self.numbers = [bytes(bytearray(LONG + size)) for size in (-1, 0, 1, LONG)]
        self.held: list[bytes] = []

    @rule(which=st.integers(0, 3))
    def hold(self, which: int) -> None:
        self.budget.hold(self.numbers[which])
        self.held.append(self.numbers[which])

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.held) - 1))
        self.budget.release(self.held.pop(at))

    @invariant()
    def each_long_number_that_is_held_counts_once(self) -> None:
        held = {id(digits): len(digits) for digits in self.held}
        used = sum(size for size in held.values() if size >= LONG)
        assert self.budget.used == used
        for digits in self.numbers:
            size = len(digits)
            assert self.budget.fits_shared(digits) == (
                size < LONG or id(digits) in held or used + size <= 4 * LONG
            )


TestAnyHoldsAndReleases = AnyHolds.TestCase


@in_a_loop
async def test_so_many_are_shed_at_once_and_the_others_when_their_turn_comes() -> None:
    pace = ShedPace(limit=2 * SHED_AT_ONCE)
    shed: list[int] = []
    turns: list[int] = []
    done = asyncio.Event()

    def shed_one(number: int) -> None:
        shed.append(number)
        if len(shed) == 3 * SHED_AT_ONCE:
            done.set()
        elif len(shed) % SHED_AT_ONCE == 0:
            # The loop has done all the rest of its turn before this.
            asyncio.get_running_loop().call_soon(lambda: turns.append(len(shed)))

    for number in range(3 * SHED_AT_ONCE):
        pace.submit(partial(shed_one, number))
    assert shed == list(range(SHED_AT_ONCE))
    await done.wait()
    assert shed == list(range(3 * SHED_AT_ONCE))
    assert turns == [SHED_AT_ONCE, 2 * SHED_AT_ONCE]


@in_a_loop
async def test_who_asks_again_whenever_it_is_shed_has_no_turn_before_the_others() -> None:
    pace = ShedPace(limit=2)
    shed: list[str] = []
    done = asyncio.Event()

    def shed_the_hasty() -> None:
        shed.append("hasty")
        if not done.is_set():
            pace.submit(shed_the_hasty)

    def shed_the_other() -> None:
        shed.append("other")
        done.set()

    pace.submit(shed_the_hasty)
    pace.submit(shed_the_other)
    await done.wait()
    assert shed[: SHED_AT_ONCE + 2] == [*["hasty"] * (SHED_AT_ONCE + 1), "other"]


@in_a_loop
async def test_where_as_many_wait_as_may_the_next_is_shed_at_once() -> None:
    pace = ShedPace(limit=1)
    shed: list[int] = []
    for number in range(SHED_AT_ONCE + 2):
        pace.submit(partial(shed.append, number))
    assert shed == [*range(SHED_AT_ONCE), SHED_AT_ONCE + 1]
