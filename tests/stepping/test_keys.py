"""Steps with idempotency keys, on the only node of a sequence and on one of several."""

import pytest

from fibcore import Snapshot
from fibcore.problems import KeysUnavailableError
from fibcore.stepper import Failure, Outcome, Repeated
from tests.support.connections import Loop
from tests.support.fake_stores import DOWN
from tests.support.keys import key
from tests.support.stepper_harness import Harness

FULL = KeysUnavailableError("x", "it is full")


def test_a_key_gets_the_number_of_its_step(loop: Loop) -> None:
    with Harness(loop) as it:
        it.ask("a", key=key(1))
        it.ask("b")
        loop.settle()
        it.ask("c", key=key(1))
        it.ask("d")
        it.ask("e", key=key(2))
        loop.settle()
        assert sorted(it.answers) == [
            ("a", 1, None),
            ("b", 2, None),
            ("c", 2, Repeated(1)),
            ("d", 3, None),
            ("e", 4, None),
        ]
        assert it.stepper.repeated == 1
        assert it.store.index == 4


def test_a_key_whose_step_is_under_way_is_outstanding(loop: Loop) -> None:
    with Harness(loop, blocking=True) as it:
        it.ask("a", key=key(1))
        loop.settle()
        it.ask("b", key=key(1))
        loop.settle()
        assert it.answers == [("b", 0, Failure.OUTSTANDING)]
        it.reply()
        it.ask("c", key=key(1))
        loop.settle()
        it.reply()
        assert it.answers[1:] == [("a", 1, None), ("c", 1, Repeated(1))]


@pytest.mark.parametrize("shared", [False, True])
def test_of_waiting_steps_with_the_same_key_one_is_made(loop: Loop, shared: bool) -> None:
    with Harness(loop, shared=shared) as it:
        it.ask("a", "b", key=key(1))
        it.ask("c")
        it.ask("d", key=key(1), condition=lambda _: False)
        loop.settle()
        assert it.answers == [
            ("a", 1, None),
            ("b", 1, Failure.OUTSTANDING),
            ("c", 2, None),
            ("d", 2, Failure.OUTSTANDING),
        ]


def test_a_condition_decides_for_a_new_key_but_not_for_a_known_one(loop: Loop) -> None:
    with Harness(loop) as it:
        for name, number, index in (("a", 1, 0), ("b", 1, 0), ("c", 2, 0), ("d", 2, 1)):
            it.ask(name, key=key(number), condition=lambda at, index=index: at == index)  # type: ignore[misc]
            loop.settle()
        assert it.answers == [
            ("a", 1, None),
            ("b", 1, Repeated(1)),
            ("c", 1, Failure.PRECONDITION),
            ("d", 2, None),
        ]


def test_at_the_largest_index_a_known_key_gets_its_number(loop: Loop) -> None:
    with Harness(loop, max_index=1) as it:
        it.ask("a", key=key(1))
        loop.settle()
        it.ask("b", key=key(1))
        it.ask("c", key=key(2))
        loop.settle()
        assert it.answers[1:] == [("b", 1, Repeated(1)), ("c", 1, Failure.EXHAUSTED)]


def test_a_dropped_key_and_one_ahead_are_neither_new_nor_answered(loop: Loop) -> None:
    with Harness(loop, 3) as it:
        it.store.kept.dropped = 2
        it.ask("old", key=key(1, since=1))
        it.ask("ahead", key=key(2, since=4))
        it.ask("new", key=key(3, since=2))
        loop.settle()
        assert it.answers == [
            ("old", 3, Failure.KEY_DROPPED),
            ("ahead", 3, Failure.KEY_AHEAD),
            ("new", 4, None),
        ]


def test_a_store_that_cannot_keep_keys_makes_steps_without_keys(loop: Loop) -> None:
    with Harness(loop, blocking=True) as it:
        it.ask("a", key=key(1))
        it.ask("b")
        loop.settle()
        it.store.error = FULL
        it.reply()
        it.store.error = None
        it.reply()
        assert it.answers == [("a", 0, Failure.KEYS_UNAVAILABLE), ("b", 1, None)]
        assert str(it.stepper.keys_problem) == "x: it is full"


@pytest.mark.parametrize("shared", [False, True])
def test_that_keys_cannot_be_kept_is_logged_once(
    loop: Loop, caplog: pytest.LogCaptureFixture, shared: bool
) -> None:
    with Harness(loop, shared=shared) as it:
        for number, error in enumerate((FULL, FULL, None, FULL), 1):
            it.store.error = error
            it.ask(str(number), key=key(number))
            loop.settle()
    assert caplog.text.count("x can't look up or save idempotency keys: it is full") == 2
    assert it.answers[-1] == ("4", 1, Failure.KEYS_UNAVAILABLE)


def test_a_batch_has_a_bounded_number_of_keys(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fibcore.stepper.MAX_KEYED", 10)
    with Harness(loop) as it:
        for number in range(27):
            it.ask(str(number), key=key(number))
        loop.settle()
        assert it.batches == [10, 10, 7]
        assert [index for _, index, _ in it.answers] == list(range(1, 28))


def test_a_step_does_not_wait_behind_repeated_keys(loop: Loop) -> None:
    with Harness(loop) as it:
        it.ask("a", key=key(1))
        loop.settle()
        again = iter(range(5))

        def ask_again(snapshot: Snapshot, outcome: Outcome, name: str) -> None:
            it.deliver(snapshot, outcome, name)
            if next(again, None) is not None:
                it.stepper.submit(ask_again, None, name, key(1))

        it.stepper.submit(ask_again, None, "again", key(1))
        it.ask("b")
        loop.settle()
        assert it.answers[1:3] == [("again", 1, Repeated(1)), ("b", 2, None)]
        assert len(it.answers) == 8


# A store that other nodes step, too.


def test_a_step_made_by_another_node_is_answered(loop: Loop) -> None:
    with Harness(loop, 5, shared=True) as it:
        it.store.index = 9
        it.store.kept.add(8, {key(1, since=5).digest: 7})
        it.ask("a", key=key(1, since=5))
        it.ask("b")
        it.read()
        loop.settle()
        assert it.answers == [("a", 9, Repeated(7)), ("b", 10, None)]
        assert it.looks == [9]


def test_a_failed_condition_is_reported_once_the_key_is_known_to_be_new(loop: Loop) -> None:
    with Harness(loop, 5, shared=True) as it:
        it.store.index = 9
        it.store.kept.add(9, {key(1, since=5).digest: 6})
        it.ask("a", key=key(1, since=5), condition=lambda index: index == 5)
        it.ask("b", key=key(2, since=5), condition=lambda index: index == 5)
        it.ask("c", condition=lambda index: index == 5)
        loop.settle()
        assert sorted(it.answers) == [
            ("a", 9, Repeated(6)),
            ("b", 9, Failure.PRECONDITION),
            ("c", 9, Failure.PRECONDITION),
        ]
        assert it.store.index == 9


def test_a_new_key_at_the_largest_index_is_rejected_for_that(loop: Loop) -> None:
    with Harness(loop, 5, shared=True, max_index=9) as it:
        it.store.index = 9
        it.ask("a", key=key(1, since=5))
        loop.settle()
        assert it.answers == [("a", 9, Failure.EXHAUSTED)]


def test_an_unavailable_store_releases_the_keys_of_waiting_steps(loop: Loop) -> None:
    with Harness(loop, 5, shared=True) as it:
        it.store.error = DOWN
        it.ask("a", key=key(1))
        loop.settle()
        it.store.error = None
        loop.pass_time(1.5)
        it.ask("b", key=key(1))
        loop.settle()
        assert it.answers == [("a", 5, Failure.UNAVAILABLE), ("b", 6, None)]
