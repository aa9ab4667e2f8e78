"""Idempotency keys: which step each has made, and which are no longer known.

A key is ``INDEX:RANDOM``: the index that its client had last seen, and at least 96 random bits. It
names one wish for a step, however often that is asked for.

**A key is answered, new, or rejected, and never taken for new by mistake.** The step of a key has a
higher index than the one in the key. A store keeps the keys of the last steps, in the same commit
as these, and ``dropped``: no key of a step past that index has been dropped. So a key whose INDEX
is at least ``dropped`` is found if its step was made, and is new if not. Of an older one that is
not found nobody can know it. One whose INDEX the sequence has not reached comes from another
sequence, or from steps that were lost: it would break the rule later. Both are rejected. No clock
decides anything.
"""

import re
from collections import deque
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Final, NamedTuple, Self, TypeAlias

FORM: Final = re.compile("(0|[1-9][0-9]{0,18}):[A-Za-z0-9_-]{16,64}")

DIGEST_SIZE: Final = 16
"""Bytes of a key that are kept: nobody finds two keys that share them by chance, and who searches
for two (2^64 tries) has them share one step."""

DEFAULT_MAX_KEYS: Final = 10_000

MAX_KEYED: Final = 1_000
"""Steps with keys in a batch: so that a commit stays small, and fits in a script of Redis."""


class Key(NamedTuple):
    """A key, as the stores know it."""

    since: int
    """The index that its client had last seen."""
    digest: bytes
    """Stands for the whole key, which is neither kept nor logged."""

    @classmethod
    def of(cls, text: str) -> Self | None:
        """Read ``INDEX:RANDOM``; None if it has not that form."""
        found = FORM.fullmatch(text)
        if found is None:
            return None
        # No step leads further than 2^63 - 1.
        since = min(int(found[1]), 2**63 - 1)
        return cls(since, blake2b(text.encode(), digest_size=DIGEST_SIZE).digest())


Keys: TypeAlias = Mapping[Key, int]
"""The keys of a batch, each with the place of its step in it, from 1 on. With 0 it has no step: it
is only to be found out whether it has made one before."""

NO_KEYS: Final[Keys] = {}


class KeyConflictError(Exception):
    """A batch was not committed: some of its keys are known, or can't be.

    Args:
        index: where the sequence is.
        found: those keys: the index of the step that each has made, or None where that is not
            known any more, or where the sequence has not reached the index in the key.
    """

    def __init__(self, index: int, found: Mapping[Key, int | None]) -> None:
        super().__init__(f"{len(found)} keys are not new at index {index}")
        self.index = index
        self.found = found


def check(keys: Iterable[Key], made: Mapping[bytes, int], index: int, dropped: int) -> None:
    """Return if all keys are new.

    Args:
        keys: those of a batch.
        made: the indexes of steps, by the digests of their keys.
        index: where the sequence is before the batch.
        dropped: see above.

    Raises:
        KeyConflictError: some are not.
    """
    found = {
        key: made.get(key.digest)
        for key in keys
        if key.digest in made or not dropped <= key.since <= index
    }
    if found:
        raise KeyConflictError(index, found)


class KeptKeys:
    """The keys that are kept, in the memory of one process.

    Args:
        dropped: no key of a step past this index is missing.
    """

    def __init__(self, dropped: int) -> None:
        self.dropped = dropped
        self.made: dict[bytes, int] = {}
        """The indexes of steps, by the digests of their keys."""
        self._batches: deque[tuple[int, tuple[bytes, ...]]] = deque()
        """The digests of each batch, by the index after it, oldest first."""

    def __len__(self) -> int:
        return len(self.made)

    def add(self, index: int, made: Mapping[bytes, int]) -> None:
        """Keep those of a batch that led to ``index``, which is higher than those before."""
        self.made.update(made)
        self._batches.append((index, tuple(made)))

    def surplus(self, keep: int) -> int | None:
        """The index up to which keys are to be dropped, if there are many more than ``keep``.

        An eighth more: so it is done seldom, and for many at once.
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
        """Forget those of all batches up to that index."""
        self.dropped = max(self.dropped, up_to)
        while self._batches and self._batches[0][0] <= up_to:
            for digest in self._batches.popleft()[1]:
                del self.made[digest]


def made_by(keys: Keys, start: int) -> dict[bytes, int]:
    """The indexes of the steps that a batch from ``start`` on makes, by the digests of its keys."""
    return {key.digest: start + place for key, place in keys.items() if place}
