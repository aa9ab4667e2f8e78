"""PostgreSQL behind pgbouncer: each connection needs its session."""

import itertools
import textwrap
import uuid
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fibcore.problems import EngineUnavailableError, explain
from fibcore.stores.postgresql import PostgresqlOpener
from fibcore.stores.postgresql_connection import Connection, connect
from tests.conftest import Engines
from tests.support.engines import Engine, Postgresql

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("patient")]


class Pgbouncer(Engine):
    """Forwards to ``server``."""

    user = "postgres"
    programs = ("pgbouncer", *Postgresql.programs)

    def __init__(self, server: Engine, mode: str) -> None:
        super().__init__()
        self.server = server
        self.mode = mode

    @property
    def command(self) -> Sequence[str | Path]:
        return ["pgbouncer", self.folder / "ini"]

    def url_at(self, port: int) -> str:
        return self.server.url_at(port)

    def prepare(self) -> None:
        (self.folder / "ini").write_text(
            textwrap.dedent(f"""\
                [databases]
                * = user=fibcore host={self.server.host} port={self.server.port}
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


@pytest.fixture
def server(engines: Engines) -> Engine:
    return engines(Postgresql)


def test_a_pooler_in_session_mode_works(server: Engine) -> None:
    with Pgbouncer(server, "session") as pooler:
        engine = PostgresqlOpener(pooler.url, f"test-{uuid.uuid4()}")
        assert engine.create(0) is None
        for index in range(3):
            with closing(engine.open()) as store:
                assert store.advance(1) == store.read() == index + 1


def test_a_pooler_that_prepares_statements_is_recognized_too(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like pgbouncer from version 1.21 on: here, every second statement has another session."""
    engine = PostgresqlOpener(server.url, f"test-{uuid.uuid4()}")
    assert engine.create(0) is None
    ask = Connection.ask
    with closing(connect(server.url, server.url, "pooled")) as other, closing(engine.open()) as it:
        sessions = itertools.cycle((None, other))

        def of_any(self: Connection, statement: str, *values: object) -> tuple[Any, ...] | None:
            return ask(next(sessions) or self, statement, *values)

        monkeypatch.setattr(Connection, "ask", of_any)
        assert it.read() == 0
        with pytest.raises(EngineUnavailableError) as unavailable:
            it.read()
        assert "pool_mode = session" in explain(unavailable.value)
        monkeypatch.setattr(Connection, "ask", ask)
        assert it.advance(1) == 1


def make_and_step(engine: PostgresqlOpener) -> None:
    engine.create(0)
    for _ in range(3):
        with closing(engine.open()) as store:
            store.advance(1)


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_pooler_in_transaction_mode_is_reported_with_the_remedy(
    server: Engine, mode: str
) -> None:
    with Pgbouncer(server, mode) as pooler:
        engine = PostgresqlOpener(pooler.url, f"test-{uuid.uuid4()}")
        with pytest.raises(EngineUnavailableError) as unavailable:
            make_and_step(engine)
        said = explain(unavailable.value)
        assert "pgbouncer" in said
        assert "pool_mode = session" in said
        assert "directly" in said
