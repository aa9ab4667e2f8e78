"""The embedded store: one SQLite file, written by the one process that holds its lock."""

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Final, Literal, TypeAlias

from fibcore.stores import CommitFailedError, StoreUnavailableError, statefile

__all__ = ["SYNCHRONOUS", "SqliteStore"]

Synchronous: TypeAlias = Literal["full", "normal", "off"]
"""SQLite's own names: see https://sqlite.org/pragma.html#pragma_synchronous."""

SYNCHRONOUS: Final[tuple[Synchronous, ...]] = ("full", "normal", "off")

LOG_PAGES: Final = 250
"""Past so many pages of log, one a commit, the commit that wrote them moves them into the database.

That costs two syncs, and bounds both the log and what a takeover has to read of it. It is not left
to another process: one that makes no writer wait never catches up with a steady load, and one
connection alone can't meet https://sqlite.org/wal.html#walresetbug.
"""


class SqliteStore:
    """The state at ``path``, opened to be written by this process alone.

    The caller holds the writer's lock. One thread at a time may use the object.
    """

    def __init__(self, path: Path, synchronous: Synchronous = "full") -> None:
        """Open the state, create it where there has never been one, and prove it writable.

        Raises:
            StateRefusedError: the state can't be trusted. It has not been changed.
            StoreUnavailableError: the disk is full or fails; trying again may help.
        """
        if not os.path.lexists(path):
            statefile.create(path)
        self._path = path
        # A connection that may write moves the log into the database when it is closed, and rolls
        # back what a journal says: not in a file that turns out to be refused.
        with contextlib.closing(statefile.connect(path, mode="ro")) as reader:
            self._index = statefile.verify(reader, path)
            # While this reader is there, the writer need not read the log once more.
            self._connection = statefile.connect(path)
            try:
                self._prepare(synchronous)
            except BaseException:
                self._connection.close()
                raise

    def _prepare(self, synchronous: Synchronous) -> None:
        execute = self._connection.execute
        try:
            execute(f"PRAGMA synchronous = {synchronous}")
            execute("PRAGMA journal_mode = wal")
            execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
            # The log may hold pages whose sync failed in an earlier life: they look committed in
            # the page cache and would be gone after a power cut. Once they are in the database,
            # and that is synced, what is read is what is on disk.
            (busy, _, _) = execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise StoreUnavailableError(
                    f"The state file {self._path} is in use by another program that does not let "
                    f"go of it. Nothing is lost and nothing steps meanwhile. It is tried again "
                    f"every second: end that program."
                )
            # A commit that changes nothing finds out now whether a step could be committed.
            self.commit(self._index)
        except CommitFailedError as error:
            cause = error.__cause__
            assert isinstance(cause, sqlite3.Error)
            raise statefile.explain(cause, self._path) from cause
        except sqlite3.Error as error:
            raise statefile.explain(error, self._path) from error

    def read(self) -> int:
        """Return the committed index."""
        return self._index

    def commit(self, index: int) -> None:
        """Make ``index`` the committed one; when this returns, it is as durable as was asked for.

        Raises:
            CommitFailedError: see there. Also where another process has written to the state.
        """
        try:
            cursor = self._connection.execute(
                "UPDATE sequence SET n = ?, digest = ? WHERE id = 1 AND n = ?",
                (index, statefile.index_digest(index), self._index),
            )
        except sqlite3.Error as error:
            raise CommitFailedError(
                f"The commit of index {index} to {self._path} failed: {error}. Its steps are not "
                f"answered, and whether they are on disk is known only when the state is read "
                f"anew. The process ends, so that the next one does that."
            ) from error
        if cursor.rowcount != 1:
            raise CommitFailedError(
                f"The state {self._path} no longer stands at index {self._index}: another process "
                f"has written to it. Nothing was committed. The process ends, so that the state "
                f"is read anew; end the other program."
            )
        self._index = index

    def close(self) -> None:
        """Close the file; what is committed stays."""
        self._connection.close()
