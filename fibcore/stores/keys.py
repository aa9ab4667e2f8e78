"""Idempotency keys: the step that each has made, and those no longer kept.

**A key is answered, new, or rejected, and never mistaken for new.** The step of a key has a higher
index than the one in the key. A store keeps the keys of the last steps, in the same commit as the
steps, and ``dropped``: no key of a step past that index has been dropped. So a key whose INDEX is
at least ``dropped`` is found if its step was made, and is new otherwise. For an older key that is
not found this can't be known. A key whose INDEX the sequence has not reached comes from another
sequence or from steps that were lost, and would break the rule later. Both are rejected. No clock
is involved.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from fibcore.idempotency_key import Key

DEFAULT_MAX_KEYS: Final = 10_000

MAX_KEYED: Final = 1_000
"""Most keyed steps in a batch, so that a commit stays small and fits into a Redis script."""


Keys: TypeAlias = Mapping[Key, int]
"""The keys of a batch, each with the position of its step, from 1. Position 0 means no step: only
look up whether the key made one before."""

NO_KEYS: Final[Keys] = {}


class KeyConflictError(Exception):
    """A batch was not committed: some of its keys are known, or must be rejected.

    Args:
        index: the index of the sequence.
        found: those keys, each with the index of the step it made; None if no longer known, or if
            the sequence has not reached the index in the key.
    """

    def __init__(self, index: int, found: Mapping[Key, int | None]) -> None:
        super().__init__(f"{len(found)} keys are not new at index {index}")
        self.index = index
        self.found = found


def check(keys: Iterable[Key], made: Mapping[bytes, int], index: int, dropped: int) -> None:
    """Check that all keys are new.

    Args:
        keys: the keys of a batch.
        made: the indexes of steps, by the digests of their keys.
        index: the index before the batch.
        dropped: see the top of this file.

    Raises:
        KeyConflictError: some are not new.
    """
    found = {}
    for key in keys:
        digest = key.digest
        if digest in made or not dropped <= key.since <= index:
            found[key] = made.get(digest)
    if found:
        raise KeyConflictError(index, found)


class KeptKeys:
    """The kept keys in the memory of one process.

    Args:
        dropped: no key of a step past this index has been dropped.
    """

    def __init__(self, dropped: int) -> None:
        self.dropped = dropped
        self.made: dict[bytes, int] = {}
        """The indexes of steps, by the digests of their keys."""
        self._batches: deque[tuple[int, tuple[bytes, ...]]] = deque()
        """The digests of each batch, with the index after it, oldest first."""

    def __len__(self) -> int:
        return len(self.made)

    def add(self, index: int, made: Mapping[bytes, int]) -> None:
        """Keep the keys of a batch that led to ``index``, higher than all before."""
        self.made.update(made)
        self._batches.append((index, tuple(made)))

    def surplus(self, keep: int) -> int | None:
        """The index up to which to drop keys, if there are many more than ``keep``, else None.

        An eighth more, so that many are dropped at once and seldom.
        """
        left = len(self.made)
        if left <= keep + keep // 8:
            return None
        up_to = None
        for index, digests in self._batches:
            left -= len(digests)
            if left < keep:
                break
            up_to = index
        return up_to

    def drop(self, up_to: int) -> None:
        """Drop the keys of all batches up to that index."""
        self.dropped = max(self.dropped, up_to)
        while self._batches and self._batches[0][0] <= up_to:
            for digest in self._batches.popleft()[1]:
                del self.made[digest]


def made_by(keys: Keys, start: int) -> dict[bytes, int]:
    """The indexes of a batch's keyed steps, starting after ``start``, by the digests of the
    keys."""
    return {key.digest: start + place for key, place in keys.items() if place}
