"""Bringing a sequence to an index that lies ahead, by the cheaper way there."""

from typing import Final

from fibcore._sequence import Sequence

ADDITIONS: Final = 500
INDEXES_AN_ADDITION: Final = 3_000
"""So many additions cost about as much as a number worked out anew: 350 to 800 up to the index
1,000,000, 3,400 at 10,000,000 (``Sequence(n)`` beside ``advance``, on one core)."""

AT_ONCE: Final = 64
"""Steps that ``Sequence.advance`` is sure to make by addition."""


def is_near(sequence: Sequence, index: int) -> bool:
    """Whether ``index`` lies ahead so little that additions are the cheaper way there."""
    behind = index - sequence.index
    return 0 <= behind <= max(ADDITIONS, index // INDEXES_AN_ADDITION)


def advance_to(sequence: Sequence, index: int) -> None:
    """Move ``sequence`` forward until it stands at ``index``; not at all if it stands there.

    Raises:
        ValueError, MemoryError: as ``Sequence.advance``.
    """
    if not is_near(sequence, index):
        sequence.advance(index - sequence.index)
        return
    while (behind := index - sequence.index) > 0:
        sequence.advance(min(behind, AT_ONCE))
