"""A node's stepper over a fake store that others step, on an event loop of the test's own time."""

from typing import Self

from fibcore import Sequence, Snapshot
from fibcore.admission import Admission
from fibcore.shared_stepper import SharedStepper
from fibcore.stepper import Condition, Outcome
from fibcore.stores import DurabilityWarning
from fibcore.stores.keys import NO_KEYS, Key, Keys
from tests.support.connections import Failures, Loop
from tests.support.fake_stores import FakeSharedStore
from tests.support.reference import digits_of


class RecordingStore(FakeSharedStore):
    """It notes what it is asked and does, and fails as it is told."""

    def __init__(self, loop: Loop, index: int, *, blocking: bool) -> None:
        super().__init__(loop, index, blocking=blocking)
        self.asked: list[tuple[int, int | None]] = []
        self.did: list[str] = []
        self.error: Exception | None = None

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


class SharedStepperHarness:
    """A stepper over the engine, and what it has answered; it is closed at the end."""

    def __init__(
        self,
        loop: Loop,
        index: int = 0,
        *,
        start: int | None = None,
        blocking: bool = False,
        max_index: int = 1_000_000,
        warnings: tuple[DurabilityWarning, ...] = (),
    ) -> None:
        self.store = RecordingStore(loop, index, blocking=blocking)
        self.store.warnings = warnings
        self.answers: list[tuple[str, int, Outcome]] = []
        self.looks: list[int | None] = []
        self.failures = Failures(loop)
        self.stepper = SharedStepper(
            Sequence(index if start is None else start),
            self.store,
            loop,
            Admission(max_waiting=1_000, max_in_flight=2**20),
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

    def ask(self, *names: str, condition: Condition | None = None, key: Key | None = None) -> None:
        for name in names:
            self.stepper.submit(self._deliver, condition, name, key)

    def _deliver(self, snapshot: Snapshot, failure: Outcome, name: str) -> None:
        assert snapshot.current == digits_of(snapshot.index)
        self.answers.append((name, snapshot.index, failure))

    def read(self) -> None:
        def seen(snapshot: Snapshot | None) -> None:
            self.looks.append(None if snapshot is None else snapshot.index)

        self.stepper.read(seen)

    def reply(self) -> None:
        """Have the question that is under way replied to, and let happen what then can."""
        self.store.finish()
        self._loop.settle()
