"""A connection to PostgreSQL: how one is made, how long it is waited for, and what errors mean.

What is done on it is in ``postgresql``.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any, Final, TypeVar

import psycopg
from psycopg import conninfo, errors, pq
from psycopg.abc import PQGen

from fibcore.problems import (
    EngineUnavailableError,
    ForeignDatabaseError,
    NoRightError,
    SequenceMissingError,
)
from fibcore.stores.deadline import Deadline, has_input
from fibcore.stores.link import ReplyLostError
from fibcore.stores.urls import without_secrets

DEFAULTS: Final = {
    "connect_timeout": 2,
    "target_session_attrs": "read-write",
    "tcp_user_timeout": 3_000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
}
"""What is set unless the URL says otherwise; seconds, but for tcp_user_timeout's milliseconds. See
https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS."""

STATEMENT_SECONDS: Final = 2
"""After which the server gives a statement up, by itself and for sure. Not its commit: to end the
wait for a standby would be to call done what is not."""

REPLY_SECONDS: Final = 3.0
"""After which the server is taken for gone."""

UNKNOWN: Final = (errors.StatementCompletionUnknown, errors.TransactionResolutionUnknown)
"""What says that nobody knows whether it was done."""

POOLED: Final = (errors.DuplicatePreparedStatement, errors.InvalidSqlStatementName)
"""What is said where a statement that was prepared is looked for in another session."""

POOLER: Final = (
    "a pooler in front of it gives each transaction another session, and a node needs its own. Set "
    "pool_mode = session for this database in pgbouncer, or name the server directly in FIB_STORE"
)

DONE: Final = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)

T = TypeVar("T")


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection on which no reply is waited for without end.

    A server that hangs, or whose machine is cut off, keeps the connection open.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline = Deadline()
        self._names: dict[str, bytes] = {}
        """Of the statements that are prepared. A name is that of one text alone: in a session that
        has been another process's it never calls something else."""

    def ask(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        """Run a statement, which is a transaction of its own; return its first row, as text.

        It uses what libpq has for that, for two reasons. A cursor of psycopg's takes half as much
        time again. And the names that psycopg gives to prepared statements are numbers, which in a
        session that a pooler has handed on may be those of other statements.
        """
        with self.in_one():
            return self._ask(statement, *values)

    def _ask(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        name = self._names.get(statement)
        if name is None:
            name = b"fibcore_" + hashlib.sha256(statement.encode()).hexdigest()[:16].encode()
            self.pgconn.send_prepare(name, statement.encode())
            self._reply()
            self._names[statement] = name
        texts = [None if value is None else str(value).encode() for value in values]
        self.pgconn.send_query_prepared(name, texts)
        reply = self._reply()
        if not reply.ntuples:
            return None
        cells = (reply.get_value(0, column) for column in range(reply.nfields))
        return tuple(None if cell is None else cell.decode() for cell in cells)

    def _reply(self) -> pq.abc.PGresult:
        """Wait for all of the reply to what was sent.

        An error is raised when the end of the reply has come: with one that ends the connection
        that never does, and nobody knows what was done before it.
        """
        replies: list[pq.abc.PGresult] = []
        # It is little, and nothing else is under way, so that the system takes it at once.
        if self.pgconn.flush():
            raise psycopg.OperationalError("the server does not take what is sent")
        while True:
            while self.pgconn.is_busy():
                if not has_input(self.pgconn.socket, self._left()):
                    raise psycopg.OperationalError("the server does not reply")
                self.pgconn.consume_input()
            reply = self.pgconn.get_result()
            if reply is None:
                break
            replies.append(reply)
        for reply in replies:
            if reply.status not in DONE:
                raise errors.error_from_result(reply)
        return replies[-1]

    def wait(
        self,
        gen: PQGen[T],
        interval: float = 0.1,
        timeout: float | None = None,
    ) -> T:
        """Wait for the end of ``gen``; psycopg calls this for all else but the connecting."""
        with self.in_one():
            return super().wait(gen, interval, timeout or self._left())

    def _left(self) -> float:
        try:
            return self._deadline.left()
        except TimeoutError as error:
            raise psycopg.OperationalError("the server does not reply") from error

    def in_one(self) -> contextlib.AbstractContextManager[None]:
        return self._deadline.within(REPLY_SECONDS)

    def has_input(self) -> bool:
        return has_input(self.fileno())


def connect(url: str, where: str, name: str) -> Connection:
    """Connect to the first host that may be written to.

    Args:
        url: as libpq takes it.
        where: the same without a password.
        name: of the connection, for who looks at the server.

    Raises:
        EngineUnavailableError: there is none.
    """
    given = conninfo.conninfo_to_dict(url)
    defaults: dict[str, Any] = {key: each for key, each in DEFAULTS.items() if key not in given}
    try:
        connection = Connection.connect(
            conninfo.make_conninfo(url, application_name=name, client_encoding="UTF8", **defaults),
            autocommit=True,
        )
    except psycopg.OperationalError as error:
        raise EngineUnavailableError(where, without_secrets(one_line(error), url)) from error
    try:
        with explained(connection, where, ""):
            connection.execute(f"SET statement_timeout = '{STATEMENT_SECONDS}s'")
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def explained(connection: Connection, where: str, sequence: str) -> Iterator[None]:
    """Raise what an error of psycopg's means: as ``Link`` has them."""
    try:
        yield
    except psycopg.Error as error:
        if isinstance(error, POOLED) or "pooling mode" in str(error):
            raise EngineUnavailableError(where, POOLER) from error
        code = error.sqlstate or ""
        if connection.closed or connection.broken or isinstance(error, UNKNOWN):
            raise ReplyLostError(one_line(error)) from error
        if not code:
            # Of psycopg's own: it has waited long enough, or it was not used as it should be.
            if isinstance(error, psycopg.OperationalError):
                raise ReplyLostError(one_line(error)) from error
            raise
        match error:
            case errors.UndefinedTable():
                raise SequenceMissingError(where, sequence) from error
            case errors.InsufficientPrivilege():
                raise NoRightError(where, one_line(error)) from error
        if code[:2] == "42":
            raise ForeignDatabaseError(where, one_line(error)) from error
        raise EngineUnavailableError(where, one_line(error)) from error


def one_line(error: BaseException) -> str:
    """What ``error`` says, without the lines that quote the statement."""
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    lines = [line for line in str(error).splitlines() if not line.startswith("\t")]
    return primary or "; ".join(lines)
