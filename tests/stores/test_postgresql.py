"""The store in PostgreSQL, and how it handles what the server does."""

import json
import re
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg import errors

from fibcore import MAX_INDEX
from fibcore.problems import EngineUnavailableError, StoreProblem
from fibcore.stores import IndexConflictError, postgresql_connection
from fibcore.stores.keys import NO_KEYS
from fibcore.stores.postgresql import COMMIT, READ, PostgresqlOpener
from fibcore.stores.postgresql_connection import Connection
from tests.conftest import Engines
from tests.support.engine_stores import opener_at
from tests.support.engines import Postgresql
from tests.support.keys import key
from tests.support.waiting import PATIENCE, until

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("patient")]


def test_a_terminated_connection_leaves_a_batch_in_doubt(engines: Engines) -> None:
    engine = engines(Postgresql)
    name = f"test-{uuid.uuid4()}"
    opener = opener_at(engine.url, name)
    assert opener.create(0) is None
    with closing(opener.open()) as store, psycopg.connect(engine.url) as other:
        waiting = (
            f"application_name = 'fibcore {store._identity.process}' AND wait_event_type = 'Lock'"
        )
        other.execute("SELECT n FROM fibcore_sequence WHERE name = %s FOR UPDATE", (name,))
        reached: list[int] = []
        thread = threading.Thread(target=lambda: reached.append(store.advance(2)))
        thread.start()
        ended = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {waiting}"
        until(lambda: engine.sql(ended) == "t", "the batch waits, and its connection is ended")
        other.rollback()
        thread.join(PATIENCE)
        assert reached == [2]
        assert store.read() == 2


@pytest.mark.parametrize("code", ["08006", "08P01", "40003", "57P01", "58000", "XX000"])
@pytest.mark.parametrize("is_believed", [False, True], ids=["", "control"])
def test_an_error_that_does_not_prove_a_rollback_leaves_a_doubt(
    engines: Engines, code: str, is_believed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is committed, and the pooler loses its server before the reply."""
    made = PostgresqlOpener(engines(Postgresql).url, f"test-{uuid.uuid4()}")
    assert made.create(0) is None
    ask = Connection.ask
    lost: list[object] = []

    def losing(self: Connection, statement: str, *values: object) -> tuple[Any, ...] | None:
        row = ask(self, statement, *values)
        if statement == COMMIT and not lost:
            lost.append(row)
            raise errors.lookup(code)("server conn crashed?")
        return row

    with closing(made.open()) as store:
        monkeypatch.setattr(Connection, "ask", losing)
        if is_believed:
            monkeypatch.setattr(postgresql_connection, "ROLLED_BACK", re.compile(""))
            with pytest.raises(EngineUnavailableError):
                store.advance(1)
        else:
            assert store.advance(1) == 1
        assert store.read() == 1


@pytest.mark.parametrize(
    "code",
    ["0A000", "22003", "25006", "28000", "40001", "42501", "53100", "53300", "54000", "55P03"],
)
def test_an_error_that_proves_a_rollback_is_an_answer(code: str) -> None:
    connection: Any = SimpleNamespace(closed=False, broken=False)
    with (
        pytest.raises(StoreProblem),
        postgresql_connection.explained(connection, "there", "fibonacci"),
    ):
        raise errors.lookup(code)("no")


def test_a_batch_past_the_largest_index_is_rejected(engines: Engines) -> None:
    made = PostgresqlOpener(engines(Postgresql).url, f"test-{uuid.uuid4()}")
    assert made.create(MAX_INDEX - 1) is None
    with closing(made.open()) as store:
        for keys in (NO_KEYS, {key(1, since=MAX_INDEX - 1): 2}):
            with pytest.raises(IndexConflictError) as conflict:
                store.advance(2, limit=MAX_INDEX, keys=keys)
            assert conflict.value.index == MAX_INDEX - 1
        assert store.advance(1, limit=MAX_INDEX) == MAX_INDEX


def test_a_warning_unrelated_to_a_standby_is_ignored(engines: Engines) -> None:
    """For example of a wraparound, which comes with each transaction, or of a trigger."""
    engine = engines(Postgresql)
    name = f"test-{uuid.uuid4()}"
    made = PostgresqlOpener(engine.url, name)
    assert made.create(0) is None
    engine.sql(
        "CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING "
        "'database \"postgres\" must be vacuumed within 39999999 transactions'; "
        "RETURN NULL; END $$; "
        "CREATE CONSTRAINT TRIGGER warn AFTER INSERT OR UPDATE ON fibcore_node "
        "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION warn()"
    )
    try:
        with closing(made.open()) as store:
            assert store.advance(1) == store.read() == 1
    finally:
        engine.sql("DROP FUNCTION warn() CASCADE")


@pytest.mark.parametrize("newest_first", [True, False], ids=["", "in any order"])
def test_a_read_scans_no_dead_rows(engines: Engines, newest_first: bool) -> None:
    """They are kept as long as another program's snapshot is open."""
    engine = engines(Postgresql)
    name = f"test-{uuid.uuid4()}"
    assert PostgresqlOpener(engine.url, name).create(0) is None
    ask = READ.replace("$1", f"'{name}'")
    if not newest_first:
        ask = ask.replace("BETWEEN", "=").partition(" AND ")[0]
    with psycopg.connect(engine.url) as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert other.execute("SELECT count(*) FROM fibcore_sequence").fetchone()
        engine.sql(
            f"DO $$ BEGIN FOR step IN 1..3000 LOOP "
            f"UPDATE fibcore_sequence SET n = n + 1 WHERE name = '{name}'; END LOOP; END $$"
        )
        (plan,) = json.loads(engine.sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {ask}"))
        pages = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
    assert pages < 10 if newest_first else pages > 15


def test_concurrent_creations_in_an_empty_database_succeed(engines: Engines) -> None:
    engine = engines(Postgresql)
    for number in range(3):
        engine.sql(f"CREATE DATABASE empty{number}")
        url = engine.url.removesuffix("postgres") + f"empty{number}"
        together = threading.Barrier(8)

        def make(_: int, url: str = url, together: threading.Barrier = together) -> int | None:
            together.wait(PATIENCE)
            return PostgresqlOpener(url, "fibonacci").create(0)

        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(make, range(8)))
        assert sorted(made, key=str) == [0] * 7 + [None]


def test_both_url_schemes_of_libpq_are_accepted(engines: Engines) -> None:
    url = engines(Postgresql).url.replace("postgresql:", "postgres:")
    opener = opener_at(url, f"test-{uuid.uuid4()}")
    assert opener.create(4) is None
    with closing(opener.open()) as store:
        assert store.read() == 4
        assert store.where == url.replace("fibcore@", "")
