"""Keeps a verified backup copy of the database beside it.

Every few seconds, if the index has moved, it copies the database with SQLite's own backup. The copy
is checked, synced and renamed into place; a good copy is never replaced by a worse one.

**Only an index that the high-water mark proves is copied.** A server that was killed in a commit
leaves a step that can be read, but that a power cut would lose. The backup copy is evidence against
the database, so it must not hold such a step.

The database is opened read-only. Checkpointing the WAL is the server's work, between two commits: a
checkpoint from here would never complete under steady load, so the WAL would grow without bound,
and it would delay a standby that takes over.
"""

import argparse
import contextlib
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fibcore.appliance import process
from fibcore.events import event
from fibcore.problems import (
    DatabaseInvalidError,
    StepsLostError,
    StoreNotThereError,
    StoreProblem,
    explain,
)
from fibcore.stores import files, high_water_mark, sqlite_file

logger = logging.getLogger("backup")

LOGGED_SECONDS: Final = 3600.0
"""How often the copies are logged."""


class BackupCopy:
    """The backup copy of ``database``."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = files.backup_copy_path(database)
        self._problem_path = files.backup_problem_path(database)
        self.index: int | None = None
        """Its index, if known."""
        self._identity: tuple[int, ...] | None = None
        """Of the file that has this index: one that has been replaced or damaged has another."""
        self._error = ""
        self._made = 0
        self._logged = 0.0
        """When a copy was last logged."""

    def refresh(self) -> None:
        """Refresh the copy, or log once why it can't be refreshed.

        The reason is also written beside the database, so that ``/health`` shows it as a warning.
        """
        try:
            self._refresh()
            self._error = ""
            with contextlib.suppress(OSError):
                self._problem_path.unlink(missing_ok=True)
        except StoreProblem as error:
            with contextlib.suppress(OSError):
                self._problem_path.write_text(error.public)
            if str(error) != self._error:
                logger.error(
                    "The backup copy %s was not refreshed. %s",
                    *(self._path, explain(error)),
                    extra=event("backup failed"),
                )
            self._error = str(error)

    def _refresh(self) -> None:
        try:
            connection = sqlite_file.connect(self._database, mode="ro")
        except StoreNotThereError:
            return  # The server creates it, or logs why it can't.
        with contextlib.closing(connection):
            connection.execute("BEGIN")  # What is verified is what is copied.
            index = sqlite_file.verify(connection, self._database)
            kept = self._kept()
            if index == kept:
                return
            if kept is not None and index < kept:
                raise StepsLostError(self._database, index, self._path.name, known=kept)
            mark = high_water_mark.read(self._database)
            if mark is not None and mark.index < index:
                return  # It may not be synced yet: the server that takes over syncs it.
            self.index = sqlite_file.copy(connection, self._database, self._path)
            self._identity = self._identify()
            connection.execute("COMMIT")
            if sqlite_file.read_index(connection, self._database) < self.index:
                # fibcore set-index --lower ran in the meantime, so this copy is now wrong. That
                # command removes a copy with a higher index only after it lowered the database.
                with sqlite_file.explained(self._path):
                    self._path.unlink(missing_ok=True)
        self._made += 1
        if kept is None or time.monotonic() - self._logged > LOGGED_SECONDS:
            logger.info(
                "%s: a verified backup copy at index %d; %d made so far",
                *(self._path, self.index, self._made),
                extra=event("backup", index=str(self.index), made=self._made),
            )
            self._logged = time.monotonic()

    def _kept(self) -> int | None:
        """The index of the existing copy, if it is valid."""
        identity = self._identify()
        if identity is None or identity != self._identity:
            self.index = None
        if identity is not None and self.index is None:
            try:
                self.index = sqlite_file.verify_file(self._path)
                self._identity = identity
            except DatabaseInvalidError:
                logger.warning(
                    "The backup copy %s is damaged. The database is valid, and a new copy replaces "
                    "the damaged one. Check the disk.",
                    self._path,
                    extra=event("backup damaged"),
                )
        return self.index

    def _identify(self) -> tuple[int, ...] | None:
        """What identifies the file and its content; None if there is none."""
        with sqlite_file.explained(self._path):
            if not files.is_there(self._path):
                return None
            found = self._path.lstat()
            return found.st_ino, found.st_size, found.st_mtime_ns


def main(arguments: Sequence[str] | None = None) -> int:
    """Copy until supervisord exits; return a status if there is nothing to do."""
    parser = argparse.ArgumentParser(prog="python -m supervise.backup", description=__doc__)
    parser.add_argument("seconds", type=float, help="interval between two checks of the database")
    options = parser.parse_args(arguments)
    database = process.begin("%(asctime)s %(levelname)s %(message)s").database
    if database is None:
        logger.info("The store is not a local file: its engine is responsible for backups.")
        return 0
    backup_copy = BackupCopy(database)
    logger.info("%s is copied every %g s if its index has changed", database, options.seconds)
    while True:
        backup_copy.refresh()
        time.sleep(options.seconds)


if __name__ == "__main__":
    sys.exit(main())
