"""The records that ended processes have left in an engine, and their removal, a piece at a time.

Any record may be removed at any time: a batch is done only if its record is there, so that removing
one never has a batch done twice (see ``engine``). But a process that is in doubt about a batch ends
without an answer if its record is gone, so that only those are removed that nothing has been
written to while this process watched for ``UNCHANGED_SECONDS``. No clock but the monotonic one of
this process is asked, and no time is read from a record.
"""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from fibcore.stores.link import Link

Records: TypeAlias = Mapping[str, str]
"""What identifies the present version of a record, by the record's name."""

PIECE: Final = 100
"""Records that are read, or removed, in one question."""

RECORD: Final = re.compile(
    "(?P<name>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})="
    "(?P<number>[0-9]+) (?P<reached>[0-9]+)( [0-9]+)?"
)
"""A record's name and what it holds, where that is text: nothing else is ever removed."""

PAUSE_SECONDS: Final = 1.0
"""Between two such questions, and before the first: whoever connects has better things to do."""

UNCHANGED_SECONDS: Final = 3600.0

MAX_WATCHED: Final = 10_000
"""Records that are watched at the same time: some 2 MB."""


class Cleaner:
    """What one process has seen of the records of others.

    Args:
        clock: tells seconds, and is never put back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._next = clock() + PAUSE_SECONDS
        self._after = ""
        self._watched: dict[str, str] = {}
        self._has_watched = False
        """Whether those that are watched are to be removed now."""

    def is_due(self) -> bool:
        """Whether it is time for another piece."""
        return self._clock() >= self._next

    def do_a_piece(self, link: "Link", own: str) -> None:
        """Look at some more records, or remove some.

        Args:
            link: to the engine.
            own: the name of this process's record.

        Raises:
            ReplyLostError, EngineUnavailableError, DatabaseInvalidError: as the calls of ``Link``.
                It is tried again much later.
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
