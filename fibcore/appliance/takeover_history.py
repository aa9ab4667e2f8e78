"""The history of takeovers: how many there were, and why; kept beside the database.

It is information for people, and nothing depends on it: a failure to write it is ignored.
"""

import contextlib
import json
import threading
import time
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

from fibcore.stores.files import new_path, takeovers_path

Ending: TypeAlias = Literal["stopped", "failed", "hung", "killed"]
"""How a server ended: stopped on request; a commit failed; the watchdog killed it; or, if nothing
was noted, it was killed or crashed."""

ENDINGS: Final[dict[Ending, str]] = {
    "stopped": "was stopped",
    "failed": "exited because a commit failed",
    "hung": "hung and was ended by the watchdog",
    "killed": "was killed or crashed",
}
"""What the previous server did, in the log, in ``fibcore status`` and on the page."""

NOTE_SECONDS: Final = 1.0
"""How long an exiting process waits for a disk that may hang."""


class Takeovers(NamedTuple):
    """The known takeovers."""

    number: int = 0
    """How many since the database was created."""
    at: float | None = None
    """When the last one was, in seconds since 1970."""
    after: Ending | None = None
    """How the previous server ended."""
    seconds: float | None = None
    """From the last answer of the previous server until this one served, if known."""


def note_ending(database: Path, ending: Ending, silent: float = 0.0) -> None:
    """Note, for the process that takes over, how the server of ``database`` ends.

    Args:
        silent: seconds since it last answered.
    """
    note = (database, ending, time.monotonic() - silent)
    thread = threading.Thread(target=_note, args=note, daemon=True)
    with contextlib.suppress(RuntimeError, MemoryError):  # No more threads.
        thread.start()
        thread.join(NOTE_SECONDS)


def _note(database: Path, ending: Ending, since: float) -> None:
    known, _, _ = _read(database)
    _write(database, known, ending, since)


def record(database: Path, seconds: float | None) -> Takeovers:
    """Record that this process serves now; return the known takeovers.

    Args:
        database: the database that it serves.
        seconds: since the standby got the lock; None if there was no server to take over from.
    """
    known, ending, since = _read(database)
    if seconds is not None:
        # A clock that nobody sets, and that all processes since the boot share. A note from before
        # it counts for nothing: what is known is how long the takeover took.
        now = time.monotonic()
        seconds = max(seconds, now - (since or now))
        known = Takeovers(known.number + 1, time.time(), ending or "killed", seconds)
    if seconds is not None or ending is not None:
        _write(database, known)
    return known


def _read(database: Path) -> tuple[Takeovers, Ending | None, float | None]:
    try:
        found = json.loads(takeovers_path(database).read_text())
        number, at, after, seconds = found["takeovers"]
        ending, since = found["ending"], found.get("since")
        if {after, ending} <= {*ENDINGS, None}:
            known = Takeovers(int(number), at and float(at), after, seconds and float(seconds))
            return known, ending, since and float(since)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError):
        pass
    return Takeovers(), None, None


def _write(
    database: Path, known: Takeovers, ending: Ending | None = None, since: float | None = None
) -> None:
    path = takeovers_path(database)
    new = new_path(path)
    with contextlib.suppress(OSError):
        new.write_text(json.dumps({"takeovers": known, "ending": ending, "since": since}))
        new.replace(path)
