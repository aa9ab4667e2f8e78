"""The embedded store before it is open: standing by, and what a person does to it."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from fibcore.problems import FolderUnusableError, StoreUnavailableError
from fibcore.stores import Description, Moved, files, sqlite_admin, sqlite_file
from fibcore.stores.high_water_mark import read
from fibcore.stores.keys import DEFAULT_MAX_KEYS
from fibcore.stores.lock import WriterLock
from fibcore.stores.sqlite import SqliteStore, Synchronous


class SqliteOpener:
    """The database at ``path``, for the one process at a time that holds its writer's lock.

    A process keeps the lock until it exits: nothing here releases it.
    """

    def __init__(
        self,
        path: Path,
        synchronous: Synchronous = "full",
        max_keys: int = DEFAULT_MAX_KEYS,
    ) -> None:
        self._path = path
        self._max_keys = max_keys
        self._synchronous = synchronous
        self._lock: WriterLock | None = None

    @property
    def where(self) -> str:
        """The path of the database."""
        return str(self._path)

    def stand_by(self, report: Callable[[int | None], None]) -> None:
        """Take the writer's lock, waiting until it is free.

        The folder of the database is created if it is missing.

        Raises:
            FolderUnusableError: its folder is not one.
            StoreUnavailableError: a missing right, no space, no descriptors, or a disk error.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._lock is None:
                self._lock = WriterLock(self._path)
            if not self._lock.acquire(wait=False):
                report(self._lock.holder())
                self._lock.acquire(wait=True)
        except OSError as error:
            problem = sqlite_file.explain(error, files.lock_path(self._path))
            if isinstance(problem, StoreUnavailableError):
                raise problem from error
            raise FolderUnusableError(self._path, str(error)) from error

    def peek(self) -> int | None:
        with contextlib.suppress(StoreUnavailableError):
            record = read(self._path)
            return None if record is None else record.index
        return None

    def open(self) -> SqliteStore:
        assert self._lock is not None, "stand_by comes first"
        return SqliteStore(self._path, self._synchronous, self._max_keys)

    sequence: Final = None
    """A file holds a single sequence."""

    def describe(self) -> Description:
        return sqlite_admin.describe(self._path)

    def create(self, index: int = 0) -> int | None:
        return sqlite_admin.create(self._path, index)

    def set_index(self, index: int, *, lower: bool = False) -> Moved:
        return sqlite_admin.set_index(self._path, index, lower=lower)

    def backup(self, target: Path) -> int:
        return sqlite_admin.backup(self._path, target)

    def alone(self) -> AbstractContextManager[None]:
        return sqlite_admin.alone_with(self._path)
