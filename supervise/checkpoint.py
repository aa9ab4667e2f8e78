"""The checkpoint listener: keeps a verified spare copy of the state beside it.

At each event it copies the state with SQLite's own backup, if the index has moved. The copy is
checked, synced and renamed into place; a good spare is never replaced by a worse one.

The state is opened read-only. Moving the log into the database is the server's own work, in
between two commits: done from here it would never come to an end under steady load, so that the
log grew without bound, and it would be in the way of a standby that takes over.
"""

import contextlib
import logging
import os
import sys
from pathlib import Path

from fibcore.settings import Settings, SettingsError
from fibcore.stores import (
    StateRefusedError,
    StepsLostError,
    StoreUnavailableError,
    files,
    statefile,
)
from fibcore.words import explain
from supervise.events import events, own_stdout

__all__ = ["Spare", "main"]

logger = logging.getLogger("checkpoint")


class Spare:
    """The spare copy of the state at ``state``."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._path = files.spare_path(state)
        self._index: int | None = None
        self._error = ""

    def refresh(self) -> None:
        """Bring the copy up to the state, or log once why that can't be done."""
        try:
            self._refresh()
            self._error = ""
        except (StateRefusedError, StoreUnavailableError) as error:
            if str(error) != self._error:
                logger.error("The spare copy %s is not refreshed. %s", self._path, explain(error))
            self._error = str(error)

    def _refresh(self) -> None:
        if not self._state.exists():
            return  # The server makes it, or says why it doesn't.
        with contextlib.closing(statefile.connect(self._state, mode="ro")) as connection:
            index = statefile.verify(connection, self._state)
            kept = self._kept()
            if index == kept:
                return
            if kept is not None and index < kept:
                raise StepsLostError(self._state, index, kept, self._path.name)
            self._index = statefile.copy(connection, self._state, self._path)
            if statefile.read_index(connection, self._state) < self._index:
                # fibcore set-index --lower came meanwhile: what was right to copy then is wrong
                # now. It looks for a copy that speaks against it once the state stands lower.
                self._path.unlink(missing_ok=True)
        if kept is None:
            logger.info("%s: a verified spare copy at index %d", self._path, self._index)

    def _kept(self) -> int | None:
        """The index of the copy that is there, if it is good."""
        if not self._path.exists():
            return None
        if self._index is None:
            try:
                self._index = statefile.verify_file(self._path)
            except StateRefusedError:
                logger.warning(
                    "The spare copy %s is no longer what was written: look after the disk. A new "
                    "one takes its place; the state is whole.",
                    self._path,
                )
        return self._index


def main() -> int:
    """Listen until supervisord is gone; return the status to exit with."""
    stdout = own_stdout()
    try:
        settings = Settings.from_environ()
    except SettingsError as error:
        logger.critical("%s", error)
        return os.EX_CONFIG
    spare = Spare(settings.state)
    for _ in events(sys.stdin, stdout):
        spare.refresh()
    return 0


if __name__ == "__main__":
    sys.exit(main())
