"""The store in PostgreSQL: what its server says of a statement, and what that is taken for."""

import threading
import uuid
from contextlib import closing

import psycopg
import pytest

from fibcore.settings import Settings
from fibcore.stores.engine import EngineOpener
from fibcore.stores.opening import opener_of
from tests.conftest import Engines
from tests.support.engines import Postgresql
from tests.support.waiting import PATIENCE, until

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("patient")]


def test_a_connection_that_is_ended_leaves_a_batch_open(
    engines: Engines,
) -> None:
    """What has become of the batch is asked about."""
    engine = engines(Postgresql)
    assert isinstance(engine, Postgresql)
    name = f"test-{uuid.uuid4()}"
    opener = opener_of(Settings.from_environ({"FIB_STORE": engine.url, "FIB_SEQUENCE": name}))
    assert isinstance(opener, EngineOpener)
    assert opener.engine.create(0) is None
    with closing(opener.open()) as store, psycopg.connect(engine.url) as other:
        waiting = f"application_name = 'fibcore {store._node}' AND wait_event_type = 'Lock'"
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
