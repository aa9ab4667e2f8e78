"""The names of all files of an embedded store; no other module knows them.

All are beside the database and begin with its name. Each protects the others, so a copy, a link or
another folder must not separate them.
"""

import os
from pathlib import Path
from typing import Final

SQLITE_SUFFIXES: Final = ("", "-journal", "-shm", "-wal")
"""Suffixes of the files that SQLite keeps, the database itself first."""


def _beside(database: Path, suffix: str) -> Path:
    return database.with_name(database.name + suffix)


def wal_path(database: Path) -> Path:
    """SQLite's WAL of ``database``."""
    return _beside(database, "-wal")


def high_water_mark_path(database: Path) -> Path:
    """The high-water mark of ``database``."""
    return _beside(database, ".mark")


def backup_copy_path(database: Path) -> Path:
    """The backup copy of ``database``."""
    return _beside(database, ".backup")


def backup_problem_path(database: Path) -> Path:
    """Why the last attempt to make a backup copy of ``database`` failed; there only if it did."""
    return _beside(database, ".backup-problem")


def lock_path(database: Path) -> Path:
    """The writer's lock of ``database``."""
    return _beside(database, ".lock")


def takeovers_path(database: Path) -> Path:
    """The takeover history of ``database``."""
    return _beside(database, ".takeovers")


def new_path(database: Path) -> Path:
    """The file that will replace ``database`` in one step, while it is being written.

    One that is there is deleted, so its name is none that a person would give a database.
    """
    return _beside(database, ".unfinished")


def is_there(path: Path) -> bool:
    """Whether a file has this name, a link to nothing included.

    ``os.path.lexists`` returns False for a file in a folder that this process may not search, and
    a new sequence would begin where there is one.

    Raises:
        OSError: that can't be found out.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def folder_of(database: Path) -> Path:
    """The folder of ``database``, or the nearest one above it if that does not exist yet."""
    return next(each for each in database.parents if os.path.lexists(each))


def aside_path(database: Path) -> Path:
    """A free name under which an untrusted database is kept, with SQLite's files beside it."""
    number = 1
    while any(
        is_there(_beside(database, f".invalid-{number}{suffix}")) for suffix in SQLITE_SUFFIXES
    ):
        number += 1
    return _beside(database, f".invalid-{number}")


def own_files(database: Path) -> list[Path]:
    """Every file that belongs to the store at ``database``, whether it exists or not."""
    sqlite = [_beside(database, suffix) for suffix in SQLITE_SUFFIXES]
    return [
        *sqlite,
        lock_path(database),
        high_water_mark_path(database),
        backup_copy_path(database),
        backup_problem_path(database),
        takeovers_path(database),
    ]
