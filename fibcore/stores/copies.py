"""Copies of a sequence: files in the format of the embedded store, wherever the sequence lives."""

import os
from pathlib import Path

from fibcore.problems import (
    CopyInvalidError,
    CopyMissingError,
    DatabaseInvalidError,
    InTheWayError,
    NoFolderError,
    StoreNotThereError,
)
from fibcore.stores import sqlite_file
from fibcore.stores.files import high_water_mark_path, is_there, lock_path


def check_target(target: Path) -> None:
    """Check that a copy may be written to ``target``: it does not exist, or is an older copy.

    Raises:
        NoFolderError, InTheWayError: it may not.
        StoreUnavailableError: that can't be found out.
    """
    if not target.parent.is_dir():
        raise NoFolderError(target, f"there is no folder {target.parent}")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise NoFolderError(target, f"this user may not write to {target.parent}")
    with sqlite_file.explained(target):
        exists = is_there(target)
        # A copy has no files of its own; a server would go on writing to the file that is replaced.
        beside = [
            each for each in (lock_path(target), high_water_mark_path(target)) if is_there(each)
        ]
    if beside:
        raise InTheWayError(target, f"a server has used it ({beside[0].name} is beside it)")
    if exists:
        try:
            sqlite_file.verify_file(target)
        except DatabaseInvalidError as error:
            raise InTheWayError(target, error.reason) from error


def index_of(copy: Path) -> int:
    """The index of a good copy.

    Raises:
        CopyInvalidError: it is not a good copy.
    """
    try:
        return sqlite_file.verify_file(copy)
    except StoreNotThereError as error:
        raise CopyMissingError(copy, error.reason) from error
    except DatabaseInvalidError as error:
        raise CopyInvalidError(copy, error.reason) from error
