"""The embedded store before it is open: standing by, and what a person does to it.

The database is one index, so restoring it means setting it. An interrupted command leaves the
database at the old index, or at the new one, or invalid until the command is repeated.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from fibcore.problems import (
    CopyFailedError,
    DatabaseInvalidError,
    FolderUnusableError,
    ForeignDatabaseError,
    InUseError,
    LowerError,
    OwnFileError,
    StoreNotThereError,
    StoreProblem,
    StoreUnavailableError,
)
from fibcore.stores import Beside, Description, Moved, files, high_water_mark, sqlite_file
from fibcore.stores.copies import check_target
from fibcore.stores.high_water_mark import Evidence, HighWaterMark, with_evidence
from fibcore.stores.keys import DEFAULT_MAX_KEYS
from fibcore.stores.lock import WriterLock, server_of
from fibcore.stores.sqlite import SqliteStore, Synchronous


class SqliteOpener:
    """The database at ``path``; one process at a time holds its writer's lock.

    A server keeps the lock until it exits: nothing here releases the lock of ``stand_by``.
    """

    sequence: Final = None
    """A file holds a single sequence."""

    def __init__(
        self, path: Path, synchronous: Synchronous = "full", max_keys: int = DEFAULT_MAX_KEYS
    ) -> None:
        self._path, self.where = path, str(path)
        self._max_keys = max_keys
        self._synchronous = synchronous
        self._lock: WriterLock | None = None

    def stand_by(self, report: Callable[[int | None], None]) -> None:
        """Take the writer's lock, waiting until it is free.

        The folder of the database is created if it is missing.

        Raises:
            FolderUnusableError: its folder can't be created or used.
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
            record = high_water_mark.read(self._path)
            return None if record is None else record.index
        return None

    def open(self) -> SqliteStore:
        assert self._lock is not None, "stand_by comes first"
        return SqliteStore(self._path, self._synchronous, self._max_keys)

    def describe(self) -> Description:
        # Read before the database: if a server steps in between, the mark must not be ahead.
        record = high_water_mark.read(self._path)
        backup_copy: int | StoreProblem | None
        try:
            backup_copy = sqlite_file.verify_file(files.backup_copy_path(self._path))
        except StoreNotThereError:
            backup_copy = None
        except StoreProblem as error:
            backup_copy = error
        index, problem = 0, None
        try:
            index = verified_index(self._path)
        except DatabaseInvalidError as error:
            problem = error
        try:
            server = server_of(self._path)
        except OSError as error:
            raise sqlite_file.unavailable(error, files.lock_path(self._path)) from error
        return Description(index, problem, beside=Beside(server, record, backup_copy))

    def create(self, index: int = 0) -> int | None:
        with sqlite_file.explained(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            is_there = files.is_there(self._path)
        if is_there:
            return verified_index(self._path)
        with self.alone():
            sqlite_file.create(self._path, index)
        return None

    def set_index(self, index: int, *, lower: bool = False) -> Moved:
        """Set the database to ``index``; its folder must exist.

        A file that can't be trusted, or has lost steps, is kept under another name.
        """
        database = self._path
        with self.alone():
            evidence = Evidence.of(database)
            try:
                before = verified_index(database)
            except ForeignDatabaseError:
                raise
            except DatabaseInvalidError:
                before = None
            known = max(evidence.largest, before or 0)
            if index < known and not lower:
                raise LowerError(database, index, known)
            _drop_higher_backup_copy(database, index)
            if before is not None:
                kept = None
                with contextlib.closing(SqliteStore(database)) as store:
                    if index != before:  # Otherwise nothing is set, and no key is dropped.
                        store.set_index(index)
                _move_high_water_mark(database, index)
            else:
                # The mark first: until the file is written, a missing or older one is then invalid.
                _move_high_water_mark(database, index)
                with sqlite_file.explained(database):
                    kept = _set_aside(database)
                sqlite_file.write(database, index)
            # supervise.backup may have made one meanwhile.
            _drop_higher_backup_copy(database, index)
            return Moved(before, kept)

    def backup(self, target: Path) -> int:
        own = {each.name for each in files.own_files(self._path)}
        if target.name in own and target.parent.resolve() == self._path.parent.resolve():
            raise OwnFileError(target)
        check_target(target)
        verified_index(self._path)
        with contextlib.closing(sqlite_file.connect(self._path, mode="ro")) as connection:
            try:
                return sqlite_file.copy(connection, self._path, target)
            except StoreProblem as error:
                raise CopyFailedError(target, str(error.__cause__ or error.reason)) from error

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the writer's lock."""
        with contextlib.ExitStack() as as_owner:
            with sqlite_file.explained(self._path):
                as_owner.enter_context(_as_owner_of(self._path.parent))
                lock = WriterLock(self._path)
            try:
                if not lock.acquire(wait=False):
                    raise InUseError(self._path, lock.holder())
                yield
            finally:
                lock.release()


def verified_index(database: Path) -> int:
    """Return the index of a database that has lost no steps; a server may be stepping it.

    Raises:
        DatabaseInvalidError, StoreUnavailableError: as when a server starts.
    """
    with with_evidence(database):
        evidence = Evidence.of(database)
        try:
            connection = sqlite_file.connect(database, mode="ro")
        except StoreNotThereError:
            sqlite_file.reject_remains(database)
            raise
        with contextlib.closing(connection):
            return evidence.resume_index(sqlite_file.verify(connection, database))


@contextlib.contextmanager
def _as_owner_of(folder: Path) -> Iterator[None]:
    """As root, create files as the owner of the folder, who could not use root's files."""
    owner = folder.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        yield
        return
    group = os.getegid()
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)


def _move_high_water_mark(database: Path, index: int) -> None:
    HighWaterMark(database, "full", index, lower=True).close()


def _drop_higher_backup_copy(database: Path, index: int) -> None:
    """Remove a backup copy that would be evidence against ``index``."""
    backup_copy = Evidence.of(database).backup_copy
    if backup_copy is not None and backup_copy > index:
        files.backup_copy_path(database).unlink(missing_ok=True)
        sqlite_file.sync(database.parent)


def _set_aside(database: Path) -> Path | None:
    """Rename the database and SQLite's files beside it; return the new name."""
    aside = files.aside_path(database)
    kept = None
    # The database first: its files without it are invalid, a database without its WAL is not.
    for suffix in files.SQLITE_SUFFIXES:
        part = database.with_name(database.name + suffix)
        if files.is_there(part):
            kept = aside
            part.rename(aside.with_name(aside.name + suffix))
    return kept
