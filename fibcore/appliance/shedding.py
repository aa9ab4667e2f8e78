"""Says in the log that requests were shed: at once, then while it goes on every few seconds."""

import logging
from collections.abc import Mapping
from typing import Final

from fibcore.admission import Bound
from fibcore.events import event

logger = logging.getLogger("fibcore")

LOOK_SECONDS: Final = 1.0

SAID_SECONDS: Final = 10.0

BOUNDS: Final[dict[Bound, str]] = {
    "waiting": "steps waiting for the disk (FIB_MAX_WAITING_STEPS)",
    "in_flight": "bytes of answers not yet taken (FIB_MAX_ANSWER_BYTES)",
    "connections": "connections, none of them idle (FIB_MAX_CONNECTIONS)",
    "pages": "pages under way",
    "numbers": "numbers waiting to be worked out",
}


class Shedding:
    """What was shed since it was last said.

    Args:
        counts: how many requests were shed, by bound; they only grow.
    """

    def __init__(self, counts: Mapping[Bound, int]) -> None:
        self._counts = counts
        self._said = dict(counts)
        self._said_at = float("-inf")

    def look(self, now: float) -> None:
        """Say what is new, if it is time; ``now`` is in seconds, and is not set back."""
        new = {
            bound: count - self._said.get(bound, 0)
            for bound, count in self._counts.items()
            if count != self._said.get(bound, 0)
        }
        elapsed = now - self._said_at
        if not new or elapsed < SAID_SECONDS:
            return
        seconds = LOOK_SECONDS if elapsed > 2 * SAID_SECONDS else elapsed
        told = ", ".join(f"{count} at the bound on {BOUNDS[bound]}" for bound, count in new.items())
        logger.warning(
            "%d requests of the last %.0f s were answered 503, and have not stepped: %s",
            *(sum(new.values()), seconds, told),
            extra=event("shed", seconds=round(seconds, 3), by=new),
        )
        self._said = dict(self._counts)
        self._said_at = now
