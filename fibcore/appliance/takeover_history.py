"""How often the server was taken over, and after what: kept beside the database, across processes.

It is for people to look at, and nothing depends on it: where it can't be written, it is not.
"""

import contextlib
import json
import threading
import time
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

from fibcore.stores.files import new_path, takeovers_path

Ending: TypeAlias = Literal["stopped", "failed", "hung", "killed"]
"""How a server ended: it was told to stop; a commit failed; the watchdog ended it; or, where there
was nobody to say, it was killed or has crashed."""

NOTE_SECONDS: Final = 1.0
"""How long a process that ends waits for a disk that may hang."""


class Takeovers(NamedTuple):
    """What is known of takeovers."""

    number: int = 0
    """Since the database was made."""
    at: float | None = None
    """When the last one was, in seconds since 1970."""
    after: Ending | None = None
    """How the server before ended."""
    seconds: float | None = None
    """From the last answer of the server before until this one served, as far as that is known."""


def note_ending(database: Path, ending: Ending, silent: float = 0.0) -> None:
    """Say, for the process that takes over, how the server of ``database`` ends.

    Args:
        silent: seconds since it last answered.
    """
    note = (database, ending, time.time() - silent)
    thread = threading.Thread(target=_note, args=note, daemon=True)
    thread.start()
    thread.join(NOTE_SECONDS)


def _note(database: Path, ending: Ending, since: float) -> None:
    known, _, _ = _read(database)
    _write(database, known, ending, since)


def record(database: Path, seconds: float | None) -> Takeovers:
    """Take in that this process serves now; return what is known of takeovers.

    Args:
        database: the one that is served.
        seconds: since the standby got the lock; None if there was no server to take over from.
    """
    known, ending, since = _read(database)
    if seconds is not None:
        now = time.time()
        # The clock may have been set meanwhile: it was for no less than the takeover.
        seconds = max(seconds, now - (since or now))
        known = Takeovers(known.number + 1, now, ending or "killed", seconds)
    if seconds is not None or ending is not None:
        _write(database, known)
    return known


def _read(database: Path) -> tuple[Takeovers, Ending | None, float | None]:
    try:
        found = json.loads(takeovers_path(database).read_text())
        since = found.get("since")
        return Takeovers(*found["takeovers"]), found["ending"], since and float(since)
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return Takeovers(), None, None


def _write(
    database: Path, known: Takeovers, ending: Ending | None = None, since: float | None = None
) -> None:
    path = takeovers_path(database)
    new = new_path(path)
    with contextlib.suppress(OSError):
        new.write_text(json.dumps({"takeovers": known, "ending": ending, "since": since}))
        new.replace(path)
