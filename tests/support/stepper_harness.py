"""A stepper on a fake store, exclusive or shared, under the test's control.

Nothing happens and no time passes unless the test causes it, so every moment is exact.
"""

from collections.abc import Sequence as Several
from typing import Self

from fibcore import Sequence, Snapshot
from fibcore.admission import Admission
from fibcore.idempotency_key import Key
from fibcore.shared_stepper import SharedStepper
from fibcore.stepper import Condition, Outcome, Stepper
from fibcore.stores import DurabilityWarning
from fibcore.stores.keys import NO_KEYS, Keys
from tests.support.connections import Failures, Loop
from tests.support.fake_stores import FakeSharedStore, FakeStore
from tests.support.reference import digits_of


class _Recording(FakeStore):
    """A store that records its calls, and fails on demand."""

    def __init__(self, loop: Loop, index: int, *, blocking: bool) -> None:
        super().__init__(loop, index, blocking=blocking)
        self.asked: list[tuple[int, int | None]] = []
        """Steps and expected index of each call; 0 steps: a read."""
        self.did: list[str] = []
        self.error: BaseException | None = None

    def read(self) -> int:
        self.asked.append((0, None))
        return super().read()

    def advance(
        self,
        steps: int,
        expected: int | None = None,
        limit: int | None = None,
        keys: Keys = NO_KEYS,
    ) -> int:
        self.asked.append((steps, expected))
        return super().advance(steps, expected, limit, keys)

    def _fail_if_down(self) -> None:
        self.did.append("replied")
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.did.append("closed")


class _RecordingShared(_Recording, FakeSharedStore):
    """The same for a shared store."""


class Harness:
    """A stepper and its answers; ``__exit__`` closes it.

    Args:
        loop: the stepper's loop.
        index: the store's index.
        shared: whether the store is shared.
        start: the stepper's index, if different.
        blocking: whether each call of the store waits for ``reply``.
        max_index, max_waiting, max_in_flight: the stepper's limits.
        warnings: the store's warnings.
    """

    def __init__(
        self,
        loop: Loop,
        index: int = 0,
        *,
        shared: bool = False,
        start: int | None = None,
        blocking: bool = False,
        max_index: int = 1_000_000,
        max_waiting: int = 1_000,
        max_in_flight: int = 2**20,
        warnings: tuple[DurabilityWarning, ...] = (),
    ) -> None:
        kind = _RecordingShared if shared else _Recording
        self.store = kind(loop, index, blocking=blocking)
        self.store.warnings = warnings
        self.sequence = Sequence(index if start is None else start)
        self.answers: list[tuple[str, int, Outcome]] = []
        self.looks: list[int | None] = []
        """The results of reads; None: the store was unavailable."""
        self.failures = Failures(loop)
        self.stepper = (SharedStepper if shared else Stepper)(
            self.sequence,
            self.store,
            loop,
            Admission(max_waiting=max_waiting, max_in_flight=max_in_flight),
            max_index=max_index,
            fail_stop=self.failures.fail_stop,
            clock=loop.time,
        )
        self._loop = loop

    def __enter__(self) -> Self:
        self._loop.awaits.append(self._is_at_work)
        return self

    def __exit__(self, *_: object) -> None:
        self.store.blocking = False
        if self.store.asking:
            self.store.finish()
        self._loop.settle()
        if not self.failures and "closed" not in self.store.did:
            self.stepper.close()
        self._loop.awaits.remove(self._is_at_work)

    def _is_at_work(self) -> bool:
        at_work = self.stepper._commit_began is not None and not self.store.asking
        return at_work and not self.failures and self.stepper._worker._thread.is_alive()

    @property
    def batches(self) -> list[int]:
        """The steps of each batch sent to the store."""
        return [steps for steps, _ in self.store.asked if steps]

    def ask(self, *names: str, condition: Condition | None = None, key: Key | None = None) -> None:
        """Request one step under each name."""
        for name in names:
            self.stepper.submit(self.deliver, condition, name, key)

    def ask_in_turns(self, counts: Several[int]) -> None:
        """Request so many steps now, and in each of the next iterations of the loop."""
        self.ask(*["some"] * counts[0])
        if counts[1:]:
            self._loop.call_soon(self.ask_in_turns, counts[1:])

    def deliver(self, snapshot: Snapshot, failure: Outcome, name: str) -> None:
        """Record an answer."""
        assert snapshot.current == digits_of(snapshot.index)
        self.answers.append((name, snapshot.index, failure))

    def read(self) -> None:
        def seen(snapshot: Snapshot | None) -> None:
            self.looks.append(None if snapshot is None else snapshot.index)

        self.stepper.read(seen)

    def reply(self) -> None:
        """Reply to the blocked call of the store, then settle the loop."""
        self.store.finish()
        self._loop.settle()
