"""The follower: while another process serves, the standby computes a long number in advance.

At index ten million, computing the number takes 0.35 s, in which nobody would be served after a
takeover. The standby reads the committed index a few times a second and follows it, so that a
takeover needs only a few additions. It does so at the lowest priority, and not at all below index
1,000,000.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from typing import Final, Literal

from fibcore._sequence import MAX_EXACT_INDEX, Sequence
from fibcore.catching_up import AT_ONCE, is_near

logger = logging.getLogger("fibcore")

FOLLOWED_FROM: Final = 1_000_000
"""The index from which on it follows: a number there takes about 25 ms to compute."""

INTERVAL_SECONDS: Final = 0.2
NICENESS: Final = 19


class Follower:
    """Follows a sequence that another process steps, in its own thread from ``start`` to ``stop``.

    Args:
        peek: returns an index that was committed, or None; see ``Opener.peek``.
        integers: as for ``Sequence``. ``uint64`` numbers take no time and are not followed.
        max_index: past this index nothing is served, so nothing is followed.
    """

    def __init__(
        self,
        peek: Callable[[], int | None],
        integers: Literal["exact", "uint64"] = "exact",
        max_index: int = MAX_EXACT_INDEX,
    ) -> None:
        self._peek = peek
        self._max_index = max_index
        self._integers = integers
        self._sequence: Sequence | None = None
        self._has_ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start to follow; a second call does nothing."""
        if self._thread is None and self._integers == "exact":
            self._thread = threading.Thread(target=self._follow, name="follow", daemon=True)
            self._thread.start()

    def stop(self) -> Sequence | None:
        """Stop, and return the sequence as far as it has followed, or None.

        Its index was committed at some time; the database may have moved on.
        """
        if self._thread is None:
            return None
        self._has_ended.set()
        self._thread.join()
        sequence, self._sequence = self._sequence, None
        return sequence

    def _follow(self) -> None:
        # Best effort: not every system allows it.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        # If there is no memory for a number, the takeover reports it.
        with contextlib.suppress(MemoryError, ValueError):
            while not self._has_ended.is_set():
                index = self._peek()
                if index is not None and FOLLOWED_FROM <= index <= self._max_index:
                    self._bring(index)
                self._has_ended.wait(INTERVAL_SECONDS)

    def _bring(self, index: int) -> None:
        sequence = self._sequence
        if sequence is None or not is_near(sequence, index):
            self._sequence = Sequence(index)
            if sequence is None:
                logger.info("following the sequence: the number at index %d is at hand", index)
            return
        # In pieces, so that a takeover need not wait for all additions.
        while sequence.index < index and not self._has_ended.is_set():
            sequence.advance(min(AT_ONCE, index - sequence.index))
