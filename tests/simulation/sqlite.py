"""A simulated SQLite, as the embedded store uses it: a database of few pages and its WAL.

The file format is simplified. The order of writes, the syncs, and what a reader considers committed
are SQLite's (https://sqlite.org/walformat.html and ``wal.c``): frames with salts and a cumulative
checksum; an index of the WAL in memory, which the first connection rebuilds; checkpoints up to the
oldest reader; a WAL that restarts when it is fully checkpointed and unused.
"""

import contextlib
import functools
import os as real_os
import re
import sqlite3 as real_sqlite3
import struct
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import unquote
from zlib import crc32

from tests.simulation.disk import OpenFile
from tests.simulation.sqlite_wal import (
    FRAME_SIZE,
    KEYS,
    PAGE,
    ROW,
    SHARED,
    WAL_HEADER_SIZE,
    WAL_MAGIC,
    Shared,
)
from tests.simulation.system import calling_machine_process, name_of, namespace

MAGIC: Final = b"SQLite format 3\0"
HEADER: Final = struct.Struct(">16sIIB")
"""The first page: application id, format version, whether there is a WAL."""
MAX_KEY_ROWS: Final = 16
"""The database has room for so many rows of keys."""
Pages = dict[int, bytes]


def failure(code: int, text: str) -> real_sqlite3.OperationalError:
    """Return an error with its code."""
    made = real_sqlite3.OperationalError(text)
    made.sqlite_errorcode = code
    return made


class Cursor:
    def __init__(self, rows: list[tuple[Any, ...]] | None = None, rowcount: int = -1) -> None:
        self._rows = rows or []
        self.rowcount = rowcount

    def fetchone(self) -> tuple[Any, ...]:
        return self._rows[0]

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self._rows)

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self._rows


class Connection:
    """``sqlite3.Connection`` in autocommit mode."""

    def __init__(
        self,
        name: object,
        *,
        uri: bool = False,
        timeout: float = 5.0,
        isolation_level: None = None,  # noqa: ARG002
        check_same_thread: bool = True,  # noqa: ARG002
    ) -> None:
        self._process = calling_machine_process()
        self._disk = self._process.disk
        path, _, query = str(name).removeprefix("file:").partition("?")
        self._name = name_of(unquote(path) if uri else path)
        self._read_only = "mode=ro" in query
        self._immutable = "immutable" in query
        self._timeout = timeout
        self._synchronous = "full"
        self._autocheckpoint = 1000
        self._in_transaction = False
        self._snapshot: int | None = None
        self._changed_pages: Pages = {}
        """Uncommitted pages of the transaction."""
        self._shared: Shared | None = None
        self._wal: OpenFile | None = None
        try:
            self._disk.open(self._name, 0 if uri else real_os.O_CREAT)
        except OSError as error:
            raise failure(real_sqlite3.SQLITE_CANTOPEN, "unable to open database file") from error
        self._inode = self._disk.names[self._name]
        self._file = OpenFile(self._inode)

    # The files.

    def _attach(self) -> None:
        """Open the WAL if the database has one."""
        if self._shared is not None or self._immutable:
            return
        header = self._page_in_file(1)
        if not header[:16].strip(b"\0") or not header[20 + 4]:
            return
        self._disk.pause(1e-5)
        name = f"{self._name}-wal"
        if len(self._inode.cached) == 0:
            self._disk.rename({name: None})
        try:
            self._wal = self._disk.open(name, real_os.O_CREAT)
        except OSError as error:
            raise failure(real_sqlite3.SQLITE_CANTOPEN, "unable to open database file") from error
        shared = SHARED.get(self._inode)
        if shared is None or not shared.connections:
            shared = SHARED[self._inode] = Shared()
            shared.recover(self._wal.inode.cached)
        shared.connections.add(self)
        self._shared = shared
        self._process.at_end.append(self._detach)

    def _detach(self) -> None:
        """Release all locks, as the kernel does at the end of a process."""
        if self._shared is not None:
            self._shared.connections.discard(self)
            self._shared.readers.pop(self, None)
            if self._shared.writer is self:
                self._shared.writer = None
            if self._shared.checkpointer is self:
                self._shared.checkpointer = None

    def _page_in_file(self, number: int) -> bytes:
        start = (number - 1) * PAGE
        return bytes(self._inode.cached[start : start + PAGE]).ljust(PAGE, b"\0")

    def _page(self, number: int) -> bytes:
        """Return a page as this connection sees it."""
        if number in self._changed_pages:
            return self._changed_pages[number]
        try:
            self._disk.maybe_fail_read()
        except OSError as error:
            raise failure(real_sqlite3.SQLITE_IOERR_READ, "disk I/O error") from error
        shared = self._shared
        if shared is not None:
            assert self._wal is not None
            until = len(shared.frames) if self._snapshot is None else self._snapshot
            for at in range(until - 1, -1, -1):
                if shared.frames[at] == number:
                    start = WAL_HEADER_SIZE + at * FRAME_SIZE + 24
                    return bytes(self._wal.inode.cached[start : start + PAGE]).ljust(PAGE, b"\0")
        return self._page_in_file(number)

    def _write(self, file: OpenFile, data: bytes, at: int) -> None:
        try:
            written = self._disk.write(file, data, at)
        except OSError as error:
            code = real_sqlite3.SQLITE_FULL if error.errno == 28 else real_sqlite3.SQLITE_IOERR
            raise failure(
                code, "database or disk is full" if code == 13 else "disk I/O error"
            ) from error
        if written < len(data):
            raise failure(real_sqlite3.SQLITE_FULL, "database or disk is full")

    def _sync(self, file: OpenFile) -> None:
        try:
            self._disk.sync(file)
        except OSError as error:
            raise failure(real_sqlite3.SQLITE_IOERR_FSYNC, "disk I/O error") from error

    # Transactions.

    def _lock(self) -> None:
        """Acquire the write lock."""
        shared = self._shared
        assert shared is not None
        waited = 0.0
        while shared.writer not in (None, self):
            if waited >= self._timeout:
                raise failure(real_sqlite3.SQLITE_BUSY, "database is locked")
            self._disk.world.park(0.2)
            waited += 0.2
        shared.writer = self

    def _commit(self) -> None:
        """Write the changed pages, to the WAL if there is one."""
        pages, self._changed_pages = self._changed_pages, {}
        shared = self._shared
        try:
            if pages and shared is not None:
                self._append(shared, pages)
            elif pages:
                for number, page in sorted(pages.items()):
                    self._write(self._file, page, (number - 1) * PAGE)
                if self._synchronous != "off":
                    self._sync(self._file)
        finally:
            if shared is not None and shared.writer is self:
                shared.writer = None
        if pages and shared is not None and len(shared.frames) >= self._autocheckpoint:
            # A failure is not reported: the WAL keeps growing.
            with contextlib.suppress(real_sqlite3.OperationalError):
                self._checkpoint(shared)

    def _append(self, shared: Shared, pages: Pages) -> None:
        """Append a commit to the WAL."""
        assert self._wal is not None
        frames = shared.frames
        if frames and shared.checkpointed == len(frames) and not any(shared.readers.values()):
            frames, shared.frames, shared.checkpointed = [], [], 0
        if not frames:
            shared.salt = self._disk.world.random.getrandbits(60) + 1
            header = WAL_MAGIC + shared.salt.to_bytes(8, "big")
            shared.checksum = crc32(header)
            whole = header + shared.checksum.to_bytes(4, "big")
            self._write(self._wal, whole.ljust(WAL_HEADER_SIZE, b"\0"), 0)
            if self._synchronous != "off":
                self._sync(self._wal)
        checksum = shared.checksum
        added = []
        for number, page in sorted(pages.items()):
            added.append(number)
            start = struct.pack(">IIQ", number, len(added) == len(pages), shared.salt)
            checksum = crc32(start + page, checksum)
            frame = (start + checksum.to_bytes(4, "big")).ljust(24, b"\0") + page
            at = WAL_HEADER_SIZE + (len(frames) + len(added) - 1) * FRAME_SIZE
            self._write(self._wal, frame, at)
        if self._synchronous == "full":
            self._sync(self._wal)
        shared.checksum = checksum
        shared.frames = [*frames, *added]

    def _checkpoint(self, shared: Shared) -> None:
        """Copy frames that no reader needs from the WAL to the database."""
        assert self._wal is not None
        until = min([len(shared.frames), *(each for each in shared.readers.values() if each)])
        if until <= shared.checkpointed or shared.checkpointer is not None:
            return
        shared.checkpointer = self
        try:
            self._copy_to_database(shared, until)
        finally:
            shared.checkpointer = None

    def _copy_to_database(self, shared: Shared, until: int) -> None:
        assert self._wal is not None
        if self._synchronous != "off":
            self._sync(self._wal)
        last = {shared.frames[at]: at for at in range(until)}
        for number, at in sorted(last.items()):
            start = WAL_HEADER_SIZE + at * FRAME_SIZE + 24
            page = bytes(self._wal.inode.cached[start : start + PAGE])
            self._write(self._file, page, (number - 1) * PAGE)
        if self._synchronous != "off":
            self._sync(self._file)
        shared.checkpointed = until

    # Statements.

    def execute(self, statement: str, values: tuple[Any, ...] = ()) -> Cursor:
        """Execute one of the store's statements."""
        if statement != "BEGIN":  # BEGIN reads no file yet.
            self._attach()
        self._disk.pause(1e-5)
        run, groups = parse_statement(statement)
        return run(self, *groups, *values)

    def _change(self, number: int, page: bytes) -> Cursor:
        if self._read_only:
            raise failure(real_sqlite3.SQLITE_READONLY, "attempt to write a readonly database")
        if self._shared is not None:
            self._lock()
        self._changed_pages[number] = page
        if not self._in_transaction:
            self._commit()
        return Cursor(rowcount=1)

    def begin(self, how: str) -> Cursor:
        if how and self._shared is not None:
            self._lock()
        self._in_transaction = True
        return Cursor()

    def commit(self) -> Cursor:
        self._in_transaction = False
        self._end_reading()
        self._commit()
        return Cursor()

    def _begin_reading(self) -> None:
        if self._shared is not None and self._snapshot is None:
            self._snapshot = len(self._shared.frames)
            # A fully checkpointed WAL is not read.
            if self._shared.checkpointed == self._snapshot:
                self._snapshot = 0
            self._shared.readers[self] = self._snapshot

    def _end_reading(self) -> None:
        self._snapshot = None
        if self._shared is not None:
            self._shared.readers.pop(self, None)

    def header(self) -> tuple[bytes, int, int, int]:
        magic, application, version, has_wal = HEADER.unpack_from(self._page(1))
        return magic, application, version, has_wal

    def set_header(self, *, application: int = -1, version: int = -1, has_wal: int = -1) -> Cursor:
        _, app, ver, wal = self.header()
        fields = (
            app if application < 0 else application,
            ver if version < 0 else version,
            wal if has_wal < 0 else has_wal,
        )
        return self._change(1, HEADER.pack(MAGIC, *fields).ljust(PAGE, b"\0"))

    def application_id(self) -> Cursor:
        magic, application, _, _ = self.header()
        if magic != MAGIC:
            raise corrupt(real_sqlite3.SQLITE_NOTADB, "file is not a database")
        return Cursor([(application,)])

    def journal_mode(self) -> Cursor:
        if not self.header()[3]:
            self.set_header(has_wal=1)
        return Cursor([("wal",)])

    def rows(self) -> Cursor:
        if self._in_transaction:
            self._begin_reading()
        index, digest, there, _, _ = ROW.unpack_from(self._page(2))
        return Cursor([(index, digest)] if there else [])

    def keys_row(self) -> Cursor:
        index, _, _, dropped, seal = ROW.unpack_from(self._page(2))
        return Cursor([(index, dropped, seal)])

    def update(self, index: int, digest: bytes, dropped: int, seal: int, before: int) -> Cursor:
        # The statement reads the row under the lock.
        if self._shared is not None:
            self._lock()
        there, *_ = ROW.unpack_from(self._page(2))
        if there != before:
            if not self._in_transaction and self._shared is not None:
                self._shared.writer = None
            return Cursor(rowcount=0)
        return self.update_unconditionally(index, digest, dropped, seal)

    def update_unconditionally(
        self, index: int, digest: bytes, dropped: int = 0, seal: int = 0
    ) -> Cursor:
        row = ROW.pack(index, digest, 1, dropped, seal)
        return self._change(2, row.ljust(PAGE, b"\0"))

    def page_count(self) -> Cursor:
        """Asked before keys are first stored; reserves space for them."""
        size = len(self._inode.cached)
        self._write(self._file, bytes(max(0, (2 + MAX_KEY_ROWS) * PAGE - size)), size)
        return Cursor([(10**6,)])

    def keys(self) -> Cursor:
        return Cursor([row for _, row in sorted(self._key_rows(), key=lambda each: each[1][0])])

    def _key_rows(self) -> list[tuple[int, tuple[int, bytes, int]]]:
        """Return the rows of keys, each with its page number."""
        found = []
        for number in range(3, 3 + MAX_KEY_ROWS):
            page = self._page(number)
            index, seal, length = KEYS.unpack_from(page)
            if index:
                found.append((number, (index, page[KEYS.size : KEYS.size + length], seal)))
        return found

    def insert_keys(self, index: int, made: bytes, seal: int) -> Cursor:
        taken = {number for number, _ in self._key_rows()}
        number = next(each for each in range(3, 3 + MAX_KEY_ROWS) if each not in taken)
        return self._change(number, (KEYS.pack(index, seal, len(made)) + made).ljust(PAGE, b"\0"))

    def delete_keys(self, up_to: int = sys.maxsize) -> Cursor:
        for number, (index, _, _) in self._key_rows():
            if index <= up_to:
                self._change(number, bytes(PAGE))
        return Cursor()

    def wal_checkpoint(self) -> Cursor:
        shared = self._shared
        assert shared is not None
        self._checkpoint(shared)
        waited = 0.0
        while len(shared.frames) > shared.checkpointed or any(shared.readers.values()):
            if waited >= self._timeout:
                return Cursor([(1, len(shared.frames), shared.checkpointed)])
            self._disk.world.park(0.2)
            waited += 0.2
            self._checkpoint(shared)
        return Cursor([(0, len(shared.frames), shared.checkpointed)])

    def passive_checkpoint(self) -> Cursor:
        assert self._shared is not None
        self._checkpoint(self._shared)
        return Cursor()

    def set(self, name: str, value: str) -> Cursor:
        if name == "synchronous":
            self._synchronous = value
        elif name == "wal_autocheckpoint":
            self._autocheckpoint = int(value)
        elif name == "busy_timeout":
            self._timeout = int(value) / 1000
        return Cursor()

    def backup(self, target: "Connection") -> None:
        """Copy the committed database."""
        self._attach()
        self._begin_reading()
        try:
            pages = {number: self._page(number) for number in range(1, 3 + MAX_KEY_ROWS)}
            for number, page in pages.items():
                if number < 3:
                    self._disk.pause(0.02)
                target._write(target._file, page, (number - 1) * PAGE)
        finally:
            self._end_reading()

    def close(self) -> None:
        """Close it; the last writable connection checkpoints and removes the WAL."""
        shared = self._shared
        if shared is None:
            return
        self._changed_pages.clear()
        self._end_reading()
        if shared.connections == {self} and not self._read_only and shared.writer in (None, self):
            try:
                self._checkpoint(shared)
            except real_sqlite3.OperationalError:
                pass
            else:
                # SQLite's own lock excludes a connection opened meanwhile.
                if shared.checkpointed == len(shared.frames) and shared.connections == {self}:
                    self._disk.rename({f"{self._name}-wal": None})
        self._detach()
        self._shared = None


def corrupt(code: int, text: str) -> real_sqlite3.DatabaseError:
    made = real_sqlite3.DatabaseError(text)
    made.sqlite_errorcode = code
    return made


def integrity(connection: Connection) -> Cursor:
    whole = connection._shared is not None or len(connection._inode.cached) >= 2 * PAGE
    return Cursor([("ok" if whole else "the second page is missing",)])


STATEMENTS: Final[list[tuple[str, Callable[..., Cursor]]]] = [
    (
        r"UPDATE sequence SET n = \?, digest = \?, dropped = \?, seal = \? WHERE id = 1 AND n = \?",
        Connection.update,
    ),
    (r"UPDATE sequence SET n = \?, digest = \? WHERE id = 1", Connection.update_unconditionally),
    ("SELECT n, digest FROM sequence", Connection.rows),
    ("SELECT n, dropped, seal FROM sequence", Connection.keys_row),
    (r"SELECT name FROM pragma_table_info\('sequence'\)", lambda _: Cursor([("seal",)])),
    ("(?:ALTER TABLE sequence ADD|CREATE TABLE keys).*", lambda _: Cursor()),
    ("DELETE FROM keys WHERE n < 0", lambda _: Cursor()),
    (r"DELETE FROM keys(?: WHERE n <= \?)?", Connection.delete_keys),
    (r"INSERT INTO keys VALUES \(\?, \?, \?\)", Connection.insert_keys),
    ("SELECT n, made, seal FROM keys ORDER BY n", Connection.keys),
    ("SELECT n FROM sequence", lambda it: Cursor([it.keys_row().fetchone()[:1]])),
    ("PRAGMA page_count", Connection.page_count),
    ("BEGIN ?(IMMEDIATE)?", Connection.begin),
    ("COMMIT", Connection.commit),
    (r"PRAGMA wal_checkpoint\(RESTART\)", Connection.wal_checkpoint),
    (r"PRAGMA wal_checkpoint\(PASSIVE\)", Connection.passive_checkpoint),
    ("PRAGMA journal_mode = wal", Connection.journal_mode),
    ("VACUUM", lambda _: Cursor()),
    ("PRAGMA application_id", Connection.application_id),
    ("PRAGMA user_version", lambda it: Cursor([(it.header()[2],)])),
    (r"PRAGMA integrity_check\(1\)", integrity),
    ("PRAGMA page_size", lambda _: Cursor([(PAGE,)])),
    (r"PRAGMA user_version = (\d+)", lambda it, n: it.set_header(version=int(n))),
    (r"PRAGMA application_id = (\d+)", lambda it, n: it.set_header(application=int(n))),
    (r"PRAGMA (\w+) = (\w+)", Connection.set),
    ("CREATE TABLE sequence .*", lambda it: it.set_header(has_wal=0)),
    (
        r"INSERT INTO sequence VALUES \(1, \?, \?, \?, \?\)",
        Connection.update_unconditionally,
    ),
]


@functools.cache
def parse_statement(statement: str) -> tuple[Callable[..., Cursor], tuple[str, ...]]:
    """Return the method for a statement, and the statement's parameters."""
    for pattern, run in STATEMENTS:
        found = re.fullmatch(pattern, statement.strip(), re.DOTALL)
        if found:
            return run, found.groups()
    raise NotImplementedError(statement)


sqlite3: Final[Any] = namespace(real_sqlite3, connect=Connection, Connection=Connection)
assert isinstance(sqlite3, types.SimpleNamespace)
