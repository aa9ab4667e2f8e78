"""The names of all the files of an embedded store, which stand in this module and nowhere else.

All lie beside the database and begin with its name: a copy, a link or another folder would part
them, and each guards the others.
"""

import os
from pathlib import Path
from typing import Final

SQLITE_SUFFIXES: Final = ("", "-journal", "-shm", "-wal")
"""What SQLite makes of a database's name for its files, the database first."""


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


def lock_path(database: Path) -> Path:
    """The writer's lock of ``database``."""
    return _beside(database, ".lock")


def takeovers_path(database: Path) -> Path:
    """What is known of the takeovers of ``database``."""
    return _beside(database, ".takeovers")


def new_path(database: Path) -> Path:
    """What is to take the place of ``database`` in one step, while it is being written."""
    return _beside(database, ".new")


def aside_path(database: Path) -> Path:
    """A free name for a database that is not trusted and is kept, with what SQLite has of it."""
    number = 1
    while any(
        os.path.lexists(f"{database}.invalid-{number}{suffix}") for suffix in SQLITE_SUFFIXES
    ):
        number += 1
    return _beside(database, f".invalid-{number}")


def own_files(database: Path) -> list[Path]:
    """Every file that the store at ``database`` keeps, whether it is there or not."""
    sqlite = [_beside(database, suffix) for suffix in SQLITE_SUFFIXES]
    return [
        *sqlite,
        lock_path(database),
        high_water_mark_path(database),
        backup_copy_path(database),
        takeovers_path(database),
    ]
