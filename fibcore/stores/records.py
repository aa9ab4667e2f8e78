"""Removal of the records that ended processes have left in an engine, a piece at a time.

Removing any record at any time is safe: a batch is applied only if its record exists, so a removal
never causes a second application (see ``engine``). But a process in doubt about a batch exits
without an answer if its record is gone. So only records are removed that have not changed while
this process watched them for ``UNCHANGED_SECONDS``. The only clock used is this process's monotonic
one; no time is read from a record.
"""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from fibcore.stores.link import Link

Records: TypeAlias = Mapping[str, str]
"""The current version of each record, by the record's name."""

PIECE: Final = 100
"""Records read or removed in one request."""

RECORD: Final = re.compile(
    "(?P<name>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})="
    "(?P<number>[0-9]+) (?P<reached>[0-9]+)( [0-9]+)?"
)
"""A record's name and content, where that is text: nothing else is ever removed."""

PAUSE_SECONDS: Final = 1.0
"""Pause between two such requests, and before the first: a new connection is busy."""

UNCHANGED_SECONDS: Final = 3600.0

MAX_WATCHED: Final = 10_000
"""Records watched at the same time: about 2 MB."""


class Cleaner:
    """Watches the records of other processes, and removes the abandoned ones.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._next = clock() + PAUSE_SECONDS
        self._after = ""
        self._watched: dict[str, str] = {}
        self._has_watched = False
        """Whether the watched records are due for removal."""

    def is_due(self) -> bool:
        """Whether it is time for another piece."""
        return self._clock() >= self._next

    def do_a_piece(self, link: "Link", own: str) -> None:
        """Read some more records, or remove some.

        Args:
            link: to the engine.
            own: the name of this process's record.

        Raises:
            ReplyLostError, EngineUnavailableError, DatabaseInvalidError: as the calls of ``Link``.
                The next attempt is much later.
        """
        self._next = self._clock() + UNCHANGED_SECONDS
        if self._has_watched:
            piece = dict(list(self._watched.items())[:PIECE])
            link.remove(piece)
            for name in piece:
                del self._watched[name]
            self._has_watched = bool(self._watched)
        else:
            found, self._after = link.records(self._after)
            self._watched.update(found)
            self._watched.pop(own, None)
            if not self._after or len(self._watched) >= MAX_WATCHED:
                self._has_watched = bool(self._watched)
                return
        self._next = self._clock() + PAUSE_SECONDS
