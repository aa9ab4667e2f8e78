"""The service while its store is usable, is unavailable, or hangs."""

import asyncio
import logging
import threading
from collections.abc import Callable

import pytest

from fibcore import Sequence, Snapshot
from fibcore.appliance.settings import Settings
from fibcore.problems import DatabaseInvalidError, StoreUnavailableError, explain
from fibcore.stores import Store
from tests.support.blocking_store import BlockingStore
from tests.support.waiting import PATIENCE, in_a_loop
from web import service as module
from web.service import Service


class Opener:
    """Opens a store after the given errors."""

    def __init__(self, *errors: Exception) -> None:
        self.store = BlockingStore()
        self.tried = threading.Semaphore(0)
        """Released at each try."""
        self._errors = list(errors)

    def __call__(self) -> Store:
        self.tried.release()
        if self._errors:
            raise self._errors.pop(0)
        return self.store


def service_of(open_store: Callable[[], Store]) -> Service:
    return Service(Settings.from_environ({}), open_store)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0)


async def until_it_serves(service: Service) -> None:
    assert service.opening is not None
    await service.opening
    assert service.stepper is not None


@in_a_loop
async def test_a_usable_store_is_served_without_a_problem() -> None:
    service = service_of(Opener())
    assert service.reason == "The server is starting."
    assert service.snapshot is None
    async with service:
        assert service.reason is None
        assert service.snapshot is not None
        assert service.snapshot.index == 0


@in_a_loop
async def test_a_store_past_the_largest_index_is_opened_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Opening writes as much as a takeover, and is retried every second."""
    reads: list[BlockingStore] = []

    def read(store: BlockingStore) -> int:
        reads.append(store)
        if len(reads) == 3:
            raise StoreUnavailableError("an engine", "it did not reply")
        return 10**9 if len(reads) < 5 else 7

    monkeypatch.setattr(BlockingStore, "read", read)
    opener = Opener()
    service = service_of(opener)
    async with service:
        assert service.reason is not None
        await until_it_serves(service)
        assert service.snapshot is not None
        assert service.snapshot.index == 7
    assert len(reads) == 5
    # At first, and after the error of one that was open.
    assert opener.tried.acquire(blocking=False)
    assert opener.tried.acquire(blocking=False)
    assert not opener.tried.acquire(blocking=False)


@in_a_loop
async def test_a_store_past_the_largest_index_is_closed_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(BlockingStore, "read", lambda _: 10**9)
    opener = Opener()
    async with service_of(opener):
        assert not opener.store.closed
    assert opener.store.closed


@in_a_loop
async def test_a_read_of_an_exclusive_store_is_answered_at_once() -> None:
    """Without a store, the result is None."""
    looks: list[int | None] = []

    def seen(snapshot: Snapshot | None) -> None:
        looks.append(None if snapshot is None else snapshot.index)

    service = service_of(Opener())
    service.read(seen)
    async with service:
        service.read(seen)
        assert looks == [None, 0]


class SharedStore(BlockingStore):
    """A store that other nodes move."""

    exclusive = False
    stands = 5
    problem: StoreUnavailableError | None = None

    def read(self) -> int:
        if self.problem is not None:
            raise self.problem
        return self.stands


@in_a_loop
async def test_a_read_of_a_shared_store_waits_for_its_reply() -> None:
    """A problem of the store becomes the service's."""
    store = SharedStore()
    looks: asyncio.Queue[int | None] = asyncio.Queue()

    def seen(snapshot: Snapshot | None) -> None:
        looks.put_nowait(None if snapshot is None else snapshot.index)

    async with service_of(lambda: store) as service:
        store.stands = 7
        service.read(seen)
        assert looks.empty()
        assert await looks.get() == 7
        assert service.reason is None
        store.problem = StoreUnavailableError("engine", "connection refused")
        service.read(seen)
        assert await looks.get() is None
        assert service.problem == store.problem


@in_a_loop
async def test_a_precomputed_number_is_not_computed_again() -> None:
    for stood, used in ((0, True), (5, False)):
        near = Sequence(stood)
        async with Service(Settings.from_environ({}), Opener(), near=lambda: near) as service:  # noqa: B023
            assert service.stepper is not None
            assert (service.stepper.sequence is near) == used
            assert service.stepper.sequence.index == 0


def test_an_unavailable_store_is_retried(caplog: pytest.LogCaptureFixture) -> None:
    """Each reason is logged once."""
    full, locked = (
        StoreUnavailableError("fibcore.db", "The disk is full."),
        StoreUnavailableError("fibcore.db", "It is locked."),
    )

    async def test() -> None:
        service = service_of(Opener(full, full, locked, locked))
        async with service:
            assert service.problem == full
            assert service.reason == (
                "The store is unavailable: the server's log has the reason. No acknowledged "
                "step is lost; no step is made in the meantime."
            )
            assert service.snapshot is None
            await until_it_serves(service)
            assert service.reason is None

    in_a_loop(test)()
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == [explain(full), explain(locked)]


@in_a_loop
async def test_a_service_waiting_for_its_store_can_be_stopped() -> None:
    full = StoreUnavailableError("fibcore.db", "The disk is full.")
    opener = Opener(*[full] * 1_000_000)
    async with service_of(opener) as service:
        for _ in range(3):
            assert await asyncio.to_thread(opener.tried.acquire, timeout=PATIENCE)
    assert service.stepper is None


@in_a_loop
async def test_an_invalid_database_is_not_retried() -> None:
    with pytest.raises(DatabaseInvalidError):
        async with service_of(Opener(DatabaseInvalidError("fibcore.db", "It is corrupt."))):
            pass


@in_a_loop
async def test_a_database_found_invalid_on_a_retry_is_invalid() -> None:
    errors = (
        StoreUnavailableError("fibcore.db", "The disk is full."),
        DatabaseInvalidError("fibcore.db", "It is corrupt."),
    )
    service = service_of(Opener(*errors))
    await service.__aenter__()
    assert service.opening is not None
    await asyncio.wait([service.opening])
    with pytest.raises(DatabaseInvalidError, match="It is corrupt"):
        await service.__aexit__()


def test_a_commit_that_takes_too_long_is_a_problem_until_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test() -> None:
        opener = Opener()
        async with service_of(opener) as service:
            assert service.stepper is not None
            service.stepper.submit(lambda *_: None)
            await asyncio.to_thread(opener.store.begun)
            assert service.reason is None
            monkeypatch.setattr(module, "STALLED_SECONDS", 0)
            assert service.reason is not None
            assert "A commit has been waiting for the disk" in service.reason
            assert service.snapshot is not None
            opener.store.finish()
            await service.stepper.drain()
            assert service.reason is None

    in_a_loop(test)()


@in_a_loop
async def test_a_stop_answers_waiting_steps_and_closes_the_store() -> None:
    opener = Opener()
    answered: list[int] = []
    async with service_of(opener) as service:
        assert service.stepper is not None
        service.stepper.submit(lambda snapshot, *_: answered.append(snapshot.index))
        opener.store.finish()
    assert answered == [1]
    assert opener.store.closed


def test_a_stop_does_not_wait_for_a_hanging_commit(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk does not finish it."""
    monkeypatch.setattr(module, "DRAIN_SECONDS", 0)
    answered: list[int] = []

    async def test() -> None:
        opener = Opener()
        async with service_of(opener) as service:
            assert service.stepper is not None
            service.stepper.submit(lambda snapshot, *_: answered.append(snapshot.index))
            await asyncio.to_thread(opener.store.begun)
        assert not opener.store.closed
        assert not answered
        opener.store.finish()
        service.stepper.close()

    in_a_loop(test)()
    assert "the server exits without it" in caplog.text


@in_a_loop
async def test_retrying_a_store_does_not_block_the_event_loop() -> None:
    tried, may_open = threading.Event(), threading.Event()
    opener = Opener(StoreUnavailableError("fibcore.db", "It is locked."))

    def open_store() -> Store:
        if not opener._errors:
            tried.set()
            assert may_open.wait(PATIENCE)
        return opener()

    async with service_of(open_store) as service:
        await asyncio.to_thread(tried.wait, PATIENCE)
        assert "the server's log has the reason" in (service.reason or "")
        may_open.set()
        await until_it_serves(service)
