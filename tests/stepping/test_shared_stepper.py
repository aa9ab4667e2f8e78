"""Group commit on a shared store: what shares a query, and what waits.

tests/simulation shows that no step is lost or made twice, whatever other nodes do.
"""

from tests.support.connections import Loop
from tests.support.stepper_harness import Harness


def test_waiting_steps_share_a_batch_that_is_numbered_by_its_commit(loop: Loop) -> None:
    with Harness(loop, 10, shared=True, blocking=True) as it:
        it.ask("a", "b", "c")
        loop.settle()
        it.store.index = 15
        it.reply()
        assert it.store.asked == [(3, None)]
        assert it.answers == [("a", 16, None), ("b", 17, None), ("c", 18, None)]


def test_waiting_reads_share_one_query(loop: Loop) -> None:
    with Harness(loop, 10, shared=True, blocking=True) as it:
        it.read()
        loop.settle()
        for _ in range(50):
            it.read()
        it.store.index = 17
        it.reply()
        assert it.looks == [17]
        it.store.index = 20_017
        it.reply()
        assert it.looks == [17] + [20_017] * 50
        assert it.store.asked == [(0, None), (0, None)]


def test_a_read_that_arrives_after_a_query_waits_for_the_next(loop: Loop) -> None:
    with Harness(loop, shared=True, blocking=True) as it:
        it.ask("a")
        loop.settle()
        it.read()
        it.reply()
        assert (it.answers, it.looks) == ([("a", 1, None)], [])
        it.store.index = 2
        it.reply()
        assert it.looks == [2]


def test_waiting_reads_and_steps_share_one_request_to_the_store(loop: Loop) -> None:
    with Harness(loop, 5, shared=True) as it:
        it.read()
        it.ask("a", "b")
        loop.settle()
        assert it.store.asked == [(2, None)]
        assert (it.answers, it.looks) == ([("a", 6, None), ("b", 7, None)], [7])


def test_steps_without_a_condition_do_not_wait_for_others(loop: Loop) -> None:
    """Steps with one are made only when the other nodes are idle."""
    with Harness(loop, shared=True, blocking=True) as it:
        it.ask("any", condition=lambda _: True)
        it.ask("free", "too")
        loop.settle()
        it.store.index = 1
        it.reply()
        it.store.index = 2
        it.reply()
        assert it.answers == [("free", 3, None), ("too", 4, None)]
        it.reply()
        assert it.answers[2:] == [("any", 5, None)]
