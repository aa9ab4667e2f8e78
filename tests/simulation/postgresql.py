"""A simulated PostgreSQL: the store's statements on its tables, with row locks, WAL and a standby.

Statements are not parsed: each known text has a function. A transaction locks its rows, is written
to the WAL, and becomes visible when the synchronous standby, if any, has confirmed it. If its
backend is terminated, its wait is cancelled, or the server crashes, it becomes visible unconfirmed.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, ClassVar, Final, NamedTuple
from urllib.parse import urlsplit

import psycopg
from psycopg import errors

from fibcore.problems import EngineUnavailableError
from fibcore.stores import postgresql as store
from fibcore.stores.deadline import Deadline
from tests.simulation.engine import EngineServer, LinkFaults, Session
from tests.simulation.network import Network
from tests.simulation.process import calling_process

CONNECT_SECONDS: Final = 2.0
REPLY_SECONDS: Final = 3.0
STATEMENT_SECONDS: Final = 2.0
FLUSH_SECONDS: Final = 0.003

INDEX: Final = "index"
DROPPED: Final = "dropped"
"""Names of the two columns of ``fibcore_sequence`` in ``State``."""
TABLES: Final = "tables"
"""Present in ``State`` if the schema for keys exists."""
KEY: Final = "key "
"""Prefix of rows of ``fibcore_key`` in ``State``; other names are records."""
CREATED: Final[Mapping[str, Any]] = {INDEX: 0, DROPPED: 0, TABLES: True}
"""The state that ``fibcore init`` creates."""

IS_PRIMARY: Final = "SELECT pg_is_in_recovery()"


class Row(NamedTuple):
    """A row of ``fibcore_node``: a record."""

    batch: int
    n: int
    xmin: int


State = Mapping[str, Any]
"""The rows by name."""


class Effect(NamedTuple):
    """The effect of a statement."""

    row: tuple[str | None, ...] | psycopg.Error | None
    writes: Mapping[str, Any]
    """By name; None removes a row."""


class Operator:
    """In place of the session of an operator, who executes a statement in psql."""

    name = "psql"
    is_over = False

    def reply(self, reply: object) -> None:
        """Ignore the reply."""

    def reset(self) -> None:
        """Ignore the reset."""


class Transaction:
    """A writing statement, from its locks to its reply."""

    def __init__(
        self,
        session: Session | Operator,
        keys: tuple[str, ...],
        evaluate: Callable[[State], Effect],
    ) -> None:
        self.session = session
        self.keys = keys
        self.evaluate = evaluate
        self.row: tuple[str | None, ...] | psycopg.Error | None = None
        self.writes: Mapping[str, Any] = {}
        self.lsn = 0
        self.is_waiting = True
        """For locks."""
        self.is_over = False


class Postgresql(EngineServer):
    """A server; a standby has ``in_recovery`` set."""

    def __init__(
        self, network: Network, name: str, link_faults: LinkFaults, base: Mapping[str, Any]
    ) -> None:
        super().__init__(network, name, link_faults)
        self.visible: dict[str, Any] = dict(base)
        """The rows that statements see."""
        self.wal: list[Mapping[str, Any]] = []
        """The writes of all transactions on its disk, in order."""
        self.base: dict[str, Any] = dict(base)
        """The rows before the WAL's first write."""
        self.standby: Postgresql | None = None
        self.applied = 0
        """Length of the primary's WAL that a standby has applied."""
        self.in_recovery = False
        self.standby_names = ""
        self.denied = False
        self.denied_keys = False
        self.table_renamed = False
        self._locks: dict[str, Transaction] = {}
        self._transactions: list[Transaction] = []
        self._xid = 100

    # Faults.

    def kill(self) -> None:
        """Crash: afterwards the whole WAL is visible, confirmed or not."""
        super().kill()
        for each in self._transactions:
            each.is_over = True
        self._transactions.clear()
        self._locks.clear()
        self.visible = self.recovered(len(self.wal))

    def recovered(self, length: int) -> dict[str, Any]:
        """Return the rows after replaying so much of the WAL."""
        state = dict(self.base)
        for writes in self.wal[:length]:
            write(state, writes)
        if "UNLOGGED" in store.KEYS_SCHEMA[1]:
            return {key: value for key, value in state.items() if not is_key_row(key)}
        return state

    def promote(self) -> None:
        """Make a standby the primary."""
        self.log("becomes the primary")
        self.in_recovery = False
        self.standby_names = ""

    def demote(self, primary: "Postgresql") -> None:
        """Rebuild it as a standby of ``primary``."""
        self.log(f"becomes a standby of {primary.name}")
        self.kill()
        self.is_up = True
        self.in_recovery = True
        self.base, self.wal = dict(primary.base), list(primary.wal)
        self.applied = len(self.wal)
        self.visible = self.recovered(self.applied)
        primary.standby, self.standby = self, None
        primary.standby_names = "*"

    def cancel_waits(self) -> None:
        """Cancel all waits for the standby."""
        for each in list(self._transactions):
            if each.lsn:
                self._finish(each, warning=True)

    def end_backends(self, name: str, but: Session) -> None:
        """Terminate all other backends with this application name."""
        for each in [*self.sessions, *(each.session for each in self._transactions)]:
            if each.name == name and each is not but and not each.is_over:
                self.end_backend(each)

    def end_backend(self, session: Session | Operator) -> None:
        """Terminate a backend, as ``pg_terminate_backend`` does."""
        for each in [each for each in self._transactions if each.session is session]:
            if each.lsn:
                self._finish(each, warning=True)
            else:
                self._abort(each, None)
        session.reset()

    def do_by_hand(
        self, keys: tuple[str, ...], writes: Callable[[State], Mapping[str, Any]]
    ) -> None:
        """Write rows in a transaction, as an operator does."""
        if self.is_up and not self.in_recovery:
            self.begin(Operator(), keys, lambda state: Effect(None, writes(state)))

    # Statements.

    def take(self, session: Session, request: tuple[str, tuple[Any, ...]]) -> None:
        statement, values = request
        if statement == IS_PRIMARY:
            session.reply(("t" if self.in_recovery else "f",))
            return
        name = statement_name(statement)
        texts = tuple(None if each is None else str(each) for each in values)
        if self.denied and name != "SETTINGS":
            session.reply(errors.InsufficientPrivilege("permission denied for table"))
        elif self.table_renamed and name not in ("SETTINGS", "STANDBYS", "END_OTHERS"):
            session.reply(errors.UndefinedTable("relation does not exist"))
        elif self.denied_keys and name in KEY_STATEMENTS:
            session.reply(errors.InsufficientPrivilege("permission denied for table fibcore_key"))
        elif name in KEY_STATEMENTS - {"MAKE_TABLES"} and TABLES not in self.visible:
            session.reply(errors.UndefinedTable("relation fibcore_key does not exist"))
        else:
            STATEMENTS[name](self, session, texts)

    @property
    def basis(self) -> str:
        """The result of the store's ``BASIS``."""
        return f"1\n{'t' if self.in_recovery else 'f'}\non\noff\non\non\n{self.standby_names}"

    def begin(
        self,
        session: Session | Operator,
        keys: tuple[str, ...],
        evaluate: Callable[[State], Effect],
    ) -> None:
        """Begin a transaction that locks these rows."""
        if self.in_recovery:
            session.reply(
                errors.ReadOnlySqlTransaction("cannot execute in a read-only transaction")
            )
            return
        transaction = Transaction(session, keys, evaluate)
        self._transactions.append(transaction)
        self.world.after(STATEMENT_SECONDS, None, self._time_out, transaction)
        self._try_locks(transaction)

    def _time_out(self, transaction: Transaction) -> None:
        if transaction.is_waiting and not transaction.is_over:
            self._abort(
                transaction, errors.QueryCanceled("canceling statement due to statement timeout")
            )

    def _try_locks(self, transaction: Transaction) -> None:
        if any(key in self._locks for key in transaction.keys):
            return
        transaction.is_waiting = False
        done = transaction.evaluate(self.visible)
        transaction.row, transaction.writes = done
        if not done.writes:
            self._close(transaction)
            transaction.session.reply(done.row)
            return
        for key in transaction.keys:
            self._locks[key] = transaction
        self.world.after(
            FLUSH_SECONDS * self.world.random.random(), None, self._flushed, transaction
        )

    def _flushed(self, transaction: Transaction) -> None:
        if transaction.is_over or not self.is_up:
            return
        if self.is_stopped:
            self.world.after(0.1, None, self._flushed, transaction)
            return
        self.wal.append(transaction.writes)
        transaction.lsn = len(self.wal)
        if self.standby is not None:
            self._stream(self.standby)
        if not self.standby_names:
            self._finish(transaction)

    def _stream(self, standby: "Postgresql") -> None:
        """Send the WAL to the standby, which confirms it."""
        network = self.network
        length = len(self.wal)

        def arrive() -> None:
            if self.standby is not standby or not self.is_up or not standby.in_recovery:
                return
            if not standby.is_up or standby.is_stopped or network.is_cut(self.name, standby.name):
                self.world.after(0.2, None, arrive)
                return
            if length > standby.applied:
                standby.wal = self.wal[:length]
                standby.applied = length
                standby.visible = standby.recovered(length)
            self.world.after(network.delay(), None, confirm)

        def confirm() -> None:
            if self.standby is not standby or not self.is_up:
                return
            if self.is_stopped or network.is_cut(standby.name, self.name):
                self.world.after(0.2, None, confirm)
                return
            for each in list(self._transactions):
                if each.lsn and each.lsn <= length:
                    self._finish(each)

        self.world.after(network.delay(), None, arrive)

    def _finish(self, transaction: Transaction, *, warning: bool = False) -> None:
        write(self.visible, transaction.writes)
        self._close(transaction)
        if warning:
            transaction.session.reply(ReplyWithWarning(transaction.row))
        else:
            transaction.session.reply(transaction.row)

    def _abort(self, transaction: Transaction, error: psycopg.Error | None) -> None:
        self._close(transaction)
        if error is not None:
            transaction.session.reply(error)

    def _close(self, transaction: Transaction) -> None:
        transaction.is_over = True
        self._transactions.remove(transaction)
        for key in transaction.keys:
            if self._locks.get(key) is transaction:
                del self._locks[key]
        for each in list(self._transactions):
            if each.is_waiting and not each.is_over:
                self._try_locks(each)

    def next_xid(self) -> int:
        """Allocate a transaction id."""
        self._xid += 1
        return self._xid


class ReplyWithWarning(NamedTuple):
    """A reply preceded by the warning that the standby may not have the commit."""

    row: tuple[str | None, ...] | psycopg.Error | None


def write(state: dict[str, Any], writes: Mapping[str, Any]) -> None:
    for key, value in writes.items():
        if value is None:
            state.pop(key, None)
        else:
            state[key] = value


# The statements.

Texts = tuple[Any, ...]


def commit(server: Postgresql, session: Session, texts: Texts) -> None:
    _, node, batch, steps, expected, limit = texts

    def evaluate(state: State) -> Effect:
        row = state.get(node)
        index = state[INDEX]
        wanted = index + int(steps)
        if (
            row is None
            or row.batch >= int(batch)
            or expected not in (None, str(index))
            or (limit is not None and wanted > int(limit))
        ):
            return Effect(None, {})
        new = Row(int(batch), wanted, server.next_xid())
        return Effect((str(wanted), server.basis), {INDEX: wanted, node: new})

    server.begin(session, (node, INDEX), evaluate)


def commit_keys(server: Postgresql, session: Session, texts: Texts) -> None:
    _, node, batch, steps, expected, limit, array, places, lowest, highest = texts
    text = store.COMMIT_KEYS
    keys = [f"{KEY}{each}" for each in elements_of(array)]
    # A statement sees a snapshot from its start, except for the rows that it locks.
    is_known = any(key in server.visible for key in keys)

    def evaluate(state: State) -> Effect:
        row = state.get(node)
        index = state[INDEX]
        dropped = state.get(DROPPED, index)
        wanted = index + int(steps)
        if (
            row is None
            or row.batch >= int(batch)
            or expected not in (None, str(index))
            or (limit is not None and wanted > int(limit))
            or (dropped > int(lowest) and "coalesce(s.dropped, s.n) <= $9" in text)
            or (index < int(highest) and "s.n >= $10" in text)
            or (is_known and "NOT EXISTS" in text)
        ):
            return Effect(None, {})
        placed = zip(keys, map(int, elements_of(places)), strict=True)
        made = {key: index + place for key, place in placed if place}
        if "INSERT INTO fibcore_key" not in text:
            made = {}
        if any(key in state for key in made):
            return Effect(errors.UniqueViolation("duplicate key value"), {})
        new = Row(int(batch), wanted, server.next_xid())
        writes = {INDEX: wanted, DROPPED: dropped, node: new, **made}
        return Effect((str(wanted), server.basis), writes)

    server.begin(session, (node, INDEX), evaluate)


def find_keys(server: Postgresql, session: Session, texts: Texts) -> None:
    visible = server.visible
    found = {each: visible.get(f"{KEY}{each}") for each in elements_of(texts[1])}
    made = json.dumps({each: n for each, n in found.items() if n is not None})
    session.reply(
        (str(visible[INDEX]), str(visible.get(DROPPED, visible[INDEX])), made, server.basis)
    )


def drop_keys(server: Postgresql, session: Session, texts: Texts) -> None:
    kept = sorted((n for key, n in server.visible.items() if is_key_row(key)), reverse=True)
    surplus = kept[int(texts[1]) :]

    def evaluate(state: State) -> Effect:
        if not surplus:
            return Effect(None, {})
        dropped = max(state.get(DROPPED, 0), surplus[0])
        old = [key for key, n in state.items() if is_key_row(key) and n <= dropped]
        raised = {DROPPED: dropped} if "SET dropped" in store.DROP_KEYS else {}
        return Effect(None, {**raised, **dict.fromkeys(old)})

    server.begin(session, (INDEX,), evaluate)


def make_tables(server: Postgresql, session: Session, texts: Texts) -> None:  # noqa: ARG001
    server.begin(session, (INDEX,), lambda _: Effect(("1",), {TABLES: True}))


def keep_keys(server: Postgresql, session: Session, texts: Texts) -> None:
    array, indexes = texts
    made = zip(elements_of(array), map(int, elements_of(indexes)), strict=True)
    writes = {f"{KEY}{each}": index for each, index in made}
    server.begin(session, (INDEX,), lambda _: Effect(("1",), writes))


def ask(server: Postgresql, session: Session, texts: Texts) -> None:
    row = server.visible.get(texts[1])
    batch = None if row is None else str(row.batch)
    session.reply((str(server.visible[INDEX]), batch, server.basis))


def settle(server: Postgresql, session: Session, texts: Texts) -> None:
    _, node, number = texts
    is_used_up = "batch = $3" in store.SETTLE

    def evaluate(state: State) -> Effect:
        row = state.get(node)
        if row is None or row.batch > int(number):
            return Effect(None, {})
        new = Row(
            int(number) if is_used_up else row.batch,
            row.n if row.batch == int(number) else 0,
            server.next_xid(),
        )
        return Effect((str(new.n), server.basis), {node: new})

    server.begin(session, (node,), evaluate)


def make(server: Postgresql, session: Session, texts: Texts) -> None:
    _, node, array = texts
    given_up = elements_of(array)

    def evaluate(state: State) -> Effect:
        assert node not in state, "the record already exists"
        gone = dict.fromkeys(each for each in given_up if each in state)
        return Effect(("1",), {**gone, node: Row(0, 0, server.next_xid())})

    server.begin(session, (node, *given_up), evaluate)


def touch(server: Postgresql, session: Session, texts: Texts) -> None:
    node = texts[1]

    def evaluate(state: State) -> Effect:
        row = state.get(node)
        if row is None:
            return Effect(None, {})
        return Effect(("1",), {node: row._replace(xmin=server.next_xid())})

    server.begin(session, (node,), evaluate)


def read(server: Postgresql, session: Session, texts: Texts) -> None:  # noqa: ARG001
    session.reply((str(server.visible[INDEX]), server.basis))


def read_confirmed(server: Postgresql, session: Session, texts: Texts) -> None:
    node = texts[1]
    # A statement sees a snapshot from its start.
    index = server.visible[INDEX]

    def evaluate(state: State) -> Effect:
        row = state.get(node)
        if row is None:
            return Effect(None, {})
        return Effect((str(index), server.basis), {node: row._replace(xmin=server.next_xid())})

    server.begin(session, (node,), evaluate)


def records(server: Postgresql, session: Session, texts: Texts) -> None:
    after = texts[1]
    rows = ((key, row) for key, row in server.visible.items() if is_record(key) and key > after)
    session.reply((json.dumps({key: str(row.xmin) for key, row in sorted(rows)[:100]}),))


def remove(server: Postgresql, session: Session, texts: Texts) -> None:
    wanted = json.loads(texts[1])

    def evaluate(state: State) -> Effect:
        same = [key for key in wanted if key in state and str(state[key].xmin) == wanted[key]]
        return Effect(None, dict.fromkeys(same))

    server.begin(session, tuple(wanted), evaluate)


def forget(server: Postgresql, session: Session, texts: Texts) -> None:
    node = texts[1]
    server.begin(
        session, (node,), lambda state: Effect(("1",), {node: None} if node in state else {})
    )


def end_others(server: Postgresql, session: Session, texts: Texts) -> None:
    server.end_backends(texts[0], session)
    session.reply(("t",))


def settings(server: Postgresql, session: Session, texts: Texts) -> None:  # noqa: ARG001
    session.reply((server.basis,))


def standbys(server: Postgresql, session: Session, texts: Texts) -> None:  # noqa: ARG001
    session.reply((str(int(server.standby is not None)),))


STATEMENTS: Final[dict[str, Callable[[Postgresql, Session, Texts], None]]] = {
    work.__name__.upper(): work
    for work in (
        commit,
        commit_keys,
        find_keys,
        drop_keys,
        make_tables,
        keep_keys,
        ask,
        settle,
        make,
        touch,
        read,
        read_confirmed,
        records,
        remove,
        forget,
        end_others,
        settings,
        standbys,
    )
}
"""By the name of the statement's text in the store."""

KEY_STATEMENTS: Final = frozenset({"COMMIT_KEYS", "FIND_KEYS", "DROP_KEYS", "MAKE_TABLES"})

_names: Final[dict[str, str]] = {"MAKE_TABLES": "MAKE_TABLES", "KEEP_KEYS": "KEEP_KEYS"}
"""The first stands for several statements; the second belongs to a planted defect."""


def statement_name(statement: str) -> str:
    """Return the name of a statement's text in the store; a defect may have changed that text."""
    if statement not in _names:
        _names[statement] = next(each for each in STATEMENTS if vars(store).get(each) == statement)
    return _names[statement]


def is_key_row(key: str) -> bool:
    """Whether ``key`` names a row of ``fibcore_key``."""
    return key.startswith(KEY)


def is_record(key: str) -> bool:
    """Whether ``key`` names a record."""
    return key not in CREATED and not is_key_row(key)


def elements_of(array: str) -> list[str]:
    """Parse an array literal."""
    return [each for each in array.strip("{}").split(",") if each]


# The client.


class Connection:
    """``postgresql_connection.Connection`` over a session."""

    hosts: ClassVar[Mapping[str, EngineServer]]
    info = SimpleNamespace(server_version=170_000)

    def __init__(self, session: Session) -> None:
        self._session = session
        self._deadline = Deadline()
        self._handlers: list[Callable[[Any], None]] = []
        self.closed = False
        self.broken = False

    def add_notice_handler(self, handler: Callable[[Any], None]) -> None:
        self._handlers.append(handler)

    def in_one(self) -> contextlib.AbstractContextManager[None]:
        return self._deadline.within(REPLY_SECONDS)

    def ask(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        """See ``postgresql_connection.Connection.ask``."""
        try:
            with self.in_one():
                reply = self._session.ask((statement, values), self._deadline.left())
        except ConnectionError as error:
            self.broken = True
            raise psycopg.OperationalError(f"server closed the connection: {error}") from error
        except TimeoutError as error:
            raise psycopg.OperationalError("the server does not reply") from error
        if isinstance(reply, ReplyWithWarning):
            notice = SimpleNamespace(severity_nonlocalized="WARNING", source_file="syncrep.c")
            for each in self._handlers:
                each(notice)
            reply = reply.row
        if isinstance(reply, psycopg.Error):
            raise type(reply)(*reply.args)
        assert reply is None or isinstance(reply, tuple)
        return reply

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """The only transaction of nodes: it creates the schema for keys."""
        yield
        self.ask("MAKE_TABLES")

    def execute(self, statement: str) -> None:
        assert "pg_advisory_xact_lock" in statement or statement in store.KEYS_SCHEMA

    def has_input(self) -> bool:
        return self._session.has_input()

    def close(self) -> None:
        self.closed = True
        self._session.close()


def connect(url: str, where: str, name: str) -> Connection:
    """Connect to the first writable host; see ``postgresql_connection.connect``."""
    problem = "no host is known"
    for host in (urlsplit(url).netloc or "").split(","):
        try:
            session = Session(calling_process(), Connection.hosts[host], CONNECT_SECONDS)
            session.name = name
            (in_recovery,) = session.ask((IS_PRIMARY, ()), CONNECT_SECONDS)
        except (ConnectionError, TimeoutError) as error:
            problem = str(error)
            continue
        if in_recovery == "f":
            return Connection(session)
        session.close()
        problem = "it is a standby"
    raise EngineUnavailableError(where, problem)
