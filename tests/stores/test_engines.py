"""Shared stores, each with a real server: batches, and lost messages."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from fibcore.problems import EngineUnavailableError, LowerError, SequenceMissingError
from fibcore.stores import IndexConflictError
from fibcore.stores.engine import EngineOpener, EngineStore
from fibcore.stores.etcd import EtcdLink
from fibcore.stores.link import Batch, Link, RecordGoneError
from tests.faults.server_variants import WithoutIdentity
from tests.support.engine_stores import opener
from tests.support.engines import Engine
from tests.support.proxy import Proxy
from tests.support.waiting import PATIENCE

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("patient")]


def test_a_sequence_is_created_only_on_purpose_and_once(engine: Engine, sequence: str) -> None:
    opened = opener(engine, sequence)
    for _ in range(2):
        with pytest.raises(SequenceMissingError):
            opened.open()
    assert opened.create(7) is None
    assert opened.create(9) == 7
    with closing(opened.open()) as store:
        assert store.read() == 7


def test_a_batch_continues_from_the_index_of_the_sequence(
    made: EngineOpener, store: EngineStore
) -> None:
    with closing(made.open()) as other:
        assert store.advance(3) == 3
        assert other.advance(2) == 5
        assert store.read() == other.read() == 5
        assert store.advance(1, expected=5) == 6
        assert not store.exclusive


def test_a_batch_whose_condition_does_not_hold_changes_nothing(store: EngineStore) -> None:
    assert store.advance(5, limit=5) == 5
    for steps, expected, limit in ((1, 4, None), (1, 4, 100), (2, None, 6), (2, 5, 6)):
        with pytest.raises(IndexConflictError) as elsewhere:
            store.advance(steps, expected, limit)
        assert elsewhere.value.index == store.read() == 5
    assert store.advance(1, 5, 6) == 6


def test_sequences_of_one_engine_are_independent(
    engine: Engine, store: EngineStore, sequence: str
) -> None:
    other = opener(engine, f"{sequence}.2")
    assert other.create(100) is None
    with closing(other.open()) as second:
        assert (store.advance(1), second.advance(1)) == (1, 101)
        assert (store.read(), second.read()) == (1, 101)


def test_an_index_is_set_higher_and_lower_only_on_purpose(made: EngineOpener) -> None:
    assert made.set_index(2**62).before == 0
    with pytest.raises(LowerError):
        made.set_index(8)
    assert made.set_index(8, lower=True).before == 2**62
    assert made.set_index(8).before == 8
    with closing(made.open()) as store:
        assert store.advance(1, expected=8) == 9


def test_concurrent_batches_get_each_index_once(made: EngineOpener) -> None:
    def step(_: int) -> list[int]:
        with closing(made.open()) as store:
            return [store.advance(1) for _ in range(50)]

    with ThreadPoolExecutor(4) as pool:
        indexes = [index for each in pool.map(step, range(4)) for index in each]
    assert sorted(indexes) == list(range(1, 201))


# Lost replies


def test_a_batch_whose_reply_was_lost_is_applied_once(
    store: EngineStore, far: EngineStore, proxy: Proxy
) -> None:
    assert far.advance(1) == 1
    for index in (3, 5, 7):
        proxy.lose_a_reply()
        # The condition held when the batch was applied.
        assert far.advance(2, expected=index - 2, limit=index) == index
        assert proxy.lost.acquire(timeout=PATIENCE)
    assert store.read() == 7


def without_identity(store: EngineStore, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = store._opener.connect
    monkeypatch.setattr(store._opener, "connect", lambda *who: WithoutIdentity(connect(*who)))
    assert store._link is not None
    store._link = WithoutIdentity(store._link)  # type: ignore[assignment]


def test_without_its_identity_a_batch_is_applied_twice(
    far: EngineStore, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_identity(far, monkeypatch)
    assert far.advance(1) == 1
    proxy.lose_a_reply()
    assert far.advance(1) == 3


FIRST, SECOND = Batch(1, 1, None, None), Batch(2, 1, None, None)


@pytest.fixture
def links(made: EngineOpener, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Link, Link]]:
    """An old connection of a process, through which a late copy may arrive, and its new one."""
    # PostgreSQL ends the old connection, where it can.
    monkeypatch.setattr("fibcore.stores.postgresql.END_OTHERS", "SELECT $1::text")
    process, record = uuid.uuid4(), uuid.uuid4()
    with closing(made.connect(process, None)) as old:
        old.make(record, ())
        with closing(made.connect(process, record)) as new:
            yield old, new


def test_a_batch_that_arrives_late_is_not_applied_again(links: tuple[Link, Link]) -> None:
    old, new = links
    assert new.commit(FIRST) == 1
    for _ in range(2):
        assert new.settle(1) == 1
        with pytest.raises(IndexConflictError):
            old.commit(FIRST)
    assert new.commit(SECOND) == 2
    with pytest.raises(IndexConflictError):
        old.commit(FIRST)
    assert new.read() == 2


def test_a_batch_settled_as_not_applied_never_is(links: tuple[Link, Link]) -> None:
    """A settlement that arrives late does not free its number, either."""
    old, new = links
    for _ in range(2):
        assert new.settle(1) == 0
    with pytest.raises(IndexConflictError):
        old.commit(FIRST)
    assert new.commit(SECOND) == 1
    if not isinstance(old, EtcdLink):  # It compares the revision.
        with pytest.raises(RecordGoneError):
            old.settle(1)
    assert new.settle(2) == new.read() == 1


# Problems


def test_a_cut_off_engine_is_only_unavailable(
    store: EngineStore, far: EngineStore, proxy: Proxy
) -> None:
    assert far.advance(1) == 1
    proxy.cut()
    with pytest.raises(EngineUnavailableError):
        far.read()
    with pytest.raises(EngineUnavailableError):
        far.advance(1)
    assert store.advance(1) == 2
    proxy.heal()
    assert far.read() == 2
    assert far.advance(1) == 3


@pytest.mark.usefixtures("made", "impatient")
def test_a_trickling_reply_is_given_up(store: EngineStore, far: EngineStore, proxy: Proxy) -> None:
    """Each byte arrives in time, but the last one much later."""
    assert far.advance(1) == 1
    proxy.trickle()
    with pytest.raises(EngineUnavailableError):
        far.read()
    assert store.read() == 1
    proxy.heal()
    assert far.read() == 1
