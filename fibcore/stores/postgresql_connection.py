"""A connection to PostgreSQL: how it is made, its timeouts, and the meaning of errors.

``postgresql`` has the statements.
"""

import contextlib
import hashlib
import re
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
"""Defaults that the URL may override; in seconds, tcp_user_timeout in milliseconds. See
https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS."""

STATEMENT_SECONDS: Final = 2
"""Time after which the server aborts a statement. This does not cover its commit: aborting the wait
for a standby would report an unconfirmed commit as done."""

REPLY_SECONDS: Final = 3.0
"""Time without a reply after which the server counts as gone."""

ROLLED_BACK: Final = re.compile("0A|2[2358]|40(?!003)|42|5[345]|57014|P0")
"""The SQLSTATEs after which the transaction was certainly not committed. Any other may come from a
pooler, which does not know what the server has done, or follow a commit that waited for a standby.
See https://www.postgresql.org/docs/current/errcodes-appendix.html."""

POOLED: Final = (errors.DuplicatePreparedStatement, errors.InvalidSqlStatementName)
"""Errors when a prepared statement is looked up in another session."""

POOLER: Final = (
    "a pooler in front of it gives each transaction another session, and a node needs its own. Set "
    "pool_mode = session for this database in pgbouncer, or name the server directly in FIB_STORE"
)

DONE: Final = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)

T = TypeVar("T")


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that never waits indefinitely for a reply.

    A server that hangs, or whose machine is cut off, leaves the connection open.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline = Deadline()
        self._names: dict[str, bytes] = {}
        """Names of the prepared statements. A name is derived from the statement's text: in a
        session that was another process's it can't denote a different statement."""

    def ask(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        """Run a statement, which is its own transaction; return its first row, as text.

        It calls libpq directly, for two reasons. A psycopg cursor takes half as much time again.
        And psycopg numbers its prepared statements: in a session that a pooler has passed on, a
        number may denote another statement.
        """
        with self.in_one():
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
        """Wait for the complete reply.

        An error is raised only at the end of the reply: after an error that closes the connection
        there is no such end, and the outcome is unknown.
        """
        replies: list[pq.abc.PGresult] = []
        # It is short, and nothing else is under way, so the system accepts it at once.
        if self.pgconn.flush():
            raise psycopg.OperationalError("the server does not accept data")
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

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """Wait for the end of ``gen``; psycopg calls this for everything but connecting."""
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
    """Connect to the first host that accepts writes.

    Args:
        url: in libpq's format.
        where: the same without a password.
        name: of the connection, shown in the server's views.

    Raises:
        EngineUnavailableError: there is no such host.
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
    """Translate psycopg's errors into those of ``Link``."""
    try:
        yield
    except psycopg.Error as error:
        if isinstance(error, POOLED) or "pooling mode" in str(error):
            raise EngineUnavailableError(where, POOLER) from error
        code = error.sqlstate or ""
        if connection.closed or connection.broken or (code and not ROLLED_BACK.match(code)):
            raise ReplyLostError(one_line(error)) from error
        if not code:
            # Raised by psycopg itself: a timeout, or incorrect use.
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
    """The message of ``error``, without the lines that quote the statement."""
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    lines = [line for line in str(error).splitlines() if not line.startswith("\t")]
    return primary or "; ".join(lines)
