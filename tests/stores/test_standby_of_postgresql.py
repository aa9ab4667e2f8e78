"""PostgreSQL with a standby that may take over: each reply tells whether it was confirmed."""

import math
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from fibcore.problems import EngineUnavailableError
from fibcore.stores import DurabilityWarning, Risk
from fibcore.stores.engine import EngineStore
from fibcore.stores.postgresql import PostgresqlLink, PostgresqlOpener
from tests.support.engines import Postgresql, Standby
from tests.support.waiting import PATIENCE, until

UNCONFIRMED = DurabilityWarning("synchronous_standby_names=''", Risk.FAILOVER)


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


@contextmanager
def opened(primary: Postgresql) -> Iterator[EngineStore]:
    """A store on a new sequence, at 0."""
    engine = PostgresqlOpener(primary.url, f"test-{uuid.uuid4()}")
    assert engine.create(0) is None
    with closing(engine.open()) as store:
        yield store


@pytest.mark.usefixtures("patient")
def test_the_confirmation_by_a_standby_is_read_with_the_reply(
    primary: Postgresql, standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings that are polled each second would show it, too."""
    monkeypatch.setattr("fibcore.stores.engine.CHECK_SECONDS", math.inf)
    with opened(primary) as store:
        assert store.advance(1) == 1
        assert list(store.warnings) == [UNCONFIRMED]
        standby.is_waited_for()
        assert store.read() == 1
        assert not store.warnings
        assert store._opener.describe().index == 1
        wait_for_nobody(primary)
        assert store.advance(1) == 2
        assert list(store.warnings) == [UNCONFIRMED]


@pytest.mark.usefixtures("patient")
def test_a_standby_is_never_connected_to_whatever_the_url_allows(standby: Standby) -> None:
    engine = PostgresqlOpener(f"{standby.url}?target_session_attrs=any", "fibonacci")
    with pytest.raises(EngineUnavailableError, match="it is a standby, not the primary"):
        engine.open()


@pytest.mark.parametrize("heard", [True, False], ids=["", "without the warning"])
@pytest.mark.usefixtures("patient")
def test_a_cancelled_wait_for_a_standby_leaves_a_doubt(
    primary: Postgresql, standby: Standby, heard: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server sends a warning, and continues as if the standby had confirmed."""
    if not heard:
        monkeypatch.setattr(PostgresqlLink, "_take_notice", lambda *_: None)
    standby.is_waited_for()
    with opened(primary) as store:
        reached: list[int] = []
        thread = threading.Thread(target=lambda: reached.append(store.advance(1)))
        waits = "wait_event = 'SyncRep'"
        with standby.hung():
            thread.start()
            cancel = f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {waits}"
            until(lambda: primary.sql(cancel) == "t", "the batch waits, and its wait is cancelled")
            if heard:
                count = f"SELECT count(*) FROM pg_stat_activity WHERE {waits}"
                until(lambda: primary.sql(count) == "1", "it is asked about, and that waits")
                assert reached == []
            else:
                thread.join(PATIENCE)
                assert reached == [1]
        thread.join(PATIENCE)
        assert reached == [1]
