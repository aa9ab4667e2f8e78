"""The identity of a process in an engine, and its store, with a failing engine in memory."""

import logging
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Final

import pytest

from fibcore.problems import (
    BatchUnknowableError,
    DatabaseInvalidError,
    EngineUnavailableError,
    ForeignDatabaseError,
    NoRightError,
    SequenceMissingError,
    StoreUnavailableError,
)
from fibcore.stores import IndexConflictError
from fibcore.stores import records as module
from fibcore.stores.engine import PAUSES, EngineOpener
from fibcore.stores.link import Batch, Link, RecordGoneError, ReplyLostError
from fibcore.stores.records import Records

LOST: Final = ReplyLostError("the connection was reset")
ERRORS: Final = (
    EngineUnavailableError("memory", "it is failing over"),
    NoRightError("memory", "permission denied"),
    SequenceMissingError("memory", "test"),
    ForeignDatabaseError("memory", "it is not ours"),
    DatabaseInvalidError("memory", "it is damaged"),
)


class Memory(EngineOpener):
    """An engine with one sequence, and the processes connected to it.

    ``fails`` has the faults of the next requests: an error that replaces the action, ("after",
    error) that replaces the reply, or None.
    """

    def __init__(self) -> None:
        super().__init__("memory", "fibonacci")
        self.index = 0
        self.records: dict[uuid.UUID, tuple[int, int]] = {}
        self.processes: list[uuid.UUID] = []
        self.made: list[tuple[uuid.UUID, list[uuid.UUID]]] = []
        self.connecting: list[Exception | None] = []
        self.making: list[tuple[str, Exception] | None] = []
        self.committing: list[tuple[str, Exception] | None] = []
        self.links = 0

    def _take(self, url: str) -> None:
        assert url == "memory"

    def connect(self, process: uuid.UUID | None, record: uuid.UUID | None) -> "MemoryLink":
        assert process is not None
        self.processes.append(process)
        if self.connecting and (error := self.connecting.pop(0)):
            raise error
        self.links += 1
        return MemoryLink(self, record)


def failing(script: list[tuple[str, Exception] | None], do: Callable[[], int]) -> int:
    """Do something with the next fault of ``script``."""
    when, error = (script.pop(0) if script else None) or ("", None)
    if error is not None and when == "before":
        raise error
    done = do()
    if error is not None:
        raise error
    return done


class MemoryLink(Link):
    def __init__(self, engine: Memory, record: uuid.UUID | None) -> None:
        self._engine = engine
        self._record = record

    def _begin(self) -> None:
        raise NotImplementedError

    def make(self, record: uuid.UUID, given_up: Sequence[uuid.UUID]) -> None:
        def do() -> int:
            for each in given_up:
                self._engine.records.pop(each, None)
            self._engine.records[record] = (0, 0)
            return 0

        self._engine.made.append((record, list(given_up)))
        failing(self._engine.making, do)
        self._record = record

    def commit(self, batch: Batch) -> int:
        return failing(self._engine.committing, lambda: self._commit(batch))

    def _commit(self, batch: Batch) -> int:
        engine = self._engine
        assert self._record is not None
        if self._record not in engine.records:
            raise RecordGoneError("it is gone")
        number, _ = engine.records[self._record]
        assert number < batch.number
        if batch.expected not in (None, engine.index):
            raise IndexConflictError(engine.index)
        engine.index += batch.steps
        engine.records[self._record] = batch.number, engine.index
        return engine.index

    def settle(self, number: int) -> int:
        def do() -> int:
            engine = self._engine
            assert self._record is not None
            if self._record not in engine.records:
                raise RecordGoneError("it is gone")
            last, reached = engine.records[self._record]
            engine.records[self._record] = number, reached if last == number else 0
            return engine.records[self._record][1]

        return failing(self._engine.committing, do)

    def read(self) -> int:
        if self._record not in self._engine.records:
            raise RecordGoneError("it is gone")
        return self._engine.index

    def create(self, index: int) -> int | None:
        raise NotImplementedError

    def set_index(self, index: int, *, lower: bool) -> int:
        raise NotImplementedError

    def has_ended(self) -> bool:
        return False

    def records(self, after: str) -> tuple[Records, str]:
        found = sorted((str(name), str(held)) for name, held in self._engine.records.items())
        page = dict(each for each in found if each[0] > after)
        page = dict(list(page.items())[: module.PIECE])
        return page, max(page) if len(page) == module.PIECE else ""

    def remove(self, records: Records) -> None:
        assert len(records) <= module.PIECE
        for name, held in records.items():
            if str(self._engine.records.get(uuid.UUID(name))) == held:
                del self._engine.records[uuid.UUID(name)]

    def forget(self) -> None:
        if self._record is not None:
            self._engine.records.pop(self._record, None)

    def close(self) -> None:
        self._engine.links -= 1


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(clock: Clock) -> Memory:
    memory = Memory()
    memory.sleep, memory.clock = clock.sleep, clock
    return memory


# After a batch was sent


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("moment", ["connecting", "committing"])
def test_an_error_does_not_answer_a_batch_in_doubt(
    memory: Memory,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    error: StoreUnavailableError | DatabaseInvalidError,
    moment: str,
) -> None:
    with closing(memory.open()) as store:
        assert store.advance(1) == 1
        memory.committing = [("after", LOST)]
        if moment == "connecting":
            memory.connecting = [error] * 7
        else:
            memory.committing += [("before", error)] * 7
        assert store.advance(2) == memory.index == 3
        assert clock.slept == [*PAUSES, *[PAUSES[-1]] * 3]
        assert store.doubt is None
    said = [each.getMessage() for each in caplog.records]
    text = f"memory: it is not known yet whether the last 2 steps were made ({error}). "
    assert said == [f"{text}Their requests are answered as soon as it is."]
    assert memory.links == 0


def test_the_reason_of_a_doubt_is_that_of_the_last_attempt(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubts: list[Exception | None] = []
    with closing(memory.open()) as store:
        monkeypatch.setattr(memory, "sleep", lambda _: doubts.append(store.doubt))
        memory.committing = [("before", LOST), *(("before", error) for error in ERRORS)]
        assert store.advance(1) == 1
    assert doubts == [LOST, *ERRORS]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("moment", ["connecting", "committing"])
def test_the_reply_to_the_only_copy_is_an_answer(
    memory: Memory,
    error: StoreUnavailableError | DatabaseInvalidError,
    moment: str,
) -> None:
    with closing(memory.open()) as store:
        memory.committing = [("before", error)]
        with pytest.raises(type(error)):
            store.advance(1)
        if moment == "connecting":
            memory.connecting = [error]
            with pytest.raises(type(error)):
                store.advance(1)
        assert store.advance(1) == memory.index == 1


def test_a_failed_condition_answers_a_batch_in_doubt_too(memory: Memory) -> None:
    """By then the number of the batch in doubt is used up."""
    with closing(memory.open()) as store:
        memory.committing = [("before", LOST)]
        with pytest.raises(IndexConflictError):
            store.advance(1, expected=7)
        assert store.doubt is None
        assert list(memory.records.values()) == [(1, 0)]


def test_a_batch_is_in_doubt_whenever_it_is_sent_and_not_settled(
    memory: Memory,
) -> None:
    with closing(memory.open()) as store:
        memory.committing = [("before", LOST), ("after", LOST), None, ("after", LOST)]
        assert store.advance(2) == memory.index == 2
        assert list(memory.records.values()) == [(2, 2)]
        memory.committing = [("before", LOST), None, ("before", ERRORS[0])]
        with pytest.raises(EngineUnavailableError):
            store.advance(1)
        assert list(memory.records.values()) == [(3, 0)]
        memory.committing = [("before", LOST), None, ("before", LOST)]
        with pytest.raises(EngineUnavailableError, match=str(LOST)):
            store.advance(1)
        assert list(memory.records.values()) == [(6, 0)]
        assert store.advance(1) == memory.index == 3


# The record


def test_a_record_gone_in_doubt_ends_the_process(memory: Memory) -> None:
    with closing(memory.open()) as store:
        assert store.advance(1) == 1
        made = len(memory.made)
        memory.committing = [("after", LOST)]
        memory.connecting = [ERRORS[0]]
        memory.sleep = lambda _: memory.records.clear()
        with pytest.raises(BatchUnknowableError) as unknowable:
            store.advance(2)
        assert unknowable.value.steps == 2
        assert memory.index == 3
        assert len(memory.made) == made


def test_a_record_gone_without_a_doubt_is_replaced(memory: Memory) -> None:
    with closing(memory.open()) as store:
        assert store.advance(1) == 1
        (first,) = memory.records
        memory.records.clear()
        assert store.advance(1) == 2
        memory.records.clear()
        assert store.read() == 2
        names = [name for name, _ in memory.made]
        assert names[0] == first
        assert len(set(names)) == 3
        assert len(set(memory.processes)) == 1


def test_an_engine_that_cannot_keep_a_record_is_unavailable(memory: Memory) -> None:
    with closing(memory.open()) as store:
        gone = RecordGoneError("it is gone")
        memory.committing = [("before", gone), ("before", gone)]
        with pytest.raises(EngineUnavailableError, match="it is gone"):
            store.advance(1)
        assert store.advance(1) == 1


def test_reconnecting_creates_no_record(memory: Memory) -> None:
    with closing(memory.open()) as store:
        for index in range(1, 4):
            memory.committing = [("after", LOST)]
            assert store.advance(1) == index
        assert len(memory.made) == 1
        assert len(memory.processes) == 4
    assert memory.records == {}


def test_a_name_whose_creation_got_no_reply_is_abandoned(memory: Memory) -> None:
    """A late copy of the creation would bring back a record that a late batch could use."""
    memory.making = [("after", LOST)] * 3
    for _ in range(3):
        with pytest.raises(EngineUnavailableError):
            memory.open()
    with closing(memory.open()) as store:
        names = [name for name, _ in memory.made]
        assert [given_up for _, given_up in memory.made] == [names[:count] for count in range(4)]
        assert len(set(names)) == 4
        assert list(memory.records) == names[-1:]
        assert len(set(memory.processes)) == 1
        assert memory.links == 1
        assert store.advance(1) == 1


def test_each_open_store_has_its_own_identity(memory: Memory) -> None:
    with closing(memory.open()) as one, closing(memory.open()) as other:
        assert len(memory.records) == len(set(memory.processes)) == 2
        assert (one.advance(1), other.advance(1)) == (1, 2)


# Abandoned records


def left(memory: Memory, count: int) -> None:
    for number in range(count):
        memory.records[uuid.UUID(int=number + 1)] = (number, number)


def ask_for(clock: Clock, read: Callable[[], int], seconds: float) -> None:
    """Read every second."""
    for _ in range(int(seconds)):
        clock.now += 1
        read()


def test_records_unchanged_for_an_hour_are_removed_in_pieces(memory: Memory, clock: Clock) -> None:
    left(memory, 250)
    with closing(memory.open()) as store:
        read = store.read
        ask_for(clock, read, 3500)
        assert len(memory.records) == 251
        memory.records[uuid.UUID(int=7)] = (1000, 1000)
        ask_for(clock, read, 102)
        assert len(memory.records) == 251
        ask_for(clock, read, 1)
        assert len(memory.records) == 152
        ask_for(clock, read, 2)
        # Its own, although nothing was written to it, and the one that was written to.
        assert len(memory.records) == 2
        ask_for(clock, read, 3700)
        assert len(memory.records) == 1
        assert len(memory.made) == 1


def test_a_leap_of_the_clock_removes_no_unseen_record(memory: Memory, clock: Clock) -> None:
    left(memory, 10)
    with closing(memory.open()) as store:
        clock.now += 1e9
        store.read()
        assert len(memory.records) == 11


def test_a_failed_removal_affects_no_step(
    memory: Memory,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> tuple[Records, str]:
        raise NoRightError("memory", "permission denied")

    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(MemoryLink, "records", fail)
    with closing(memory.open()) as store:
        clock.now += 2
        assert store.advance(1) == 1
        ask_for(clock, store.read, 1000)
        assert len(caplog.records) == 1


def test_the_number_of_watched_records_is_bounded(
    memory: Memory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WATCHED", 200)
    left(memory, 450)
    with closing(memory.open()) as store:
        ask_for(clock, store.read, 3700)
        assert len(memory.records) == 251
        ask_for(clock, store.read, 7400)
        assert len(memory.records) == 1
