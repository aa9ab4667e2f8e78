"""Idempotency keys in shared stores, each with a real server."""

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from fibcore.problems import KeysUnavailableError
from fibcore.stores import IndexConflictError
from fibcore.stores.engine import EngineOpener, EngineStore
from fibcore.stores.keys import KeyConflictError
from fibcore.stores.link import Batch
from tests.conftest import Engines
from tests.support.engine_stores import opener, opener_at
from tests.support.engines import Engine, Etcd, Postgresql
from tests.support.keys import found, key, step
from tests.support.proxy import Proxy
from tests.support.waiting import PATIENCE

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("patient")]

SMALL = 100


@pytest.fixture
def other(made: EngineOpener) -> Iterator[EngineStore]:
    with closing(made.open()) as store:
        yield store


def test_a_key_is_found_by_every_node(store: EngineStore, other: EngineStore) -> None:
    assert step(store, key(1)) == 1
    assert other.advance(3, keys={key(2): 2}) == 4
    assert store.advance(2) == 6
    for node in (store, other):
        assert found(node, key(1), key(2), key(3)) == {key(1): 1, key(2): 3}
        assert found(node, key(4, since=7)) == {key(4, since=7): None}
        assert node.advance(0, keys={key(3): 0}) == 6
    assert step(other, key(3), key(5, since=6)) == 8
    assert found(store, key(3), key(5, since=6)) == {key(3): 7, key(5, since=6): 8}


def test_conditions_apply_to_steps_with_keys(store: EngineStore) -> None:
    assert store.advance(5) == 5
    for expected, limit in ((4, None), (None, 5)):
        with pytest.raises(IndexConflictError) as conflict:
            store.advance(1, expected, limit, {key(1, since=5): 1})
        assert conflict.value.index == 5
    assert store.advance(1, 5, 6, {key(1, since=5): 1}) == 6


def test_a_key_used_on_many_nodes_at_once_makes_one_step(made: EngineOpener) -> None:
    nodes, keys = 4, [key(number) for number in range(25)]
    starts = threading.Barrier(nodes)

    def ask(_: int) -> list[int]:
        answers = []
        with closing(made.open()) as store:
            for each in keys:
                starts.wait(PATIENCE)
                try:
                    answers.append(step(store, each))
                except KeyConflictError as conflict:
                    (index,) = conflict.found.values()
                    assert index is not None
                    answers.append(index)
        return answers

    with ThreadPoolExecutor(nodes) as pool:
        answers = list(pool.map(ask, range(nodes)))
    assert answers == [list(range(1, len(keys) + 1))] * nodes
    with closing(made.open()) as store:
        assert store.read() == len(keys)


def test_a_key_whose_reply_was_lost_is_found_everywhere(
    store: EngineStore, far: EngineStore, proxy: Proxy
) -> None:
    assert step(far, key(1)) == 1
    proxy.lose_a_reply()
    assert step(far, key(2), key(3)) == 3
    assert proxy.lost.acquire(timeout=PATIENCE)
    for node in (store, far):
        assert found(node, key(2), key(3)) == {key(2): 2, key(3): 3}
    assert store.read() == 3


def test_a_late_batch_makes_no_second_step_for_a_key(
    made: EngineOpener, store: EngineStore
) -> None:
    process, record = uuid.uuid4(), uuid.uuid4()
    with closing(made.connect(process, None)) as late:
        late.make(record, ())
        assert step(store, key(1)) == 1
        with pytest.raises(KeyConflictError) as conflict:
            late.commit(Batch(1, 1, None, None, {key(1): 1}))
        assert conflict.value.found == {key(1): 1}
        assert late.commit(Batch(2, 1, None, None)) == 2


@pytest.mark.parametrize("is_settled", [True, False], ids=["settled", "control"])
def test_a_late_batch_makes_no_step_for_a_dropped_key(
    engines: Engines, sequence: str, is_settled: bool
) -> None:
    """In etcd keys are dropped and the index keeps its revision, which a late copy compares."""
    made = opener(engines(Etcd), sequence)
    assert made.create(0) is None
    process, record = uuid.uuid4(), uuid.uuid4()
    batch = Batch(1, 1, None, None, {key(9): 1})
    with closing(made.open()) as store, closing(made.connect(process, None)) as late:
        for number in range(1, 4):
            assert step(store, key(number)) == number
        late.make(record, ())
        with pytest.raises(KeyConflictError):
            late.commit(batch._replace(keys={key(1): 1}))
        assert store._link is not None
        store._link.drop_keys(1)
        with closing(made.connect(process, record)) as retry:
            assert not is_settled or retry.settle(1) == 0
            with pytest.raises(KeyConflictError):
                retry.commit(batch._replace(number=2))
        if is_settled:
            with pytest.raises(IndexConflictError):
                late.commit(batch)
        else:
            assert late.commit(batch) == 4


def test_the_last_keys_are_kept_and_older_ones_are_rejected(
    made: EngineOpener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fibcore.stores.engine.MAX_KEYED", SMALL)
    made.max_keys = SMALL
    steps = 4 * SMALL
    with closing(made.open()) as store, closing(made.open()) as other:
        for at in range(0, steps, 2):
            node = (store, other)[at % 4 // 2]
            assert step(node, key(at, since=at), key(at + 1, since=at)) == at + 2
        for node in (store, other):
            lost = 0
            for at in range(steps):
                each = key(at, since=at - at % 2)
                (index,) = found(node, each).values()
                assert index in (at + 1, None)
                lost += index is None
                assert index is not None or at < steps - SMALL
            assert lost >= SMALL
        assert step(store, key(steps, since=steps)) == steps + 1
    with closing(made.open()) as store:
        assert found(store, key(0)) == {key(0): None}


@pytest.mark.parametrize("index", [7, 1])
def test_setting_the_index_drops_all_keys(made: EngineOpener, index: int) -> None:
    with closing(made.open()) as store:
        assert step(store, key(1), key(2)) == 2
    made.set_index(index, lower=True)
    with closing(made.open()) as store:
        assert found(store, key(1), key(2), key(3)) == {key(1): None, key(2): None, key(3): None}
        assert step(store, key(3, since=index)) == index + 1


def test_setting_the_same_index_drops_no_key(made: EngineOpener) -> None:
    with closing(made.open()) as store:
        assert step(store, key(1), key(2)) == 2
    assert made.set_index(2).before == 2
    with closing(made.open()) as store:
        assert found(store, key(1), key(2)) == {key(1): 1, key(2): 2}


def without_keys(engine: Engine, sequence: str) -> None:
    """Make the sequence look like one of a version without keys."""
    if isinstance(engine, Postgresql):
        engine.sql("DROP TABLE fibcore_key")
        engine.sql("ALTER TABLE fibcore_sequence DROP COLUMN dropped")
    elif isinstance(engine, Etcd):
        engine.ctl("del", f"fibcore/{sequence}//dropped")
    else:
        engine.cli("hdel", f"fibcore:{{{sequence}}}", "dropped")  # type: ignore[attr-defined]


def test_a_sequence_of_a_version_without_keys_rejects_keys_of_that_time(
    engine: Engine, made: EngineOpener, sequence: str
) -> None:
    with closing(made.open()) as store:
        assert store.advance(5) == 5
        without_keys(engine, sequence)
        assert store.advance(1) == 6
        assert found(store, key(1, since=5)) == {key(1, since=5): None}
        assert step(store, key(2, since=6)) == 7
        assert found(store, key(1, since=5)) == {key(1, since=5): None}
        assert step(store, key(3, since=6)) == 8
        assert found(store, key(2, since=6), key(3, since=6)) == {
            key(2, since=6): 7,
            key(3, since=6): 8,
        }


def test_a_role_that_may_not_create_tables_steps_without_keys(
    engines: Engines, sequence: str
) -> None:
    engine = engines(Postgresql)
    made = opener(engine, sequence)
    assert made.create(0) is None
    role = f"r{uuid.uuid4().hex}"
    without_keys(engine, sequence)
    engine.sql(f"CREATE ROLE {role} LOGIN")
    engine.sql(f"GRANT SELECT, UPDATE ON fibcore_sequence TO {role}")
    engine.sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON fibcore_node TO {role}")
    try:
        url = engine.url.replace("fibcore@", f"{role}@")
        with closing(opener_at(url, sequence).open()) as store:
            assert store.advance(1) == 1
            with pytest.raises(KeysUnavailableError):
                store.advance(1, keys={key(1, since=1): 1})
            assert store.advance(1) == 2
            assert made.create(0) == 2
            with pytest.raises(KeysUnavailableError):
                store.advance(1, keys={key(1, since=2): 1})
            engine.sql(f"GRANT SELECT, INSERT, DELETE ON fibcore_key TO {role}")
            assert store.advance(1, keys={key(1, since=2): 1}) == 3
    finally:
        engine.sql(f"DROP OWNED BY {role}")
        engine.sql(f"DROP ROLE {role}")
