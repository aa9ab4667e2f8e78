"""Admission: bytes of answers in flight, the rate of 503, and all bounds together."""

import asyncio
from collections.abc import Callable
from contextlib import closing
from functools import partial

import pytest

from fibcore.admission import (
    SHED_AT_ONCE,
    SHED_INTERVAL_SECONDS,
    UNCOUNTED_DIGITS,
    Admission,
    Budget,
    OverloadedError,
    ShedPace,
)
from tests.support.connections import Loop
from tests.support.waiting import in_a_loop

LONG = UNCOUNTED_DIGITS


def test_the_budget_counts_a_number_that_several_answers_share_once() -> None:
    budget = Budget(10 * LONG)
    digits = bytes(LONG)
    for _ in range(3):
        budget.hold(digits)
        assert budget.used == LONG
    for left in (LONG, LONG, 0):
        budget.release(digits)
        assert budget.used == left


def test_equal_digits_in_two_objects_are_counted_twice() -> None:
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


def test_exactly_the_limit_fits_and_one_byte_more_does_not() -> None:
    budget = Budget(2 * LONG)
    assert budget.fits(2 * LONG)
    assert not budget.fits(2 * LONG + 1)
    budget.hold(bytes(LONG))
    assert budget.fits(LONG)
    assert not budget.fits(LONG + 1)


def test_digits_that_are_already_held_fit_a_full_budget() -> None:
    budget = Budget(LONG)
    digits = bytes(LONG)
    assert budget.fits_shared(digits)
    budget.hold(digits)
    assert budget.fits_shared(digits)
    assert not budget.fits_shared(bytes(bytearray(LONG)))


def test_up_to_half_of_the_budget_is_lent_and_leaves_less_for_answers() -> None:
    budget = Budget(4 * LONG)
    assert not budget.lend(2 * LONG + 1)
    assert budget.lend(2 * LONG)
    assert not budget.lend(1)
    assert budget.fits(2 * LONG)
    assert not budget.fits(2 * LONG + 1)
    budget.take_back(2 * LONG)
    assert budget.lent == 0
    budget.hold(bytes(LONG))
    assert budget.lendable == 2 * LONG
    budget.hold(bytes(bytearray(LONG // 2)) + bytes(LONG // 2))
    assert budget.lendable == 0
    budget.hold(bytes(LONG + 1))
    assert budget.lendable == 0
    assert not budget.lend(1)


def test_the_maximum_is_kept_until_it_is_reset() -> None:
    budget = Budget(4 * LONG)
    digits = bytes(LONG)
    budget.hold(digits)
    budget.release(digits)
    assert (budget.used, budget.most) == (0, LONG)


@in_a_loop
async def test_a_burst_is_shed_at_once_and_the_rest_in_order() -> None:
    pace = ShedPace(limit=2 * SHED_AT_ONCE)
    shed: list[int] = []
    turns: list[int] = []
    done = asyncio.Event()

    def shed_one(number: int) -> None:
        shed.append(number)
        if len(shed) == 3 * SHED_AT_ONCE:
            done.set()
        elif len(shed) % SHED_AT_ONCE == 0:
            # The loop has finished the rest of its turn before this.
            asyncio.get_running_loop().call_soon(lambda: turns.append(len(shed)))

    for number in range(3 * SHED_AT_ONCE):
        pace.submit(partial(shed_one, number))
    assert shed == list(range(SHED_AT_ONCE))
    await done.wait()
    assert shed == list(range(3 * SHED_AT_ONCE))
    assert turns == [SHED_AT_ONCE, 2 * SHED_AT_ONCE]


@in_a_loop
async def test_a_retry_after_shedding_goes_to_the_end_of_the_queue() -> None:
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
async def test_past_the_bound_on_waiting_clients_the_next_is_shed_at_once() -> None:
    pace = ShedPace(limit=1)
    shed: list[int] = []
    for number in range(SHED_AT_ONCE + 2):
        pace.submit(partial(shed.append, number))
    assert shed == [*range(SHED_AT_ONCE), SHED_AT_ONCE + 1]


@in_a_loop
async def test_without_max_shed_nobody_waits_for_a_503() -> None:
    pace = Admission(max_waiting=1, max_in_flight=1).pace
    shed: list[int] = []
    for number in range(SHED_AT_ONCE + 1):
        pace.submit(partial(shed.append, number))
    assert shed == [*range(SHED_AT_ONCE + 1)]


def test_after_a_pause_another_burst_is_shed_at_once() -> None:
    with closing(Loop()) as loop:
        pace = Admission(max_waiting=1, max_in_flight=1, max_shed=1).pace
        for _ in range(2):
            shed: list[int] = []
            for number in range(SHED_AT_ONCE + 1):
                loop.call_soon(pace.submit, partial(shed.append, number))
            loop.settle()
            assert shed == [*range(SHED_AT_ONCE)]
            loop.pass_time(SHED_INTERVAL_SECONDS)
            assert shed == [*range(SHED_AT_ONCE + 1)]
            loop.pass_time(1)


def test_a_thousand_per_second_are_shed() -> None:
    with closing(Loop()) as loop:
        pace = ShedPace(limit=5_000)
        shed: list[int] = []
        for number in range(5_000):
            loop.call_soon(pace.submit, partial(shed.append, number))
        for _ in range(20):
            loop.pass_time(0.05)
        assert 1_000 <= len(shed) <= 1_000 + SHED_AT_ONCE


# The bounds together


@pytest.fixture
def admission() -> Admission:
    """Two steps may wait, and answers use half of the bytes."""
    admission = Admission(max_waiting=2, max_in_flight=4 * LONG)
    admission.in_flight.hold(bytes(2 * LONG))
    return admission


def test_a_step_is_admitted_below_the_bound_on_waiting_steps(admission: Admission) -> None:
    admission.admit_step(1, 1)
    for _ in range(2):
        with pytest.raises(OverloadedError, match="2 steps already wait for the disk"):
            admission.admit_step(2, 1)
    assert admission.shed == dict.fromkeys(admission.shed, 0) | {"waiting": 2}


def test_a_step_is_admitted_if_its_answer_fits_or_is_short(admission: Admission) -> None:
    """It must fit beside the answers of the waiting steps."""
    admission.admit_step(1, LONG)
    admission.admit_step(0, 2 * LONG)
    for waiting, size in ((1, LONG + 1), (0, 2 * LONG + 1)):
        with pytest.raises(OverloadedError, match="use all the memory"):
            admission.admit_step(waiting, size)
    admission.in_flight.hold(bytes(bytearray(2 * LONG)))
    admission.admit_step(1, LONG - 1)
    with pytest.raises(OverloadedError):
        admission.admit_step(0, LONG)
    assert admission.shed == dict.fromkeys(admission.shed, 0) | {"in_flight": 3}


def test_an_answer_is_admitted_if_it_fits_or_is_shared_or_short(admission: Admission) -> None:
    fits = bytes(bytearray(2 * LONG))
    admission.admit_answer(fits)
    with pytest.raises(OverloadedError, match="use all the memory"):
        admission.admit_answer(bytes(2 * LONG + 1))
    admission.in_flight.hold(fits)
    admission.admit_answer(fits)
    admission.admit_answer(bytes(LONG - 1))
    with pytest.raises(OverloadedError):
        admission.admit_answer(bytes(LONG))
    assert admission.shed == dict.fromkeys(admission.shed, 0) | {"in_flight": 2}


def test_work_is_admitted_if_its_memory_fits(admission: Admission) -> None:
    admission.admit_work(2 * LONG)
    with pytest.raises(OverloadedError, match="use all the memory"):
        admission.admit_work(4 * LONG)
    assert admission.shed == dict.fromkeys(admission.shed, 0) | {"in_flight": 1}


@pytest.mark.parametrize(
    "admit",
    [
        lambda admission, size: admission.admit_work(size),
        lambda admission, size: admission.admit_step(0, size),
        lambda admission, size: admission.admit_answer(bytes(size)),
    ],
    ids=["work", "a step", "an answer"],
)
def test_work_larger_than_the_bound_is_never_admitted_with_that_reason(
    admission: Admission,
    admit: Callable[[Admission, int], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for size in (4 * LONG, 4 * LONG + 1):
        with pytest.raises(OverloadedError) as shed:
            admit(admission, size)
        assert shed.value.is_lasting == (size > 4 * LONG)
    reason = f"{4 * LONG + 1} bytes are needed, and FIB_MAX_ANSWER_BYTES is {4 * LONG}"
    assert str(shed.value) == reason
    assert caplog.messages[-1].endswith(f"has not stepped: {reason}.")
