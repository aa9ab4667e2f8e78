"""Fake stores in memory, whose replies the test controls."""

from queue import SimpleQueue
from typing import Final

from fibcore.problems import EngineUnavailableError
from fibcore.stores import DurabilityWarning, IndexConflictError
from fibcore.stores.keys import NO_KEYS, KeptKeys, Keys, check, made_by
from tests.support.connections import Loop
from tests.support.waiting import PATIENCE

DOWN: Final = EngineUnavailableError("nowhere", "it is failing over")


class FakeStore:
    """A fake exclusive store.

    Args:
        loop: the service's loop.
        index: the current index.
        blocking: whether each commit waits for ``finish``.
    """

    exclusive = True
    where = "nowhere"
    warnings: tuple[DurabilityWarning, ...] = ()
    doubt: Exception | None = None
    kept_keys: int | None = None

    def __init__(self, loop: Loop, index: int = 0, *, blocking: bool = False) -> None:
        self.index = index
        self.kept = KeptKeys(0)
        self.blocking = blocking
        self.asking = False
        """Whether a call is blocked."""
        self.committing = 0
        """The steps of the blocked call."""
        self._stirred = loop.stirred
        self._replies: SimpleQueue[None] = SimpleQueue()
        self._ghost: int | None = None
        """The index that a service sees after ``cut_off``."""
        self._last_lands = False

    def read(self) -> int:
        return self.index

    def advance(
        self,
        steps: int,
        expected: int | None = None,
        limit: int | None = None,
        keys: Keys = NO_KEYS,
    ) -> int:
        self._block(steps)
        if self._ghost is not None and not self._last_lands:
            self._ghost += steps
            return self._ghost
        self._last_lands = False
        self._fail_if_down()
        return self._commit(steps, expected, limit, keys)

    def _fail_if_down(self) -> None:
        """Raise the error that replaces the reply, if there is one."""

    def _commit(self, steps: int, expected: int | None, limit: int | None, keys: Keys) -> int:
        assert expected == self.index
        assert limit is None
        return self._move(steps, keys)

    def _move(self, steps: int, keys: Keys) -> int:
        check(keys, self.kept.made, self.index, self.kept.dropped)
        start, self.index = self.index, self.index + steps
        if steps:
            self.kept.add(self.index, made_by(keys, start))
        return self.index

    def _block(self, steps: int) -> None:
        if self.blocking and self._ghost is None:
            self.committing = steps
            self.asking = True
            self._stirred.set()
            self._replies.get(timeout=PATIENCE)

    def finish(self) -> None:
        """Let the blocked call return."""
        assert self.asking
        self.asking, self.committing = False, 0
        self._replies.put(None)

    def cut_off(self, *, committed: bool) -> None:
        """Discard all further steps of the service, as if it had ended.

        Args:
            committed: whether the blocked commit still takes effect.
        """
        self._last_lands = committed and self.committing > 0
        self._ghost = self.index + self.committing * committed
        if self.asking:
            self.finish()

    def close(self) -> None:
        pass


class FakeSharedStore(FakeStore):
    """A fake shared store; reads block, too."""

    exclusive = False

    def __init__(self, loop: Loop, index: int = 0, *, blocking: bool = False) -> None:
        super().__init__(loop, index, blocking=blocking)
        self.is_down = False

    def read(self) -> int:
        self._block(0)
        self._fail_if_down()
        return self.index if self._ghost is None else self._ghost

    def _commit(self, steps: int, expected: int | None, limit: int | None, keys: Keys) -> int:
        assert limit is not None
        if expected not in (None, self.index) or self.index + steps > limit:
            raise IndexConflictError(self.index)
        return self._move(steps, keys)

    def _fail_if_down(self) -> None:
        if self.is_down and self._ghost is None:
            raise DOWN
