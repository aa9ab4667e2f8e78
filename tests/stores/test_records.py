"""The records of processes in real engines: how many remain, and which are removed."""

import base64
import json
import uuid
from contextlib import closing

import pytest

from fibcore.problems import (
    EngineTooOldError,
    EngineUnavailableError,
    SequenceMissingError,
    UrlInvalidError,
)
from fibcore.stores import etcd as etcd_store
from fibcore.stores import postgresql as postgresql_store
from fibcore.stores import records as module
from fibcore.stores import redis as redis_store
from fibcore.stores.engine import EngineOpener, EngineStore, Identity
from fibcore.stores.etcd import coded
from fibcore.stores.records import PIECE, Records
from tests.conftest import Engines
from tests.support.engine_stores import opener_at
from tests.support.engines import Engine, Etcd, Postgresql
from tests.support.records import all_records, remove_records
from tests.support.waiting import until

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("patient")]


def leave_records(made: EngineOpener, count: int) -> None:
    """Leave records of processes that were killed."""
    link = made.connect(uuid.uuid4(), None)
    for _ in range(count):
        link.make(uuid.uuid4(), ())
    link.close()


def test_records_are_read_in_pieces_and_removed_if_unchanged(
    made: EngineOpener, store: EngineStore
) -> None:
    leave_records(made, 3 * PIECE)
    with closing(made.open()) as other:
        seen = all_records(store)
        assert len(seen) == 3 * PIECE + 2
        assert other.advance(1) == 1
        remove_records(store, seen)
        # Nothing has been written to the record of this process.
        assert list(all_records(store)) == [str(other._identity.record)]
        assert other.advance(1) == store.advance(1) - 1 == 2


def test_connecting_reads_no_record_of_others(
    made: EngineOpener, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_records(made, 2 * PIECE)
    with closing(made.open()) as store:
        assert store.advance(1) == store.read() == 1
        assert len(all_records(store)) == 2 * PIECE + 1
        monkeypatch.setattr(module, "UNCHANGED_SECONDS", 0.0)
        monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
        with closing(made.open()) as cleaning:

            def one_is_left() -> bool:
                for _ in range(64):  # Reading all of them costs etcd more than reading a piece.
                    cleaning.read()
                return len(all_records(cleaning)) == 1

            until(one_is_left, "the others are removed")
            assert list(all_records(cleaning)) == [str(cleaning._identity.record)]
        assert store.advance(1) == 2


# PostgreSQL


@pytest.mark.usefixtures("impatient")
def test_attempts_without_a_standby_leave_one_connection_and_one_record(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another identity for each attempt (the control), each would leave one."""

    def open_as_another(self: EngineOpener) -> EngineStore:
        return EngineStore(self, Identity())

    connections, records_left = tries(engines(Postgresql))
    # The end of the last but one may be noticed only after the last.
    assert connections == 1
    assert records_left <= 2
    monkeypatch.setattr(EngineOpener, "open", open_as_another)
    assert tries(engines(Postgresql)) == (3, 3)


def tries(engine: Postgresql) -> tuple[int, int]:
    """Fail to open a sequence three times; return the remaining connections and records."""

    def set_standby(name: str) -> None:
        engine.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
        engine.sql("SELECT pg_reload_conf()")
        until(lambda: engine.sql("SHOW synchronous_standby_names") == name, "it is set")

    made = opener_at(engine.url, f"test-{uuid.uuid4()}")
    assert made.create(0) is None
    before = int(engine.sql("SELECT count(*) FROM fibcore_node"))
    set_standby("missing")
    for _ in range(3):
        with pytest.raises(EngineUnavailableError):
            made.open()
    waiting = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE application_name LIKE 'fibcore %' AND wait_event = 'SyncRep'"
    )
    connections = int(engine.sql(waiting))
    # What waits there becomes visible when it no longer waits.
    set_standby("")
    until(lambda: engine.sql(waiting) == "0", "nothing waits")
    return connections, int(engine.sql("SELECT count(*) FROM fibcore_node")) - before


# etcd


@pytest.fixture
def etcd(engines: Engines) -> Etcd:
    return engines(Etcd)


def clean(opened: EngineOpener) -> None:
    """Remove everything that was ever left beside a sequence."""
    with closing(opened.open()) as store:
        remove_records(store, all_records(store))


def nested(etcd: Etcd) -> tuple[EngineOpener, EngineOpener]:
    """A sequence, and another one whose index is where records of the first one used to be."""
    place = f"{etcd.url}/{uuid.uuid4()}"
    outer, inner = opener_at(place, "fib"), opener_at(f"{place}/fib", "node")
    assert outer.create(1) is None
    assert inner.create(7) is None
    return outer, inner


def test_a_prefix_inside_a_sequence_shares_nothing_with_it(etcd: Etcd) -> None:
    outer, inner = nested(etcd)
    with closing(inner.open()) as store:
        clean(outer)
        assert store.advance(1) == 8
        assert len(all_records(store)) == 1


def test_with_one_slash_records_of_sequences_would_mix(
    etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    def records_as_before(self: etcd_store.EtcdLink, _: str) -> tuple[Records, str]:
        self._node_folder = folder = self._node_folder.replace("//", "/")
        found = self._ask("kv/range", {"key": coded(folder), "range_end": coded(f"{folder}~")})
        keys = {base64.b64decode(each["key"]).decode(): each for each in found["kvs"]}
        return {key.removeprefix(folder): each["mod_revision"] for key, each in keys.items()}, ""

    monkeypatch.setattr(etcd_store.EtcdLink, "records", records_as_before)
    outer, inner = nested(etcd)
    clean(outer)
    with pytest.raises(SequenceMissingError):
        inner.open()


def test_a_foreign_entry_among_the_records_is_ignored(etcd: Etcd) -> None:
    prefix, foreign = str(uuid.uuid4()), {}
    made = opener_at(f"{etcd.url}/{prefix}", "fib")
    assert made.create(0) is None
    for name, value in (
        ("", "x"),
        ("zzz", "hello"),
        (str(uuid.uuid4()), "hello"),
        (f"{uuid.uuid4()}/index", "7 7"),
        (str(uuid.uuid4()).upper(), "7 7"),
    ):
        key = f"{prefix}/fib//node/{name}"
        etcd.ctl("put", key, value)
        foreign[key] = value
    etcd.ctl("put", f"{prefix}/fib/node/{uuid.uuid4()}", "hello")
    clean(made)
    with closing(made.open()) as store:
        assert store.advance(1) == 1
    found = json.loads(etcd.ctl("get", "--prefix", f"{prefix}/fib//node", "-w", "json").stdout)
    keys = {each["key"] for each in found["kvs"]}
    assert keys == {coded(key) for key in foreign}


def test_a_prefix_with_two_slashes_in_a_row_is_rejected() -> None:
    with pytest.raises(UrlInvalidError, match="two slashes in a row"):
        opener_at("etcd://h/a//b", "fib")


# Versions


def test_an_engine_that_is_too_old_is_rejected(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_store, "OLDEST", 99)
    monkeypatch.setattr(redis_store, "OLDEST", (99, 0))
    monkeypatch.setattr(etcd_store, "OLDEST", (3, 99))
    with pytest.raises(EngineTooOldError, match="99"):
        opener_at(engine.url, "test").open()
