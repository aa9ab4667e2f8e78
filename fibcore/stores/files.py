"""The names of all the files of an embedded store, which stand in this module and nowhere else.

All lie beside the database and begin with its name: a copy, a link or another folder would part
them, and each guards the others.
"""

import os
from pathlib import Path
from typing import Final

__all__ = [
    "SQLITE_SUFFIXES",
    "aside_path",
    "lock_path",
    "log_path",
    "mark_path",
    "new_path",
    "own_files",
    "spare_path",
]

SQLITE_SUFFIXES: Final = ("", "-journal", "-shm", "-wal")
"""What SQLite makes of a database's name for its files, the database first."""


def _beside(state: Path, suffix: str) -> Path:
    return state.with_name(state.name + suffix)


def log_path(state: Path) -> Path:
    """SQLite's write-ahead log of the database at ``state``."""
    return _beside(state, "-wal")


def mark_path(state: Path) -> Path:
    """The high-water mark of the database at ``state``."""
    return _beside(state, ".mark")


def spare_path(state: Path) -> Path:
    """The backup copy of the database at ``state``."""
    return _beside(state, ".spare")


def lock_path(state: Path) -> Path:
    """The writer's lock of the database at ``state``."""
    return _beside(state, ".lock")


def new_path(state: Path) -> Path:
    """What is to take the place of ``state`` in one step, while it is being written."""
    return _beside(state, ".new")


def aside_path(state: Path) -> Path:
    """A free name for a database that is not trusted and is kept, with what SQLite has of it."""
    number = 1
    while any(os.path.lexists(f"{state}.refused-{number}{suffix}") for suffix in SQLITE_SUFFIXES):
        number += 1
    return _beside(state, f".refused-{number}")


def own_files(state: Path) -> list[Path]:
    """Every file that the store at ``state`` keeps, whether it is there or not."""
    sqlite = [_beside(state, suffix) for suffix in SQLITE_SUFFIXES]
    return [*sqlite, lock_path(state), mark_path(state), spare_path(state)]
