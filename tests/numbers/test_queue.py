"""The queue of numbers: computed in order, shared, kept, and bounded."""

import asyncio
from collections.abc import Callable

import pytest

from fibcore.admission import OverloadedError
from fibcore.numbers import queue
from fibcore.numbers.queue import (
    MAX_KEPT,
    MAX_QUEUED,
    MAX_WAITING,
    PASS_SECONDS,
    SHORT,
    WORKING_MEMORY,
    Found,
)
from fibcore.numbers.worker_process import DIGITS_PER_INDEX, most_digits
from tests.support.long_numbers import LONG, Held
from tests.support.waiting import PATIENCE, in_a_loop, until_idle


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Held]:
    def make(max_in_flight: int = 64 * 2**20, max_waiting: int = MAX_WAITING) -> Held:
        return Held(monkeypatch, max_in_flight, max_waiting=max_waiting)

    return make


@in_a_loop
async def test_numbers_are_computed_in_order_one_at_a_time(held: Callable[..., Held]) -> None:
    it = held()
    for index in (LONG, LONG + 1, LONG + 2):
        it.find(index)
    assert it.queue.queued == 3
    it.find(SHORT)
    assert it.indexes == [SHORT]  # at once
    await until_idle()
    assert it.begun.get(timeout=PATIENCE) == LONG
    assert it.begun.empty()
    for _ in range(3):
        it.go_on.put_nowait(None)
    await it.wait_for(4)
    assert it.indexes == [SHORT, LONG, LONG + 1, LONG + 2]
    assert it.queue.queued == 0
    await it.queue.close()


@in_a_loop
async def test_clients_waiting_for_the_same_number_share_it(held: Callable[..., Held]) -> None:
    """It is cached afterwards."""
    it = held()
    for _ in range(3):
        it.find(LONG)
    it.go_on.put_nowait(None)
    await it.wait_for(3)
    it.find(LONG)
    assert it.begun.get(timeout=PATIENCE) == LONG
    assert it.begun.empty()
    assert len({id(found) for _, found in it.found}) == 1
    await it.queue.close()


@in_a_loop
async def test_past_its_bound_the_queue_accepts_no_other_number(held: Callable[..., Held]) -> None:
    it = held()
    for number in range(MAX_QUEUED):
        it.find(LONG + number)
    with pytest.raises(OverloadedError, match=f"{MAX_QUEUED} requests wait"):
        it.find(LONG + MAX_QUEUED)
    assert it.admission.shed["numbers"] == 1
    it.find(LONG)  # It waits already.
    it.find(5)
    for _ in range(MAX_QUEUED):
        it.go_on.put_nowait(None)
    await it.wait_for(MAX_QUEUED + 2)
    it.find(LONG + MAX_QUEUED)
    it.go_on.put_nowait(None)
    await it.wait_for(MAX_QUEUED + 3)
    await it.queue.close()


@in_a_loop
async def test_a_short_number_overtakes_long_ones_of_the_same_client(
    held: Callable[..., Held],
) -> None:
    """Numbers that have waited long are not overtaken."""
    it = held()
    now = asyncio.get_running_loop().time()
    it.find(10 * LONG)
    await until_idle()
    waited = PASS_SECONDS * (most_digits(9 * LONG) - most_digits(SHORT + 1)) + 1
    it.find(9 * LONG)
    it.queue._waiting[9 * LONG][0].since = now - waited
    it.find(8 * LONG)
    it.find(SHORT + 1)
    assert await it.finish() == [10 * LONG, 9 * LONG, SHORT + 1, 8 * LONG]


@in_a_loop
async def test_each_client_gets_an_equal_share_of_digits(held: Callable[..., Held]) -> None:
    it = held()
    for number in range(4):
        it.find(10 * LONG + number, "greedy")
    await until_idle()
    for number in range(4):
        it.find(5 * LONG + number, "other")
    it.find(3 * LONG, "third")
    # The greedy client has had its first number; then the two others get as much.
    order = await it.finish()
    assert order[0] == 10 * LONG
    assert order.index(3 * LONG) < 4
    assert order.index(5 * LONG + 1) < order.index(10 * LONG + 1)
    assert order.index(10 * LONG + 1) < order.index(5 * LONG + 3)


@in_a_loop
async def test_a_client_that_fills_the_queue_is_shed_before_others(
    held: Callable[..., Held],
) -> None:
    """Its longest number is shed, except the one under way."""
    it = held()
    it.find(9 * LONG, "greedy")
    await until_idle()
    for number in range(MAX_QUEUED - 1):
        it.find(LONG + number, "greedy")
    it.find(SHORT + 1, "other")
    it.find(SHORT + 2, "other")
    await until_idle()
    assert set(it.shed) == {LONG + MAX_QUEUED - 2, LONG + MAX_QUEUED - 3}
    with pytest.raises(OverloadedError, match=f"{MAX_QUEUED} requests wait"):
        it.find(2 * LONG, "greedy")
    it.find(SHORT + 3, "greedy")
    await until_idle()
    assert it.shed[2:] == [LONG + MAX_QUEUED - 4]
    assert it.queue.queued == MAX_QUEUED
    assert it.admission.shed["numbers"] == 4
    order = await it.finish()
    assert set(order[1:4]) == {SHORT + 1, SHORT + 2, SHORT + 3}
    assert len(order) == MAX_QUEUED


@in_a_loop
async def test_waiting_requests_are_bounded_and_the_last_is_shed(
    held: Callable[..., Held],
) -> None:
    it = held(max_waiting=10)
    for _ in range(10):
        it.find(LONG, "many")
    with pytest.raises(OverloadedError, match="10 requests wait"):
        it.find(LONG, "many")
    await until_idle()
    for _ in range(3):
        it.find(LONG, "few")
    await until_idle()
    # Even clients that wait for the number under way, which is still computed.
    assert it.shed == [LONG] * 3
    assert await it.finish() == [LONG]
    assert len(it.found) == 13
    assert not it.queue._clients
    assert not it.queue._had


@in_a_loop
async def test_a_client_that_retries_when_shed_is_shed_again(held: Callable[..., Held]) -> None:
    it = held(max_waiting=2)
    again = 0

    def ask_again(found: Found) -> None:
        nonlocal again
        again += 1
        assert isinstance(found, OverloadedError)
        with pytest.raises(OverloadedError):
            it.queue.find(3 * LONG, ask_again, "greedy")

    for number in range(2):
        it.queue.find(2 * LONG + number, ask_again, "greedy")
    it.find(LONG, "other")
    await until_idle()
    assert again == 1
    it.find(LONG + 1, "third")
    await until_idle()
    assert (again, it.shed) == (2, [])
    await it.finish()


@in_a_loop
async def test_a_client_that_waits_in_vain_gets_503_and_finds_the_number_later(
    held: Callable[..., Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = held()
    with monkeypatch.context() as patched:
        # Timers come after everything that could run before them, such as the start of the first
        # number.
        patched.setattr(queue, "WAIT_SECONDS", 0.0)
        for index in (LONG, LONG + 1, LONG):
            it.find(index)
        await it.wait_for(3)
    assert {type(found) for _, found in it.found} == {OverloadedError}
    assert "it took longer than 0 s" in str(it.found[0][1])
    assert it.queue.queued == 1
    it.find(LONG)
    it.go_on.put_nowait(None)
    await it.wait_for(4)
    assert it.found[3] == (LONG, b"8" * most_digits(LONG))
    assert it.begun.get(timeout=PATIENCE) == LONG
    assert it.begun.empty()
    assert it.queue.queued == 0
    await it.queue.close()


@in_a_loop
async def test_a_number_being_computed_counts_as_bytes_in_flight(held: Callable[..., Held]) -> None:
    size = WORKING_MEMORY * most_digits(LONG)
    it = held(max_in_flight=size + 10)
    it.find(LONG)
    await until_idle()
    assert it.admission.in_flight.used == size
    with pytest.raises(OverloadedError, match="all the memory"):
        it.find(LONG - 1)
    with pytest.raises(OverloadedError, match="FIB_MAX_ANSWER_BYTES"):
        it.find(10 * LONG)
    assert it.admission.shed["in_flight"] == 2
    it.go_on.put_nowait(None)
    await it.wait_for(1)
    assert it.admission.in_flight.used == 0
    await it.queue.close()


@in_a_loop
async def test_a_number_without_memory_at_its_turn_is_shed(held: Callable[..., Held]) -> None:
    it = held()
    for number in range(3):
        it.find(LONG + number)
    await until_idle()
    others = it.admission.in_flight.limit
    it.admission.in_flight.used += others
    it.go_on.put_nowait(None)
    await it.wait_for(3)
    assert [isinstance(found, bytes) for _, found in it.found] == [True, False, False]
    it.admission.in_flight.used -= others
    assert it.admission.in_flight.used == 0
    it.find(LONG + 1)
    it.go_on.put_nowait(OSError())
    it.find(LONG + 2)
    it.go_on.put_nowait(None)
    await it.wait_for(5)
    assert [isinstance(found, bytes) for _, found in it.found[3:]] == [False, True]
    assert "lack of memory" in str(it.found[3][1])
    await it.queue.close()


@pytest.mark.parametrize("error", [EOFError(), MemoryError(), ValueError("no count of digits")])
@in_a_loop
async def test_whatever_fails_the_next_number_is_computed(
    held: Callable[..., Held], error: Exception
) -> None:
    it = held()
    for failure in (error, None):
        it.find(LONG)
        it.go_on.put_nowait(failure)
        await it.wait_for(len(it.found) + 1)
    assert [isinstance(found, bytes) for _, found in it.found] == [False, True]
    assert it.admission.in_flight.used == 0
    await it.queue.close()


@in_a_loop
async def test_the_last_numbers_are_kept_up_to_a_bound_in_bytes(held: Callable[..., Held]) -> None:
    it = held()
    fit = MAX_KEPT // most_digits(LONG)
    for number in range(fit + 1):
        if number == fit:
            it.find(LONG)  # It is requested again, and the next oldest is dropped.
        it.go_on.put_nowait(None)
        it.find(LONG + number)
        await it.wait_for(number + 1 + (number == fit))
    assert it.queue.kept_bytes <= MAX_KEPT
    while not it.begun.empty():
        it.begun.get()
    it.find(LONG)
    it.find(LONG + 2)
    assert it.begun.empty()
    it.go_on.put_nowait(None)
    it.find(LONG + 1)
    await until_idle()
    assert it.begun.get(timeout=PATIENCE) == LONG + 1
    too_long = int(MAX_KEPT / DIGITS_PER_INDEX) + 10
    it.go_on.put_nowait(None)
    it.find(too_long)
    await it.wait_for(fit + 6)
    assert it.queue.kept_bytes <= MAX_KEPT
    await it.queue.close()


@in_a_loop
async def test_a_request_made_while_one_is_answered_waits_its_turn(
    held: Callable[..., Held],
) -> None:
    it = held()

    def ask_again(found: Found) -> None:
        it.found.append((LONG, found))
        it.find(LONG + 2)
        raise ValueError("which is nobody else's business")

    it.queue.find(LONG, ask_again)
    it.find(LONG + 1)
    for _ in range(3):
        it.go_on.put_nowait(None)
    await it.wait_for(3)
    assert it.indexes == [LONG, LONG + 1, LONG + 2]
    assert it.admission.in_flight.used == 0
    await it.queue.close()
