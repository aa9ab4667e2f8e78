"""The embedded store: one SQLite file, written by the one process that holds its lock."""

import contextlib
import errno
import logging
import os
import sqlite3
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeAlias

from fibcore.events import event
from fibcore.problems import (
    AnotherWriterError,
    CommitFailedError,
    KeysUnavailableError,
    StoreBusyError,
)
from fibcore.stores import IndexConflictError, files, sqlite_file
from fibcore.stores.high_water_mark import Evidence, HighWaterMark, with_evidence
from fibcore.stores.keys import DEFAULT_MAX_KEYS, NO_KEYS, KeptKeys, Keys, check, made_by

logger = logging.getLogger("fibcore")

Synchronous: TypeAlias = Literal["full", "normal", "off"]
"""SQLite's own names: see https://sqlite.org/pragma.html#pragma_synchronous."""

SYNCHRONOUS: Final[tuple[Synchronous, ...]] = ("full", "normal", "off")

WAL_PAGES: Final = 250
"""Pages of WAL, one a commit, after which the next commit moves them into the database.

That costs two syncs, and bounds both the WAL and the part of it that a takeover has to read. It is
not left to another process: one that makes no writer wait never catches up with a steady load, and
a single connection can't run into https://sqlite.org/wal.html#walresetbug.
"""

FRAME_HEADER_SIZE: Final = 24
"""Bytes before each page of the WAL: https://sqlite.org/fileformat2.html#walformat."""

WAL_HEADER_SIZE: Final = 32
"""Bytes before the first of them."""

COPIED_SIZE: Final = 2**20
"""Bytes of the WAL rewritten at a time."""


def wal_reserve(page_size: int) -> int:
    """Bytes allocated for the WAL: for twice ``WAL_PAGES``, as a reader may make it grow."""
    return WAL_HEADER_SIZE + 2 * WAL_PAGES * (FRAME_HEADER_SIZE + page_size)


class SqliteStore:
    """The database at ``path``, open for writing by this process alone.

    The caller holds the writer's lock. One thread at a time may use the object.
    """

    def __init__(
        self,
        path: Path,
        synchronous: Synchronous = "full",
        max_keys: int = DEFAULT_MAX_KEYS,
    ) -> None:
        """Open the database, or create it if there has never been one, and prove it writable.

        Raises:
            DatabaseInvalidError: the database can't be trusted. It has not been changed.
            StoreUnavailableError: the disk is full or failing; try again later.
        """
        self._path, self.where = path, str(path)
        self._max_keys = max_keys
        self._keys: KeptKeys | None = None
        """Read when the first key arrives: a takeover does not wait for it."""
        self._open_files = contextlib.ExitStack()
        with with_evidence(path):
            with sqlite_file.explained(path):
                is_new = not files.is_there(path)
            if is_new:
                sqlite_file.create(path)
                logger.info("%s is a new database, at index 0", path, extra=event("new"))
            self._open(synchronous)

    def _open(self, synchronous: Synchronous) -> None:
        path = self._path
        # A writing connection moves the WAL into the database when it is closed, and rolls back a
        # journal. A file that may turn out to be invalid is therefore read first.
        with contextlib.closing(sqlite_file.connect(path, mode="ro")) as reader:
            # What was written at "off" may be in the page cache alone; what is committed from now
            # on rests on it. Before SQLite takes a lock: closing any descriptor of a file drops the
            # locks of its process (fcntl(2)).
            with sqlite_file.explained(path):
                sqlite_file.sync(path)
            self._index = sqlite_file.verify(reader, path)
            index = Evidence.of(path).resume_index(self._index)
            # While this reader is open, the writer need not read the WAL again.
            self._connection = sqlite_file.connect(path)
            self._open_files.callback(self._connection.close)
            try:
                self._prepare(synchronous, index)
            except BaseException:
                self._open_files.close()
                raise

    def _prepare(self, synchronous: Synchronous, index: int) -> None:
        execute = self._connection.execute
        try:
            execute("PRAGMA synchronous = full")
            execute("PRAGMA journal_mode = wal")
            # Debian's SQLite overwrites what is deleted with zeros, which doubles the pages that a
            # batch with keys writes. Nothing here is secret.
            execute("PRAGMA secure_delete = off")
            (page_size,) = execute("PRAGMA page_size").fetchone()
            self._wal_reserve = wal_reserve(page_size)
            self._wal_reported = self._wal_reserve
            # In this order: what a power cut leaves of the WAL counts over the database, and must
            # not be older than what has been moved there.
            self._rewrite_wal()
            self._empty_wal()
            self._reserve_wal()
            # A commit that is written although it changes nothing. It proves that a step could be
            # committed, it keeps anybody from reading leftovers in the WAL as part of it, and its
            # sync covers everything that has been written to the WAL here.
            execute(f"PRAGMA user_version = {sqlite_file.FORMAT}")
            self._dropped = sqlite_file.prepare_keys(self._connection)
            if index > self._index:
                logger.warning(
                    "The database %s is at index %d and its backup copy at %d. There was a "
                    "power cut, and the level of durability then in use allows it to lose steps. "
                    "The sequence resumes from the backup copy.",
                    self._path,
                    self._index,
                    index,
                    extra=event("recovery", index=str(index), database=str(self._index)),
                )
                # The keys of the steps in between are lost with them.
                self._dropped = index
                # Committed before the high-water mark is taken over: if this is interrupted between
                # the two, no mark of this boot shows that the database is below its backup copy.
                self._move(index)
                self._index = index
            execute(f"PRAGMA synchronous = {synchronous}")
            execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
            # Space that the WAL took while a reader kept it from restarting is given back later.
            execute(f"PRAGMA journal_size_limit = {self._wal_reserve}")
            self._take_over_the_high_water_mark(synchronous)
            self.commit(index)
        except CommitFailedError as error:
            if isinstance(error.__cause__, sqlite3.Error):
                raise sqlite_file.explain(error.__cause__, self._path) from error.__cause__
            raise StoreBusyError(self._path) from error
        except (sqlite3.Error, OSError) as error:
            raise sqlite_file.explain(error, self._path) from error

    def _empty_wal(self) -> None:
        """Move the WAL into the database, unless somebody reads it.

        It is synced before, and the database after that. The WAL keeps its space, and restarts with
        the next commit.

        **A takeover depends on no reader.** A reader may stay in the WAL for hours. It is not
        waited for: ``_rewrite_wal`` has made the WAL good to go on in.
        """
        execute = self._connection.execute
        execute("PRAGMA busy_timeout = 0")
        execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        execute(f"PRAGMA busy_timeout = {round(1000 * sqlite_file.BUSY_SECONDS)}")

    def _rewrite_wal(self) -> None:
        """Overwrite the WAL with its own content, so that the next sync covers all of it.

        The WAL may hold pages whose sync failed in an earlier process, or was never requested: they
        look committed in the page cache, and would be gone after a power cut. After a failed sync
        the kernel considers them written, and puts them on the disk only if they are written again.
        Were they moved into the database before that, a power cut would leave the end of the WAL
        lost and its beginning in force: older pages of it beside newer ones of the database.
        """
        # Keeps others from adding to the WAL, and makes one where there is none.
        self._connection.execute("BEGIN IMMEDIATE")
        self._wal = fd = os.open(files.wal_path(self._path), os.O_RDWR | os.O_CLOEXEC)
        self._open_files.callback(os.close, fd)
        for at in range(0, os.fstat(fd).st_size, COPIED_SIZE):
            _write(fd, os.pread(fd, COPIED_SIZE, at), at)
        self._connection.execute("COMMIT")

    def _reserve_wal(self) -> None:
        """Allocate all the space that the WAL will need, so that no commit needs any.

        With a full disk a server then goes on, or does not start. Without this it would serve
        until the space of its predecessor's WAL is used up, fail, restart, and so on. Also, a
        commit into allocated space changes no metadata, which makes its sync shorter. SQLite takes
        zeros for the end of its WAL.
        """
        # Keeps others from adding to the WAL.
        self._connection.execute("BEGIN IMMEDIATE")
        size = os.fstat(self._wal).st_size
        # It may be larger: because of a reader, or left by another version. Zeros are written,
        # since a file system may deny later what it has only promised. The commit that follows
        # writes to the same file, and its sync covers this.
        _write(self._wal, bytes(max(0, self._wal_reserve - size)), size)
        self._connection.execute("COMMIT")

    def _take_over_the_high_water_mark(self, synchronous: Synchronous) -> None:
        """Record the index of the database while nobody else can move it.

        Normally the writer's lock is enough. The transaction helps if somebody has deleted the lock
        file: a mark that is set back would let steps be lost unnoticed.
        """
        self._connection.execute("BEGIN IMMEDIATE")
        if sqlite_file.read_index(self._connection, self._path) != self._index:
            raise StoreBusyError(self._path)
        self._high_water_mark = HighWaterMark(self._path, synchronous, self._index)
        self._connection.execute("COMMIT")

    exclusive: Final = True
    doubt: Final = None
    warnings: Final = ()
    """None: a level of ``FIB_SYNCHRONOUS`` that may lose steps was chosen by the user."""

    def read(self) -> int:
        """Return the committed index."""
        return self._index

    @property
    def kept_keys(self) -> int | None:
        """Keys kept; None until the first one arrives."""
        return None if self._keys is None else len(self._keys)

    def advance(
        self,
        steps: int,
        expected: int | None = None,
        limit: int | None = None,
        keys: Keys = NO_KEYS,
    ) -> int:
        index = self._index + steps
        if expected not in (None, self._index) or (limit is not None and index > limit):
            raise IndexConflictError(self._index)
        made = self._check(keys) if keys else {}
        if not steps:
            return index
        warned = False
        while True:
            try:
                self.commit(index, made)
            except StoreBusyError:
                # Nothing has been written, so it may be tried again without end.
                if not warned:
                    logger.warning(
                        "Another program has locked the database %s against writing. Nothing is "
                        "lost; steps wait until it unlocks it. End that program.",
                        self._path,
                        extra=event("locked"),
                    )
                warned = True
            else:
                return index

    def _check(self, keys: Keys) -> dict[bytes, int]:
        """Return the steps that new ``keys`` are to make.

        Raises:
            KeyConflictError: some are not new.
            KeysUnavailableError: there is no space for any.
        """
        if self._keys is None:
            try:
                read = sqlite_file.read_keys
                self._keys = read(self._connection, self._path, self._dropped, self._max_keys)
            except (sqlite3.Error, OSError) as error:
                raise KeysUnavailableError(self._path, str(error)) from error
            self._dropped = self._keys.dropped
        check(keys, self._keys.made, self._index, self._dropped)
        return made_by(keys, self._index)

    def commit(self, index: int, made: Mapping[bytes, int] | None = None) -> None:
        """Commit ``index``; when this returns, it is durable at the configured level.

        Args:
            index: no lower, if there are keys.
            made: the indexes of steps, by the digests of their keys, which are new.

        Raises:
            StoreBusyError: another program has locked the database; nothing has been written.
            CommitFailedError: see there.
            AnotherWriterError: another process has written to the database.
        """
        self._commit(index, partial(self._commit_keys, made=made) if made else self._move)

    def _commit(self, index: int, write: Callable[[int], None]) -> None:
        try:
            self._make_room_in_wal()
            write(index)
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
            if code & 0xFF == sqlite3.SQLITE_BUSY:
                # In WAL mode a statement takes the lock for writing before it writes anything.
                raise StoreBusyError(self._path) from error
            raise CommitFailedError(self._path, index, str(error)) from error
        self._index = index
        self._high_water_mark.record(index)

    def _move(self, index: int) -> None:
        cursor = self._connection.execute(
            "UPDATE sequence SET n = ?, digest = ?, dropped = ?, seal = ? WHERE id = 1 AND n = ?",
            (
                index,
                sqlite_file.index_digest(index),
                self._dropped,
                sqlite_file.seal_of(index, self._dropped),
                self._index,
            ),
        )
        if cursor.rowcount != 1:
            raise AnotherWriterError(self._path, index, self._index)

    def _commit_keys(self, index: int, made: Mapping[bytes, int]) -> None:
        """Move the index, and keep the keys, in one transaction."""
        assert self._keys is not None
        execute = self._connection.execute
        text = b"".join(map(sqlite_file.MADE.pack, made, made.values()))
        surplus = self._keys.surplus(self._max_keys)
        execute("BEGIN IMMEDIATE")
        if surplus is not None:
            self._dropped = max(self._dropped, surplus)
            execute("DELETE FROM keys WHERE n <= ?", (surplus,))
        self._move(index)
        row = (index, text, sqlite_file.seal_of(index, text))
        execute("INSERT INTO keys VALUES (?, ?, ?)", row)
        execute("COMMIT")
        if surplus is not None:
            self._keys.drop(surplus)
        self._keys.add(index, made)

    def _drop_keys(self, index: int) -> None:
        """Move the index, and drop all keys, in one transaction.

        **Keys leave only together with the move of** ``dropped`` **that rejects them**: otherwise a
        process that is killed between the two leaves used keys that look new.
        """
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        self._keys, self._dropped = None, index
        execute("DELETE FROM keys")
        self._move(index)
        execute("COMMIT")

    def set_index(self, index: int) -> None:
        """Commit ``index``, which may be lower, and drop all keys; raises as ``commit``."""
        self._commit(index, self._drop_keys)

    def _make_room_in_wal(self) -> None:
        """Move a WAL that has outgrown its space into the database, so that it can restart there.

        A reader, such as a backup, lets it grow. SQLite moves it after a commit, and ignores errors
        of that: under ``full`` they do no harm, since the WAL is on the disk, and is moved again.
        Before a commit, the first one after the reader has left needs no space on a full disk, and
        a WAL that can't be moved does not grow until the disk is full.

        Raises:
            sqlite3.Error: it can't be moved.
        """
        size = os.lseek(self._wal, 0, os.SEEK_END)
        if size > self._wal_reserve:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            if size >= 2 * self._wal_reported:
                self._wal_reported = size
                logger.warning(
                    "The WAL of %s has grown to %d bytes, because another program keeps a read "
                    "transaction open. Nothing is lost, and steps go on until the disk is full, "
                    "but a takeover rewrites the whole WAL before it serves. End that program, or "
                    "its transaction (fuser %s shows who has the database open).",
                    *(self._path, size, self._path),
                    extra=event("wal grows", bytes=size),
                )
        elif self._wal_reported > self._wal_reserve:
            self._wal_reported = self._wal_reserve
            logger.info(
                "The WAL of %s is back at %d bytes.",
                *(self._path, size),
                extra=event("wal shrunk", bytes=size),
            )

    def close(self) -> None:
        """Close the database."""
        self._open_files.close()
        self._high_water_mark.close()


def _write(fd: int, data: bytes, at: int) -> None:
    if os.pwrite(fd, data, at) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
