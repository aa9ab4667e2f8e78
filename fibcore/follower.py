"""What a standby does while another process serves: it keeps a long number at hand.

At ten million, working out the number takes 0.35 s, in which nobody would be served after a
takeover. The standby looks where the sequence stands a few times a second, which costs it a small
read, and follows: then a takeover is a few additions. It is as nice as can be about it, and up to
the length at which the number is worked out in no time it does not follow at all.
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
"""The index at which a number takes some 25 ms to work out."""

INTERVAL_SECONDS: Final = 0.2
NICENESS: Final = 19


class Follower:
    """Follows a sequence that others move, in a thread of its own from ``start`` to ``stop``.

    Args:
        peek: tells an index that was committed, or None; see ``Opener.peek``.
        integers: as for ``Sequence``. ``uint64`` is worked out in no time, and not followed.
        max_index: past this index nothing is served, and nothing followed.
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
        """Begin to follow. Starting twice is allowed."""
        if self._thread is None and self._integers == "exact":
            self._thread = threading.Thread(target=self._follow, name="follow", daemon=True)
            self._thread.start()

    def stop(self) -> Sequence | None:
        """Follow no more; return the sequence as far as it came, if there was a reason to follow.

        Where it stands was committed once, and is no more than that.
        """
        if self._thread is None:
            return None
        self._has_ended.set()
        self._thread.join()
        sequence, self._sequence = self._sequence, None
        return sequence

    def _follow(self) -> None:
        # Not everywhere allowed, and no more than good manners.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        # A number for which there is no memory is for the takeover to complain about.
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
                logger.info("the number at index %d is at hand, and is kept so", index)
            return
        # In pieces, so that a takeover need not wait for all of them.
        while sequence.index < index and not self._has_ended.is_set():
            sequence.advance(min(AT_ONCE, index - sequence.index))
