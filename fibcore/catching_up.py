"""Moving a sequence to a later index the cheaper way: by additions, or computed from scratch."""

from typing import Final

from fibcore._sequence import Sequence

ADDITIONS: Final = 500
INDEXES_PER_ADDITION: Final = 3_000
"""Additions that cost about as much as computing a number from scratch: 350 to 800 up to index
1,000,000 and 3,400 at 10,000,000 (``Sequence(n)`` compared with ``advance``, on one core)."""

AT_ONCE: Final = 64
"""For up to 64 steps at a time ``Sequence.advance`` adds; for more it computes a new number."""


def is_near(sequence: Sequence, index: int) -> bool:
    """Whether additions are the cheaper way to ``index``."""
    behind = index - sequence.index
    return 0 <= behind <= max(ADDITIONS, index // INDEXES_PER_ADDITION)


def advance_to(sequence: Sequence, index: int) -> None:
    """Move ``sequence`` forward to ``index``, if it is not there already.

    Raises:
        ValueError, MemoryError: as ``Sequence.advance``.
    """
    if not is_near(sequence, index):
        sequence.advance(index - sequence.index)
        return
    while (behind := index - sequence.index) > 0:
        sequence.advance(min(behind, AT_ONCE))
