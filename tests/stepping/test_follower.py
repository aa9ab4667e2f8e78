"""The number that a standby precomputes."""

import threading
from typing import cast

import pytest

from fibcore import Sequence, follower
from fibcore.catching_up import ADDITIONS, INDEXES_PER_ADDITION, advance_to, is_near
from fibcore.follower import Follower
from tests.support.reference import digits_of
from tests.support.waiting import PATIENCE


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "INTERVAL_SECONDS", 0.001)
    monkeypatch.setattr(follower, "FOLLOWED_FROM", 1_000)


class Server:
    """Has an index, and tells whether it was read since it was set."""

    def __init__(self, index: int | None) -> None:
        self.index = index
        self._looked = threading.Semaphore(0)

    def peek(self) -> int | None:
        index = self.index
        self._looked.release()
        return index

    def go_to(self, index: int) -> None:
        self.index = index
        self.wait()

    def wait(self) -> None:
        """Return when everything read before has been computed."""
        while self._looked.acquire(blocking=False):
            pass
        for _ in range(3):
            assert self._looked.acquire(timeout=PATIENCE)


def test_a_standby_precomputes_the_number_of_the_server() -> None:
    server = Server(1_000)
    follower = Follower(server.peek)
    follower.start()
    follower.start()
    server.wait()
    for index in (1_001, 1_100, 1_101, 50_000):
        server.go_to(index)
    sequence = follower.stop()
    assert sequence is not None
    assert (sequence.index, sequence.current) == (50_000, digits_of(50_000))


@pytest.mark.parametrize("index", [None, 0, 999])
def test_short_numbers_are_not_precomputed(index: int | None) -> None:
    server = Server(index)
    follower = Follower(server.peek)
    follower.start()
    server.wait()
    assert follower.stop() is None


def test_a_server_that_never_stood_by_has_nothing_precomputed() -> None:
    assert Follower(lambda: 5_000).stop() is None
    modular = Follower(lambda: 5_000, "uint64")
    modular.start()
    assert modular.stop() is None


def test_a_takeover_waits_for_only_a_piece_of_the_computation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However far the server has stepped meanwhile."""
    server = Server(1_000)
    follower = Follower(server.peek)
    follower.start()
    server.wait()
    pieces: list[int] = []
    began = threading.Event()

    class Slow:
        index = 1_000

        def advance(self, steps: int) -> None:
            pieces.append(steps)
            began.set()
            assert follower._has_ended.wait(PATIENCE)
            self.index += steps

    monkeypatch.setattr(follower, "_sequence", Slow())
    server.index = 1_000 + ADDITIONS
    assert began.wait(PATIENCE)
    assert follower.stop() is not None
    assert len(pieces) == 1


@pytest.mark.parametrize("start", [0, 1_000, 10_000_000])
def test_a_few_additions_count_as_near(start: int) -> None:
    class At:
        index = start

    sequence = cast("Sequence", At())
    few = max(ADDITIONS, start // INDEXES_PER_ADDITION)
    assert is_near(sequence, start)
    assert is_near(sequence, start + few)
    assert not is_near(sequence, start + few + 2)
    assert not is_near(sequence, start - 1)


@pytest.mark.parametrize("ahead", [0, 1, ADDITIONS, ADDITIONS + 1, 30_000])
def test_a_sequence_is_moved_to_an_index_however_far_ahead(ahead: int) -> None:
    sequence = Sequence(1_000)
    advance_to(sequence, 1_000 + ahead)
    assert (sequence.index, sequence.current) == (1_000 + ahead, digits_of(1_000 + ahead))
