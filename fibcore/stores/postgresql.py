"""The store in PostgreSQL, or in a database that speaks its protocol.

The driver is psycopg 3, a thin layer over libpq. The store runs on a dedicated thread, so a driver
for event loops (asyncpg) would need a loop of its own there; on asyncio it takes half as much
processor time again per batch. And libpq handles several hosts, TLS, password files and services as
PostgreSQL's documentation describes them.

A batch is one statement. It first locks the process's record, so that whoever settles the batch
waits for it; the row of the index is locked last, just before the commit.

Each reply carries its basis: the server's role and its durability settings. A reply whose basis
differs from the connection's is discarded, and the request repeated on a new connection, which
adapts to the new settings and has their warnings.

Reads are as durable as writes. After a crash a primary shows commits that no standby has confirmed,
and a primary whose standby has taken over may continue unaware. So with synchronous standbys each
read includes a write: the standbys confirm it, and with it everything that was read.
"""

import contextlib
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import psycopg
from psycopg import conninfo, errors

from fibcore.idempotency_key import Key
from fibcore.problems import (
    DatabaseInvalidError,
    EngineTooOldError,
    EngineUnavailableError,
    ForeignDatabaseError,
    KeysUnavailableError,
    NoRightError,
    SequenceMissingError,
)
from fibcore.stores import DurabilityWarning, IndexConflictError, Risk
from fibcore.stores.engine import EngineOpener
from fibcore.stores.keys import KeyConflictError, check
from fibcore.stores.link import Batch, Link, RecordGoneError, ReplyLostError
from fibcore.stores.postgresql_connection import POOLER, Connection, connect, explained
from fibcore.stores.records import PIECE, Records

OLDEST: Final = 13
"""The oldest supported version. Earlier ones are no longer maintained."""

BEHIND_ANOTHER: Final = (
    errors.SerializationFailure,
    errors.DeadlockDetected,
    errors.UniqueViolation,
)
RETRIES: Final = 20
"""Retries of a statement that was rolled back in favour of another one."""

SCHEMA: Final = (
    # Leave room in each page for versions of the single row that is updated all the time.
    """
    CREATE TABLE IF NOT EXISTS fibcore_sequence (
        name text PRIMARY KEY,
        n bigint NOT NULL CHECK (n >= 0)
    ) WITH (fillfactor = 10)
    """,
    """
    CREATE TABLE IF NOT EXISTS fibcore_node (
        sequence text NOT NULL REFERENCES fibcore_sequence ON DELETE CASCADE,
        node uuid NOT NULL,
        batch bigint NOT NULL,
        n bigint NOT NULL,
        written timestamptz NOT NULL,
        PRIMARY KEY (sequence, node)
    ) WITH (fillfactor = 10)
    """,
)

KEYS_SCHEMA: Final = (
    # No index begins with the sequence: a cached plan, made for an empty table, would use it to
    # read all keys of the sequence for each batch.
    "ALTER TABLE fibcore_sequence ADD COLUMN IF NOT EXISTS dropped bigint",
    """
    CREATE TABLE IF NOT EXISTS fibcore_key (
        sequence text NOT NULL,
        key uuid NOT NULL,
        n bigint NOT NULL,
        PRIMARY KEY (key, sequence)
    )
    """,
    "CREATE INDEX IF NOT EXISTS fibcore_key_by_n ON fibcore_key (n, sequence)",
)

BASIS: Final = r"""
format(E'%s\n%s\n%s\n%s\n%s\n%s\n%s', pg_backend_pid(), pg_is_in_recovery(),
    current_setting('fsync', true), current_setting('data_sync_retry', true),
    current_setting('full_page_writes', true), current_setting('synchronous_commit', true),
    current_setting('synchronous_standby_names', true))
"""
"""The basis of a reply, one item per line; empty where the server does not know a setting. The
first is the session, which a pooler may change."""

# During another program's long transaction old row versions stay. A search skips them one by one,
# unless it begins with the newest: a descending ORDER BY scans the index backwards. (With = instead
# of BETWEEN there would be nothing to order.)

MINE: Final = """
WITH mine AS (
    SELECT batch FROM fibcore_node
    WHERE (sequence, node) >= ($1, $2) AND (sequence, node) <= ($1, $2) AND batch < $3
    ORDER BY sequence DESC, node DESC LIMIT 1 FOR UPDATE
)"""
NOTED: Final = f"""noted AS (
    UPDATE fibcore_node AS r SET batch = $3, n = moved.n, written = now() FROM moved
    WHERE r.sequence = $1 AND r.node = $2
    RETURNING r.n
)
SELECT n, {BASIS} FROM noted
"""
"""The first and the last part of a commit: both are about the process's record."""

COMMIT: Final = f"""{MINE}, moved AS (
    UPDATE fibcore_sequence AS s SET n = s.n + $4 FROM mine
    WHERE s.name = $1 AND ($5::bigint IS NULL OR s.n = $5)
        AND ($6::bigint IS NULL OR s.n <= $6 - $4)
    RETURNING s.n
), {NOTED}"""

# The statement sees the keys that existed when it began. A key committed since, while it waited for
# the row, makes it fail, and it is retried; a key dropped since is detected by ``dropped``, which
# is read from the current row. Null there means that there were no keys.

COMMIT_KEYS: Final = f"""{MINE}, moved AS (
    UPDATE fibcore_sequence AS s SET n = s.n + $4, dropped = coalesce(s.dropped, s.n) FROM mine
    WHERE s.name = $1 AND ($5::bigint IS NULL OR s.n = $5)
        AND ($6::bigint IS NULL OR s.n <= $6 - $4)
        AND coalesce(s.dropped, s.n) <= $9::bigint AND s.n >= $10::bigint
        AND NOT EXISTS (SELECT FROM fibcore_key WHERE sequence = $1 AND key = ANY ($7::uuid[]))
    RETURNING s.n
), kept AS (
    INSERT INTO fibcore_key (sequence, key, n)
    SELECT $1, each.key, moved.n - $4 + each.place
    FROM moved, unnest($7::uuid[], $8::bigint[]) AS each (key, place) WHERE each.place > 0
), {NOTED}"""

FIND_KEYS: Final = f"""
SELECT s.n, coalesce(s.dropped, s.n), coalesce((
    SELECT json_object_agg(k.key, k.n) FROM fibcore_key AS k
    WHERE k.sequence = $1 AND k.key = ANY ($2::uuid[])
), '{{}}'), {BASIS} FROM fibcore_sequence AS s WHERE s.name = $1
"""

DROP_KEYS: Final = """
WITH last AS (
    SELECT n FROM fibcore_key WHERE sequence = $1 ORDER BY n DESC OFFSET $2 LIMIT 1
), raised AS (
    UPDATE fibcore_sequence AS s SET dropped = greatest(s.dropped, last.n) FROM last
    WHERE s.name = $1
    RETURNING s.dropped
)
DELETE FROM fibcore_key AS k USING raised WHERE k.sequence = $1 AND k.n <= raised.dropped
"""

ASK: Final = f"""
SELECT s.n, r.batch, {BASIS} FROM fibcore_sequence AS s
LEFT JOIN fibcore_node AS r ON r.sequence = s.name AND r.node = $2
WHERE s.name = $1
"""

SETTLE: Final = f"""
UPDATE fibcore_node SET n = CASE batch WHEN $3 THEN n ELSE 0 END, batch = $3, written = now()
WHERE sequence = $1 AND node = $2 AND batch <= $3
RETURNING n, {BASIS}
"""

MAKE: Final = """
WITH given_up AS (DELETE FROM fibcore_node WHERE sequence = $1 AND node = ANY ($3::uuid[]))
INSERT INTO fibcore_node (sequence, node, batch, n, written)
SELECT name, $2, 0, 0, now() FROM fibcore_sequence WHERE name = $1
RETURNING 1
"""

TOUCH: Final = """
UPDATE fibcore_node SET written = now() WHERE sequence = $1 AND node = $2 RETURNING 1
"""

READ: Final = f"""
SELECT n, {BASIS} FROM fibcore_sequence
WHERE name BETWEEN $1 AND $1 ORDER BY name DESC LIMIT 1
"""

READ_CONFIRMED: Final = f"""
WITH asked AS (
    UPDATE fibcore_node SET written = now() WHERE sequence = $1 AND node = $2 RETURNING 1
)
SELECT n, {BASIS} FROM fibcore_sequence, asked WHERE name = $1
"""

RECORDS: Final = f"""
SELECT coalesce(json_object_agg(node, version), '{{}}') FROM (
    SELECT node, xmin::text AS version FROM fibcore_node
    WHERE sequence = $1 AND node > $2 ORDER BY node LIMIT {PIECE}
) AS piece
"""

REMOVE: Final = """
DELETE FROM fibcore_node AS r USING json_each_text($2::json) AS seen
WHERE r.sequence = $1 AND r.node = seen.key::uuid AND r.xmin::text = seen.value
"""

FORGET: Final = "DELETE FROM fibcore_node WHERE sequence = $1 AND node = $2 RETURNING 1"

END_OTHERS: Final = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = $1 AND pid <> pg_backend_pid()
"""

SETTINGS: Final = f"SELECT {BASIS}"

STANDBYS: Final = "SELECT count(*) FROM pg_stat_replication"


class PostgresqlLink(Link):
    """A process's session."""

    _connection: Connection

    def __init__(
        self,
        opener: "PostgresqlOpener",
        process: uuid.UUID | None,
        record: uuid.UUID | None,
        connection: Connection,
    ) -> None:
        self._process = process
        self._has_doubts = False
        self._confirms = False
        super().__init__(opener, record, connection)

    def _begin(self) -> None:
        self._connection.add_notice_handler(self._take_notice)
        version = self._connection.info.server_version // 10_000
        if version < OLDEST:
            raise EngineTooOldError(self._where, f"PostgreSQL {version}", str(OLDEST))
        if self._process is None:
            return
        # An old statement of this process that still waits for a standby or a lock is useless, and
        # occupies one of a limited number of connections.
        with contextlib.suppress(EngineUnavailableError, DatabaseInvalidError):
            self._ask(END_OTHERS, name_of(self._process))
        self.warnings = self._read_warnings()
        # Check this role's rights with a batch that can't match any record.
        self._ask(COMMIT, self._sequence, uuid.UUID(int=0), 0, 0, None, None)

    def _take_notice(self, notice: psycopg.errors.Diagnostic) -> None:
        # "canceling wait for synchronous replication": the reply is that of a confirmed commit.
        # The warning has no code of its own, and its text is localized, so its source file decides;
        # without one, any warning counts.
        if notice.severity_nonlocalized == "WARNING":
            source = notice.source_file
            self._has_doubts |= source is None or source.endswith("syncrep.c")

    def _read_warnings(self) -> tuple[DurabilityWarning, ...]:
        row = self._ask(SETTINGS)
        assert row is not None
        (self._basis,) = row
        _, in_recovery, fsync, retry, full_page_writes, commit, standby_names = self._basis.split(
            "\n", 6
        )
        if in_recovery == "t":
            raise EngineUnavailableError(self._where, "it is a standby, not the primary")
        found = []
        if fsync == "off":
            found.append(DurabilityWarning("fsync=off", Risk.RUIN))
        if retry == "on":
            found.append(DurabilityWarning("data_sync_retry=on", Risk.RUIN))
        if full_page_writes == "off":
            found.append(DurabilityWarning("full_page_writes=off", Risk.RUIN))
        if commit == "off":
            found.append(DurabilityWarning("synchronous_commit=off", Risk.CRASH))
        elif standby_names:
            self._confirms = commit != "local"
            if commit in ("local", "remote_write"):
                found.append(DurabilityWarning(f"synchronous_commit={commit}", Risk.FAILOVER))
        if not standby_names:
            with contextlib.suppress(EngineUnavailableError, DatabaseInvalidError):
                standbys = self._ask(STANDBYS)
                if standbys is not None and int(standbys[0]):
                    found.append(DurabilityWarning("synchronous_standby_names=''", Risk.FAILOVER))
        return tuple(found)

    def make(self, record: uuid.UUID, given_up: Sequence[uuid.UUID]) -> None:
        names = f"{{{','.join(map(str, given_up))}}}"
        if self._ask(MAKE, self._sequence, record, names) is None:
            raise SequenceMissingError(self._where, self._sequence)
        self._record = record

    def is_as_it_was(self) -> bool:
        before = self.warnings, self._basis
        return (self._read_warnings(), self._basis) == before

    def commit(self, batch: Batch) -> int:
        row = self._try_keys(batch) if batch.keys else self._try(COMMIT, batch)
        if row is None:
            row = self._reply(ASK, self._sequence, self._record)
            if row is None:
                raise SequenceMissingError(self._where, self._sequence)
            index, number = row
            conflict = self._conflict(batch, int(index))
            if number is None or (
                self._confirms and self._ask(TOUCH, self._sequence, self._record) is None
            ):
                raise RecordGoneError("the record of this process is gone")
            raise conflict
        return int(row[0])

    def settle(self, number: int) -> int:
        row = self._reply(SETTLE, self._sequence, self._record, number)
        if row is None:
            raise RecordGoneError("the record of this process is gone")
        return int(row[0])

    def _try(self, statement: str, batch: Batch, *more: object) -> tuple[Any, ...] | None:
        return self._reply(statement, self._sequence, self._record, *batch[:4], *more)

    def _try_keys(self, batch: Batch) -> tuple[Any, ...] | None:
        """Apply a batch with keys; create missing tables for keys if this role may.

        Raises:
            KeysUnavailableError: there are no such tables.
        """
        since = [key.since for key in batch.keys]
        places = f"{{{','.join(map(str, batch.keys.values()))}}}"
        more = (names_of(batch.keys), places, min(since), max(since))
        try:
            try:
                return self._try(COMMIT_KEYS, batch, *more)
            except (SequenceMissingError, ForeignDatabaseError):
                with self._transaction() as execute:
                    make_tables(execute, KEYS_SCHEMA)
                return self._try(COMMIT_KEYS, batch, *more)
        except (SequenceMissingError, ForeignDatabaseError, NoRightError) as error:
            raise KeysUnavailableError(self._where, str(error)) from error

    def _conflict(self, batch: Batch, index: int) -> Exception:
        """Why ``batch`` was not applied although its record exists."""
        if batch.keys:
            row = self._reply(FIND_KEYS, self._sequence, names_of(batch.keys))
            if row is not None:
                index, dropped = int(row[0]), int(row[1])
                made = {uuid.UUID(name).bytes: n for name, n in json.loads(row[2]).items()}
                try:
                    check(batch.keys, made, index, dropped)
                except KeyConflictError as error:
                    return error
        return IndexConflictError(index)

    def drop_keys(self, keep: int) -> None:
        self._ask(DROP_KEYS, self._sequence, keep)

    def read(self) -> int:
        if self._confirms and self._record is not None:
            row = self._reply(READ_CONFIRMED, self._sequence, self._record)
            if row is None:
                raise RecordGoneError("the record of this process is gone, or the sequence")
        else:
            row = self._reply(READ, self._sequence)
            if row is None:
                raise SequenceMissingError(self._where, self._sequence)
        return int(row[0])

    def _reply(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        """The reply to a statement, checked for and stripped of its basis."""
        row = self._ask(statement, *values)
        if row is None:
            return None
        *reply, basis = row
        if basis != self._basis:
            session, before = (each.partition("\n")[0] for each in (basis, self._basis))
            changed = "the server's settings have changed since the connection was made"
            raise ReplyLostError(changed if session == before else POOLER)
        return tuple(reply)

    def _ask(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        """Run one statement, which is its own transaction; return its first row, as text."""
        with explained(self._connection, self._where, self._sequence):
            for left in reversed(range(RETRIES + 1)):
                try:
                    row = self._connection.ask(statement, *values)
                    break
                except BEHIND_ANOTHER:
                    if not left:
                        raise
        if self._has_doubts:
            raise ReplyLostError(
                "the server warned that a commit may not have reached its standbys"
            )
        return row

    def records(self, after: str) -> tuple[Records, str]:
        row = self._ask(RECORDS, self._sequence, after or uuid.UUID(int=0))
        assert row is not None
        found: dict[str, str] = json.loads(row[0])
        return found, max(found) if len(found) == PIECE else ""

    def remove(self, records: Records) -> None:
        self._ask(REMOVE, self._sequence, json.dumps(dict(records)))

    def forget(self) -> None:
        self._ask(FORGET, self._sequence, self._record)

    def create(self, index: int) -> int | None:
        with self._transaction() as execute:
            make_tables(execute, (*SCHEMA, *KEYS_SCHEMA))
            made = execute(
                "INSERT INTO fibcore_sequence (name, n, dropped) VALUES (%s, %s, %s) "
                "ON CONFLICT DO NOTHING RETURNING 1",
                (self._sequence, index, index),
            ).fetchone()
            return None if made else self._locked(execute)

    def set_index(self, index: int, *, lower: bool) -> int:
        with self._transaction() as execute:
            before = self._locked(execute)
            if index > before or lower:
                execute(
                    "UPDATE fibcore_sequence SET n = %s WHERE name = %s", (index, self._sequence)
                )
                (has_keys,) = execute("SELECT to_regclass('fibcore_key') IS NOT NULL").fetchone()
                if has_keys:
                    execute("DELETE FROM fibcore_key WHERE sequence = %s", (self._sequence,))
                    execute(
                        "UPDATE fibcore_sequence SET dropped = n WHERE name = %s", (self._sequence,)
                    )
            return before

    def _locked(self, execute: Callable[..., Any]) -> int:
        row = execute(
            "SELECT n FROM fibcore_sequence WHERE name = %s FOR UPDATE", (self._sequence,)
        ).fetchone()
        if row is None:
            raise SequenceMissingError(self._where, self._sequence)
        return int(row[0])

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Callable[..., Any]]:
        connection = self._connection
        with explained(connection, self._where, self._sequence), connection.transaction():
            yield connection.execute


def make_tables(execute: Callable[..., Any], schema: Sequence[str]) -> None:
    """Create the missing parts of ``schema``, in a transaction."""
    # IF NOT EXISTS takes no lock: of two concurrent creations one would fail.
    execute("SELECT pg_advisory_xact_lock(hashtext('fibcore'))")
    for statement in schema:
        execute(statement)


def names_of(keys: Iterable[Key]) -> str:
    """The digests of keys as a PostgreSQL array."""
    return f"{{{','.join(key.digest.hex() for key in keys)}}}"


def name_of(process: uuid.UUID | None) -> str:
    """The ``application_name`` of a process's connections."""
    return f"fibcore {process or 'command'}"


class PostgresqlOpener(EngineOpener):
    """A sequence in the database at a URL in libpq's format."""

    def _take(self, url: str) -> None:
        try:
            conninfo.timeout_from_conninfo(conninfo.conninfo_to_dict(url))
        except psycopg.ProgrammingError as error:
            raise ValueError(str(error).strip()) from None

    def connect(self, process: uuid.UUID | None, record: uuid.UUID | None) -> PostgresqlLink:
        connection = connect(self.url, self.where, name_of(process))
        return PostgresqlLink(self, process, record, connection)
