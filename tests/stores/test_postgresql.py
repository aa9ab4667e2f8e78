"""What is particular to PostgreSQL: its settings, standbys, poolers, and errors in the middle."""

import textwrap
import threading
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import psycopg
import pytest

from fibcore.problems import StoreUnavailableError, explain
from fibcore.stores import DurabilityWarning, Risk, Store
from tests.conftest import Engines
from tests.support.engines import Engine, Postgresql, Standby
from tests.support.proxy import Proxy
from tests.support.stores import Place
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.processes

UNCONFIRMED: Final = DurabilityWarning("synchronous_standby_names=''", Risk.FAILOVER)


def new(url: str) -> Place:
    return Place(url, f"test-{uuid.uuid4()}")


def warnings(url: str) -> tuple[DurabilityWarning, ...]:
    """What a store there warns of."""
    with new(url).created() as store:
        assert store.advance(1) == store.read() == 1
        return store.warnings


class Stepping:
    """A step in a thread of its own."""

    def __init__(self, store: Store, steps: int = 1) -> None:
        self.reached: list[int] = []
        self._thread = threading.Thread(
            target=lambda: self.reached.append(store.advance(steps)), daemon=True
        )
        self._thread.start()

    def index(self) -> int:
        self._thread.join(PATIENCE)
        (index,) = self.reached
        return index


@pytest.fixture
def server(engines: Engines) -> Postgresql:
    return engines(Postgresql)


def test_both_url_schemes_of_libpq_are_accepted(server: Postgresql) -> None:
    url = server.url.replace("postgresql:", "postgres:")
    with new(url).created(4) as store:
        assert store.read() == 4
        assert store.where == url.replace("fibcore@", "")


def test_concurrent_creations_in_an_empty_database_succeed(server: Postgresql) -> None:
    for number in range(3):
        server.sql(f"CREATE DATABASE empty{number}")
        place = Place(server.url.removesuffix("postgres") + f"empty{number}")
        together = threading.Barrier(8)

        def make(_: int, place: Place = place, together: threading.Barrier = together) -> object:
            together.wait(PATIENCE)
            return place.opener().create(0)

        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(make, range(8)))
        assert sorted(made, key=str) == [0] * 7 + [None]


def test_a_connection_terminated_during_a_batch_leaves_it_in_doubt(server: Postgresql) -> None:
    with new(server.url).created() as store, psycopg.connect(server.url) as other:
        assert store.advance(1) == 1
        tables = other.execute(
            "SELECT string_agg(tablename, ', ') FROM pg_tables WHERE tablename LIKE 'fibcore%'"
        ).fetchone()
        assert tables is not None
        other.execute(f"LOCK TABLE {tables[0]} IN EXCLUSIVE MODE".encode())
        pending = Stepping(store, 2)
        ended = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        )
        until(lambda: server.sql(ended) == "t", "the batch waits, and its connection is ended")
        other.rollback()
        assert pending.index() == store.read() == 3


# Settings that may lose steps


@contextmanager
def altered(engine: Postgresql, setting: str, value: str) -> Iterator[None]:
    """Change a setting of the whole server meanwhile."""

    def reload(value: str) -> None:
        engine.sql("SELECT pg_reload_conf()")
        until(lambda: engine.sql(f"SHOW {setting}") == value, f"{setting} is {value}")

    before = engine.sql(f"SHOW {setting}")
    engine.sql(f"ALTER SYSTEM SET {setting} = {value}")
    try:
        reload(value)
        yield
    finally:
        engine.sql(f"ALTER SYSTEM RESET {setting}")
        reload(before)


@pytest.mark.parametrize(
    ("setting", "risk"),
    [("fsync", Risk.RUIN), ("full_page_writes", Risk.RUIN), ("synchronous_commit", Risk.CRASH)],
)
def test_a_server_that_does_not_sync_is_reported(
    server: Postgresql, setting: str, risk: Risk
) -> None:
    assert warnings(server.url) == ()
    with altered(server, setting, "off"):
        assert warnings(server.url) == (DurabilityWarning(f"{setting}=off", risk),)


def test_settings_of_a_url_count_too(server: Postgresql) -> None:
    url = f"{server.url}?options=-csynchronous_commit%3Doff"
    assert warnings(url) == (DurabilityWarning("synchronous_commit=off", Risk.CRASH),)


# Standbys


@pytest.fixture(scope="module")
def shared_primary(processes: None) -> Iterator[Postgresql]:  # noqa: ARG001
    with Postgresql() as primary:
        yield primary


@pytest.fixture(scope="module")
def standby(shared_primary: Postgresql) -> Iterator[Standby]:
    with Standby(shared_primary) as standby:
        states = "SELECT state FROM pg_stat_replication WHERE application_name = 'standby'"
        until(lambda: shared_primary.sql(states) == "streaming", "the standby follows")
        yield standby


@pytest.fixture
def primary(shared_primary: Postgresql, standby: Standby) -> Iterator[Postgresql]:  # noqa: ARG001
    """A server with a standby, which is synchronous only while a test wants it."""
    yield shared_primary
    wait_for_nobody(shared_primary)


def wait_for_nobody(primary: Postgresql) -> None:
    primary.sql("ALTER SYSTEM RESET synchronous_standby_names")
    primary.sql("SELECT pg_reload_conf()")
    until(lambda: not primary.sql("SHOW synchronous_standby_names"), "it is not waited for")


def test_whether_a_standby_confirms_is_known_with_each_reply(
    primary: Postgresql, standby: Standby
) -> None:
    place = new(primary.url)
    with place.created() as store:
        assert store.advance(1) == 1
        assert list(store.warnings) == [UNCONFIRMED]
        standby.is_waited_for()
        assert store.read() == 1
        assert not store.warnings
        wait_for_nobody(primary)
        assert store.advance(1) == 2
        assert list(store.warnings) == [UNCONFIRMED]


def test_a_standby_is_never_connected_to_whatever_the_url_allows(standby: Standby) -> None:
    with pytest.raises(StoreUnavailableError, match="it is a standby, not the primary"):
        Place(f"{standby.url}?target_session_attrs=any").opener().open()


def test_a_cancelled_wait_for_a_standby_leaves_a_doubt(
    primary: Postgresql, standby: Standby
) -> None:
    """The server sends a warning, and continues as if the standby had confirmed."""
    standby.is_waited_for()
    with new(primary.url).created() as store:
        waits = "wait_event = 'SyncRep'"
        with standby.hung():
            pending = Stepping(store)
            cancel = f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {waits}"
            until(lambda: primary.sql(cancel) == "t", "the batch waits, and its wait is cancelled")
            count = f"SELECT count(*) FROM pg_stat_activity WHERE {waits}"
            until(lambda: primary.sql(count) == "1", "it is asked about, and that waits")
            assert pending.reached == []
        assert pending.index() == store.read() == 1


# Poolers


class Pgbouncer(Engine):
    """Forwards to the PostgreSQL at ``server_port``; ``mode`` is its pool_mode."""

    user = "postgres"
    programs = ("pgbouncer", *Postgresql.programs)

    def __init__(self, server_port: int, mode: str) -> None:
        super().__init__()
        self.server_port = server_port
        self.mode = mode

    @property
    def command(self) -> Sequence[str | Path]:
        return ["pgbouncer", self.folder / "ini"]

    def url_at(self, port: int) -> str:
        return f"postgresql://fibcore@{self.host}:{port}/postgres"

    def prepare(self) -> None:
        (self.folder / "ini").write_text(
            textwrap.dedent(f"""\
                [databases]
                * = user=fibcore host={self.host} port={self.server_port}
                [pgbouncer]
                listen_addr = {self.host}
                listen_port = {self.port}
                unix_socket_dir =
                auth_type = any
                pool_mode = {self.mode}
                ignore_startup_parameters = extra_float_digits
            """)
        )

    def is_ready(self) -> bool:
        return Postgresql.is_ready(self)  # type: ignore[arg-type]


def test_a_pooler_in_session_mode_works(server: Postgresql) -> None:
    with Pgbouncer(server.port, "session") as pooler:
        place = new(pooler.url)
        place.opener().create(0)
        for index in range(3):
            with place.opened() as store:
                assert store.advance(1) == store.read() == index + 1


def test_a_pooler_that_loses_its_server_leaves_a_batch_in_doubt(server: Postgresql) -> None:
    """It reports an error of its own, which proves nothing."""
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(server.port))
        pooler = stack.enter_context(Pgbouncer(proxy.port, "session"))
        near = new(server.url)
        near.opener().create(0)
        far = Place(pooler.url, near.sequence)
        store = stack.enter_context(far.opened())
        assert store.advance(1) == 1
        proxy.hold("replies")
        pending = Stepping(store, 2)
        until(lambda: near.index == 3, "the batch is committed")
        proxy.cut()
        proxy.heal()
        assert pending.index() == 3
        assert store.advance(1) == near.index == 4


def step_through(place: Place) -> None:
    place.opener().create(0)
    for _ in range(3):
        with place.opened() as store:
            store.advance(1)


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_pooler_in_transaction_mode_is_reported_with_the_remedy(
    server: Postgresql, mode: str
) -> None:
    with Pgbouncer(server.port, mode) as pooler:
        with pytest.raises(StoreUnavailableError) as unavailable:
            step_through(new(pooler.url))
        assert "pool_mode = session" in explain(unavailable.value)
