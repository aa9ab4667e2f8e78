"""The store in PostgreSQL, or in a database that speaks its protocol.

The driver is psycopg 3, which is libpq and a little Python. The store is used by one thread that
has nothing else to do, so that a driver for event loops (asyncpg) would need a loop of its own
there: on asyncio's it takes half as much processor time again for a batch. And libpq is where
several hosts, TLS, password files and services are as PostgreSQL's own documents have them.

A batch is one statement. It first locks the record of the process, which is how whoever asks again
waits for whoever asked before; the row of the index is locked last, just before the commit.

Each reply brings what it rests on: the server's role, and its settings of durability. A reply with
another basis than the connection was made with is dropped, and is asked for again on a new
connection, which does what the new settings need and has their warnings.

What is read is to be as sound as what is written. After a crash a primary shows commits that no
standby has confirmed, and one whose standby has taken over may go on without knowing. So with
synchronous standbys each read comes with a write of its own: the standbys confirm that, and with it
all that was seen.
"""

import contextlib
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import psycopg
from psycopg import conninfo, errors

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
from fibcore.stores.keys import Key, KeyConflictError, check
from fibcore.stores.link import Batch, Engine, Link, RecordGoneError, ReplyLostError
from fibcore.stores.postgresql_connection import Connection, connect, explained
from fibcore.stores.records import PIECE, Records
from fibcore.stores.urls import shown, without_secrets

OLDEST: Final = 13
"""The first version that will do. Those before are not maintained any more."""

RETRIES: Final = 20
"""Of a statement that the database has rolled back in favour of another one (40001, 40P01, 23505).
"""

SCHEMA: Final = (
    # Room in each page for the versions of the one row that is written over and over.
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
    # The sequence is first in no index: a plan that was made for an empty table, and is kept,
    # would read all keys of the sequence by it, for each batch.
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
format(E'%s\n%s\n%s\n%s\n%s', pg_is_in_recovery(), current_setting('fsync', true),
    current_setting('full_page_writes', true), current_setting('synchronous_commit', true),
    current_setting('synchronous_standby_names', true))
"""
"""What a reply rests on, a line each; nothing in the place of what a server does not know."""

# Beside another program's long transaction the old versions of a row stay. They are passed over one
# by one, unless the search begins with the newest: as it does where an order is asked for that the
# index has backwards. (With = in the place of BETWEEN there would be nothing to order.)

COMMIT: Final = f"""
WITH mine AS (
    SELECT batch FROM fibcore_node
    WHERE (sequence, node) >= ($1, $2) AND (sequence, node) <= ($1, $2) AND batch < $3
    ORDER BY sequence DESC, node DESC LIMIT 1 FOR UPDATE
), moved AS (
    UPDATE fibcore_sequence AS s SET n = s.n + $4 FROM mine
    WHERE s.name = $1 AND ($5::bigint IS NULL OR s.n = $5)
        AND ($6::bigint IS NULL OR s.n + $4 <= $6)
    RETURNING s.n
), noted AS (
    UPDATE fibcore_node AS r SET batch = $3, n = moved.n, written = now() FROM moved
    WHERE r.sequence = $1 AND r.node = $2
    RETURNING r.n
)
SELECT n, {BASIS} FROM noted
"""

# The statement sees the keys that there were when it began. One that was committed since, as it
# waited for the row, has it fail, and it is run again; one that was dropped since is told by
# ``dropped``, which is looked at in the row as it is now. Where that is null there were no keys.

COMMIT_KEYS: Final = f"""
WITH mine AS (
    SELECT batch FROM fibcore_node
    WHERE (sequence, node) >= ($1, $2) AND (sequence, node) <= ($1, $2) AND batch < $3
    ORDER BY sequence DESC, node DESC LIMIT 1 FOR UPDATE
), moved AS (
    UPDATE fibcore_sequence AS s SET n = s.n + $4, dropped = coalesce(s.dropped, s.n) FROM mine
    WHERE s.name = $1 AND ($5::bigint IS NULL OR s.n = $5)
        AND ($6::bigint IS NULL OR s.n + $4 <= $6)
        AND coalesce(s.dropped, s.n) <= $9::bigint AND s.n >= $10::bigint
        AND NOT EXISTS (SELECT FROM fibcore_key WHERE sequence = $1 AND key = ANY ($7::uuid[]))
    RETURNING s.n
), kept AS (
    INSERT INTO fibcore_key (sequence, key, n)
    SELECT $1, each.key, moved.n - $4 + each.place
    FROM moved, unnest($7::uuid[], $8::bigint[]) AS each (key, place) WHERE each.place > 0
), noted AS (
    UPDATE fibcore_node AS r SET batch = $3, n = moved.n, written = now() FROM moved
    WHERE r.sequence = $1 AND r.node = $2
    RETURNING r.n
)
SELECT n, {BASIS} FROM noted
"""

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
SELECT s.n, r.batch, r.n, {BASIS} FROM fibcore_sequence AS s
LEFT JOIN fibcore_node AS r ON r.sequence = s.name AND r.node = $2
WHERE s.name = $1
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
    """A session of one process."""

    _connection: Connection

    def __init__(
        self,
        engine: "PostgresqlEngine",
        process: uuid.UUID | None,
        record: uuid.UUID | None,
        connection: Connection,
    ) -> None:
        self._process = process
        self._has_doubts = False
        self._confirms = False
        super().__init__(engine, record, connection)

    def _begin(self) -> None:
        self._connection.add_notice_handler(self._hear)
        version = self._connection.info.server_version // 10_000
        if version < OLDEST:
            raise EngineTooOldError(self._where, f"PostgreSQL {version}", str(OLDEST))
        if self._process is None:
            return
        # A statement of ours that still waits there, for a standby or for a lock, waits for
        # nobody; and there are only so many connections.
        with contextlib.suppress(EngineUnavailableError, DatabaseInvalidError):
            self._ask(END_OTHERS, name_of(self._process))
        self.warnings = self._look_for_warnings()
        # Whether this role may do all of it: a batch that there can't be any more.
        self._ask(COMMIT, self._sequence, uuid.UUID(int=0), 0, 0, None, None)

    def _hear(self, notice: psycopg.errors.Diagnostic) -> None:
        # "canceling wait for synchronous replication": the reply will be as if it had been waited.
        # It has no code of its own, and its text is in the server's language: so it goes by where
        # it comes from, or, if that is not said, any warning is taken for it.
        if notice.severity_nonlocalized == "WARNING":
            source = notice.source_file
            self._has_doubts |= source is None or source.endswith("syncrep.c")

    def _look_for_warnings(self) -> tuple[DurabilityWarning, ...]:
        row = self._ask(SETTINGS)
        assert row is not None
        (self._basis,) = row
        in_recovery, fsync, full_page_writes, commit, standby_names = self._basis.split("\n", 4)
        if in_recovery == "t":
            raise EngineUnavailableError(self._where, "it is a standby, not the primary")
        found = []
        if fsync == "off":
            found.append(DurabilityWarning("fsync=off", Risk.RUIN))
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
        return (self._look_for_warnings(), self._basis) == before

    def commit(self, batch: Batch) -> int:
        row = self._try_keys(batch) if batch.keys else self._try(COMMIT, batch)
        if row is None:
            row = self._reply(ASK, self._sequence, self._record)
            if row is None:
                raise SequenceMissingError(self._where, self._sequence)
            index, number, reached = row
            is_done = number is not None and int(number) == batch.number
            conflict = None if is_done else self._conflict(batch, int(index))
            if number is None or (
                self._confirms and self._ask(TOUCH, self._sequence, self._record) is None
            ):
                raise RecordGoneError("the record of this process is gone")
            if conflict is not None:
                raise conflict
            return int(reached)
        return int(row[0])

    def _try(self, statement: str, batch: Batch, *more: object) -> tuple[Any, ...] | None:
        return self._reply(statement, self._sequence, self._record, *batch[:4], *more)

    def _try_keys(self, batch: Batch) -> tuple[Any, ...] | None:
        """Do a batch with keys; make the tables for these, if this role may and they are missing.

        Raises:
            KeysUnavailableError: there are none.
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
        """Why ``batch`` was not done, where its record is there."""
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
        if self._confirms:
            row = self._reply(READ_CONFIRMED, self._sequence, self._record)
            if row is None:
                raise RecordGoneError("the record of this process is gone, or the sequence")
        else:
            row = self._reply(READ, self._sequence)
            if row is None:
                raise SequenceMissingError(self._where, self._sequence)
        return int(row[0])

    def _reply(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        """The reply to a statement that asks for its basis as well, without that."""
        row = self._ask(statement, *values)
        if row is None:
            return None
        *reply, basis = row
        if basis != self._basis:
            raise ReplyLostError("the server is set in another way than when it was connected to")
        return tuple(reply)

    def _ask(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        """Run one statement, which is a transaction; return its first row, as text."""
        with explained(self._connection, self._where, self._sequence):
            for _ in range(RETRIES):
                try:
                    row = self._connection.ask(statement, *values)
                    break
                except (
                    errors.SerializationFailure,
                    errors.DeadlockDetected,
                    errors.UniqueViolation,
                ):
                    continue
            else:
                row = self._connection.ask(statement, *values)
        if self._has_doubts:
            raise ReplyLostError("the server has warned that a commit may not be on its standbys")
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
                        "UPDATE fibcore_sequence SET dropped = n WHERE name = %s",
                        (self._sequence,),
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
    """Make what is missing of ``schema``, in a transaction."""
    # IF NOT EXISTS is no lock: of two that make a table at once one would fail.
    execute("SELECT pg_advisory_xact_lock(hashtext('fibcore'))")
    for statement in schema:
        execute(statement)


def names_of(keys: Iterable[Key]) -> str:
    """The digests of keys as an array of PostgreSQL's."""
    return f"{{{','.join(key.digest.hex() for key in keys)}}}"


def name_of(process: uuid.UUID | None) -> str:
    """What the connections of a process are called there."""
    return f"fibcore {process or 'command'}"


class PostgresqlEngine(Engine):
    """The sequence ``sequence`` in the database at ``url``.

    Args:
        url: as libpq takes it.
        sequence: the name of the sequence.

    Raises:
        ValueError: the URL can't be understood; the message has no password in it.
    """

    def __init__(self, url: str, sequence: str) -> None:
        try:
            conninfo.timeout_from_conninfo(conninfo.conninfo_to_dict(url))
        except psycopg.ProgrammingError as error:
            raise ValueError(without_secrets(str(error).strip(), url)) from None
        self._url = url
        self.where = shown(url)
        self.sequence = sequence

    def connect(self, process: uuid.UUID | None, record: uuid.UUID | None) -> PostgresqlLink:
        connection = connect(self._url, self.where, name_of(process))
        return PostgresqlLink(self, process, record, connection)
