"""The bound on the bytes of answers in flight, against the obvious count."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fibcore.budget import UNCOUNTED_DIGITS, Budget

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
