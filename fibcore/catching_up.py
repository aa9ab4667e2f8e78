"""Bringing a sequence to an index that lies ahead, by the cheaper way there."""

from typing import Final

from fibcore._sequence import Sequence

__all__ = ["ADDITIONS", "bring"]

ADDITIONS: Final = 500
"""So many steps cost about as much as a number worked out anew: 350 to 800 of them up to a million
digits, 3,400 at ten million (``Sequence(n)`` beside ``advance``, on one core)."""

AT_ONCE: Final = 64
"""Steps that ``Sequence.advance`` is sure to make by addition."""


def bring(sequence: Sequence, index: int) -> None:
    """Move ``sequence`` forward until it stands at ``index``; not at all if it stands there.

    Raises:
        ValueError, MemoryError: as ``Sequence.advance``.
    """
    behind = index - sequence.index
    if behind > ADDITIONS:
        sequence.advance(behind)
        return
    while behind > 0:
        steps = min(behind, AT_ONCE)
        sequence.advance(steps)
        behind -= steps
