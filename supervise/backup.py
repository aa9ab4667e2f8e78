"""Keeps a verified backup copy of the database beside it.

Every few seconds, if the index has moved, it copies the database with SQLite's own backup. The copy
is checked, synced and renamed into place; a good copy is never replaced by a worse one.

**Only an index that the high-water mark proves is copied.** A server that was killed in a commit
leaves a step that can be read and would be gone after a power cut. The backup copy is evidence
against the database, so that it must not hold such a step.

The database is opened read-only. Moving the WAL into the database is the server's own work, in
between two commits: done from here it would never come to an end under steady load, so that the
WAL grew without bound, and it would be in the way of a standby that takes over.
"""

import argparse
import contextlib
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fibcore.appliance import process
from fibcore.appliance.settings import Settings
from fibcore.events import event
from fibcore.problems import (
    DatabaseInvalidError,
    SettingsError,
    StepsLostError,
    StoreUnavailableError,
    explain,
)
from fibcore.stores import files, high_water_mark, sqlite_file

logger = logging.getLogger("backup")

SAID_SECONDS: Final = 3600.0  # pragma: no mutate number: a chosen figure
"""How often it is said that copies are made."""


class BackupCopy:
    """The backup copy of ``database``."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = files.backup_copy_path(database)
        self._problem_path = files.backup_problem_path(database)
        self.index: int | None = None
        """Its index, if it is known."""
        self._error = ""
        self._made = 0
        self._said = 0.0  # pragma: no mutate number: a chosen figure
        """When it was last said that one was made, of many alike."""

    def refresh(self) -> None:
        """Bring the copy up to the database, or log once why that can't be done.

        The reason is also left beside the database, for ``/health`` to show as a warning.
        """
        try:
            self._refresh()
            self._error = ""
            with contextlib.suppress(OSError):
                self._problem_path.unlink(missing_ok=True)
        except (DatabaseInvalidError, StoreUnavailableError) as error:
            with contextlib.suppress(OSError):
                self._problem_path.write_text(error.public)
            if str(error) != self._error:
                logger.error(
                    "The backup copy %s is not refreshed. %s",
                    *(self._path, explain(error)),
                    extra=event("backup failed"),
                )
            self._error = str(error)

    def _refresh(self) -> None:
        if not self._database.exists():
            return  # The server makes it, or says why it doesn't.
        with contextlib.closing(sqlite_file.connect(self._database, mode="ro")) as connection:
            connection.execute("BEGIN")  # What is verified is what is copied.
            index = sqlite_file.verify(connection, self._database)
            kept = self._kept()
            if index == kept:
                return
            # pragma: no mutate boundary: where equal, it has returned
            if kept is not None and index < kept:
                raise StepsLostError(self._database, index, self._path.name, known=kept)
            mark = high_water_mark.read(self._database)
            if mark is not None and mark.index < index:
                return  # Nobody has synced it yet, perhaps: the server that takes over does.
            self.index = sqlite_file.copy(connection, self._database, self._path)
            connection.execute("COMMIT")
            if sqlite_file.read_index(connection, self._database) < self.index:
                # fibcore set-index --lower came meanwhile: what was right to copy then is wrong
                # now. It looks for a copy that speaks against it once the database stands lower.
                self._path.unlink(missing_ok=True)
        self._made += 1
        if kept is None or time.monotonic() - self._said > SAID_SECONDS:
            logger.info(
                "%s: a verified backup copy at index %d; %d made so far",
                *(self._path, self.index, self._made),
                extra=event("backup", index=str(self.index), made=self._made),
            )
            self._said = time.monotonic()

    def _kept(self) -> int | None:
        """The index of the copy that is there, if it is good."""
        if not self._path.exists():
            return None
        if self.index is None:
            try:
                self.index = sqlite_file.verify_file(self._path)
            except DatabaseInvalidError:
                logger.warning(
                    "The backup copy %s is no longer what was written: look after the disk. A new "
                    "one takes its place; the database is whole.",
                    self._path,
                    extra=event("backup damaged"),
                )
        return self.index


def main(arguments: Sequence[str] | None = None) -> int:
    """Copy until supervisord is gone; return a status where there is nothing to be done."""
    parser = argparse.ArgumentParser(prog="python -m supervise.backup", description=__doc__)
    parser.add_argument("seconds", type=float, help="from one look at the database to the next")
    options = parser.parse_args(arguments)
    gathered = process.begin("%(asctime)s %(levelname)s %(message)s")
    try:
        database = Settings.of(gathered).database
    except SettingsError as error:
        logger.critical("%s", error, extra=event("invalid"))
        return os.EX_CONFIG
    if database is None:
        logger.info("The store is no file of this machine: its engine keeps its copies.")
        return 0
    backup_copy = BackupCopy(database)
    logger.info("%s is copied every %g s while it is stepped", database, options.seconds)
    while True:
        backup_copy.refresh()
        time.sleep(options.seconds)


if __name__ == "__main__":
    sys.exit(main())
