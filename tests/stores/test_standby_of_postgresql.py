"""PostgreSQL with a standby that may take over: what a reply rests on is known with the reply."""

import math
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from fibcore.problems import EngineUnavailableError
from fibcore.stores import DurabilityWarning, Risk
from fibcore.stores.engine import EngineStore
from fibcore.stores.postgresql import PostgresqlLink, PostgresqlOpener
from tests.conftest import Engines
from tests.support.engines import Postgresql, Standby
from tests.support.waiting import PATIENCE, until

UNCONFIRMED = DurabilityWarning("synchronous_standby_names=''", Risk.FAILOVER)


@contextmanager
def a_standby_of(primary: Postgresql) -> Iterator[Standby]:
    with Standby(primary) as standby:
        states = "SELECT state FROM pg_stat_replication WHERE application_name = 'standby'"
        until(lambda: primary.sql(states) == "streaming", "the standby follows")
        yield standby


@pytest.fixture(scope="module")
def shared_primary(processes: None) -> Iterator[Postgresql]:  # noqa: ARG001
    with Postgresql() as primary:
        yield primary


@pytest.fixture(scope="module")
def standby(shared_primary: Postgresql) -> Iterator[Standby]:
    with a_standby_of(shared_primary) as standby:
        yield standby


@pytest.fixture
def primary(shared_primary: Postgresql, standby: Standby) -> Iterator[Postgresql]:  # noqa: ARG001
    """One with a standby, which is waited for if a test says so, and no longer than that."""
    yield shared_primary
    wait_for_nobody(shared_primary)


def wait_for_nobody(primary: Postgresql) -> None:
    primary.sql("ALTER SYSTEM RESET synchronous_standby_names")
    primary.sql("SELECT pg_reload_conf()")
    until(lambda: not primary.sql("SHOW synchronous_standby_names"), "it is not waited for")


@contextmanager
def opened(primary: Postgresql) -> Iterator[EngineStore]:
    """A store on a sequence of its own, at 0."""
    engine = PostgresqlOpener(primary.url, f"test-{uuid.uuid4()}")
    assert engine.create(0) is None
    with closing(engine.open()) as store:
        yield store


@pytest.mark.proves(
    "shared",
    "a standby that is waited for since nodes are connected, and takes over: the old primary "
    "shows nothing old",
)
@pytest.mark.proves(
    "shared", "a standby that is waited…", control="what the reply rests on not asked with it"
)
@pytest.mark.usefixtures("impatient")
def test_a_primary_replaced_since_it_was_connected_to_shows_nothing_old(
    processes: None,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That its standby is waited for was set when the node was connected already."""

    def reply(self: PostgresqlLink, *asked: str) -> tuple[Any, ...] | None:
        row = self._ask(*asked)
        return None if row is None else row[:-1]

    # Nor do the settings that are read each second show it.
    monkeypatch.setattr("fibcore.stores.engine.CHECK_SECONDS", math.inf)
    with Postgresql() as primary, a_standby_of(primary) as standby, opened(primary) as store:
        assert store.advance(1) == 1
        standby.is_waited_for()
        until(lambda: standby.sql("SELECT n FROM fibcore_sequence") == "1", "the standby has it")
        standby.promote()
        standby.sql("UPDATE fibcore_sequence SET n = 2")
        with monkeypatch.context() as without_asking:
            without_asking.setattr(PostgresqlLink, "_reply", reply)
            assert store.read() == 1
        for _ in range(2):
            with pytest.raises(EngineUnavailableError):
                store.read()


@pytest.mark.proves("shared", "what an engine may lose…")
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("ask", [EngineStore.read, lambda store: store.advance(1)])
def test_warnings_follow_what_is_set_while_nodes_are_connected(
    primary: Postgresql, standby: Standby, ask: Callable[[EngineStore], int]
) -> None:
    with opened(primary) as store:
        assert store.advance(1) == 1
        assert list(store.warnings) == [UNCONFIRMED]
        standby.is_waited_for()
        index = ask(store)
        assert not store.warnings
        assert store._opener.describe().index == index
        wait_for_nobody(primary)
        assert ask(store) in (index, index + 1)
        assert list(store.warnings) == [UNCONFIRMED]


@pytest.mark.proves("shared", "what an engine may lose…")
@pytest.mark.usefixtures("patient")
def test_a_standby_that_comes_while_nodes_are_connected_is_found_out(engines: Engines) -> None:
    primary = engines(Postgresql)
    with opened(primary) as store:
        assert not store.warnings
        with Standby(primary):
            found = [UNCONFIRMED]
            until(lambda: store.read() == 0 and list(store.warnings) == found, "it is found out")
        until(lambda: store.read() == 0 and not store.warnings, "it is gone")


@pytest.mark.usefixtures("patient")
def test_a_standby_is_not_connected_to_whatever_the_url_allows(standby: Standby) -> None:
    engine = PostgresqlOpener(f"{standby.url}?target_session_attrs=any", "fibonacci")
    with pytest.raises(EngineUnavailableError, match="it is a standby, not the primary"):
        engine.open()


@pytest.mark.proves(
    "shared",
    "a wait for a standby that is cancelled is no reply (PostgreSQL); without the server's "
    "warning (its control) it is taken for one",
)
@pytest.mark.parametrize("heard", [True, False], ids=["", "without the warning"])
@pytest.mark.usefixtures("patient")
def test_a_wait_for_a_standby_that_is_cancelled_is_no_reply(
    primary: Postgresql, standby: Standby, heard: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server warns of it, and goes on as if the standby had confirmed."""
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
