"""What a person does to a database besides stepping it: set its index, and copy it.

The database is one index, so restoring it means setting it. An interrupted command leaves the
database at the old index, or at the new one, or invalid until the command is repeated.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from fibcore.problems import (
    CopyFailedError,
    DatabaseInvalidError,
    ForeignDatabaseError,
    InUseError,
    LowerError,
    OwnFileError,
    StoreNotThereError,
    StoreUnavailableError,
)
from fibcore.stores import Beside, Description, Moved, files, sqlite_file
from fibcore.stores.copies import check_target
from fibcore.stores.high_water_mark import Evidence, HighWaterMark, read, with_evidence
from fibcore.stores.lock import WriterLock, server_of
from fibcore.stores.sqlite import SqliteStore


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


def describe(database: Path) -> Description:
    """``Opener.describe``."""
    # Read before the database, which may be ahead: a server may be stepping.
    record = read(database)
    backup_copy: int | DatabaseInvalidError | StoreUnavailableError | None
    try:
        backup_copy = sqlite_file.verify_file(files.backup_copy_path(database))
    except StoreNotThereError:
        backup_copy = None
    except (DatabaseInvalidError, StoreUnavailableError) as error:
        backup_copy = error
    index, problem = 0, None
    try:
        index = verified_index(database)
    except DatabaseInvalidError as error:
        problem = error
    try:
        server = server_of(database)
    except OSError as error:
        raise sqlite_file.unavailable(error, files.lock_path(database)) from error
    return Description(index, problem, beside=Beside(server, record, backup_copy))


def create(database: Path, index: int) -> int | None:
    """``Opener.create``."""
    database.parent.mkdir(parents=True, exist_ok=True)
    if database.exists():
        return verified_index(database)
    with alone_with(database):
        sqlite_file.create(database, index)
    return None


def set_index(database: Path, index: int, *, lower: bool = False) -> Moved:
    """Set the database to ``index``, durably, whatever its condition.

    A file that can't be trusted, or has lost steps, is kept under another name.

    Args:
        database: created if there is none; its folder must exist.
        index: from 0 to ``sqlite_file.MAX_INDEX``.
        lower: whether the index may be one that the sequence has passed.

    Raises:
        InUseError, LowerError: nothing has been changed.
        ForeignDatabaseError: another program made the file; nothing has been changed.
        StoreUnavailableError, CommitFailedError, OSError: it may have been set; try again.
    """
    with alone_with(database):
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
                store.set_index(index)
            _move_high_water_mark(database, index)
        else:
            # The mark first: meanwhile a database that is missing or behind is invalid.
            _move_high_water_mark(database, index)
            kept = _set_aside(database)
            sqlite_file.write(database, index)
        # supervise.backup may have made one meanwhile.
        _drop_higher_backup_copy(database, index)
        return Moved(before, kept)


def backup(database: Path, target: Path) -> int:
    """Copy the database to ``target``, verified and durable; a server may be stepping it.

    Args:
        database: its path.
        target: does not exist, or is an older copy, which is replaced atomically.

    Returns:
        The index of the copy.

    Raises:
        InTheWayError: nothing has been changed.
        DatabaseInvalidError, StoreUnavailableError, CopyFailedError: ``target`` is as it was.
    """
    own = {each.name for each in files.own_files(database)}
    if target.name in own and target.parent.resolve() == database.parent.resolve():
        raise OwnFileError(target)
    check_target(target)
    verified_index(database)
    with contextlib.closing(sqlite_file.connect(database, mode="ro")) as connection:
        try:
            return sqlite_file.copy(connection, database, target)
        except (DatabaseInvalidError, StoreUnavailableError) as error:
            raise CopyFailedError(target, str(error.__cause__ or error)) from error


@contextlib.contextmanager
def alone_with(database: Path) -> Iterator[None]:
    """Hold the writer's lock.

    Raises:
        InUseError: another process holds it.
    """
    with _as_owner_of(database.parent):
        lock = WriterLock(database)
        try:
            if not lock.acquire(wait=False):
                raise InUseError(database, lock.holder())
            yield
        finally:
            lock.release()


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
        if os.path.lexists(part):
            kept = aside
            part.rename(aside.with_name(aside.name + suffix))
    return kept
