"""Group commit: the steps that wait at the same moment share one commit and one disk sync.

Steps are requested and answered on the event loop. Commits run in a thread of their own, so that
neither reads nor further requests wait for the disk. The sequence moves only after the commit, so
everything it shows is committed. One commit is under way at a time, and the steps that arrive
meanwhile are the next batch: the slower the disk, the larger the batches.

See D. DeWitt et al., Implementation Techniques for Main Memory Database Systems, SIGMOD 1984, on
group commit.
"""

import asyncio
import enum
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeAlias

from fibcore._sequence import Sequence, Snapshot
from fibcore.admission import Admission
from fibcore.events import event
from fibcore.histogram import SECONDS, SIZES, Histogram
from fibcore.idempotency_key import Key
from fibcore.problems import (
    DatabaseInvalidError,
    KeysUnavailableError,
    StoreUnavailableError,
    explain,
)
from fibcore.stores import DurabilityWarning, Store
from fibcore.stores.keys import MAX_KEYED, NO_KEYS, KeyConflictError, Keys
from fibcore.threads import Worker

logger = logging.getLogger("fibcore")


class Failure(enum.Enum):
    """Why a step was not made."""

    PRECONDITION = "the sequence was not at the index that the request requires"
    EXHAUSTED = "the sequence is at the configured largest index"
    UNAVAILABLE = "the shared store is unavailable; see ``Stepper.problem``"
    OUTSTANDING = "a step with the same key is under way"
    KEY_DROPPED = "the key is too old: whether it has made a step is no longer known"
    KEY_AHEAD = "the sequence has not reached the index in the key"
    KEYS_UNAVAILABLE = "the store can't keep keys at the moment"


@dataclass(frozen=True, slots=True)
class Repeated:
    """The step was made earlier, for the same key."""

    index: int
    """The index after that step."""


Outcome: TypeAlias = Failure | Repeated | None
"""What became of a step; None if it was made."""

Deliver: TypeAlias = Callable[[Snapshot, Outcome, Any], None]
"""Called with the snapshot after a step, or with the current one if it was not made; its outcome;
and its caller."""

DeliverRead: TypeAlias = Callable[[Snapshot | None], None]
"""Called with the committed snapshot, or None while that can't be known."""

Condition: TypeAlias = Callable[[int], bool]
"""Tells whether a step may be made from an index."""

Waiting: TypeAlias = tuple[Deliver, Condition | None, Any, Key | None]
"""A requested step: the arguments of ``submit``."""


class Stepper:
    """Steps a sequence durably for many callers at once; this process is the only writer.

    Args:
        sequence: from now on moved only by this object.
        store: an exclusive store at the sequence's index, used only by this object.
        loop: where ``submit`` is called and answers are delivered.
        admission: decides whether one more step may wait.
        max_index: the largest index that a step may lead to.
        fail_stop: called with the error, in any thread, if a step may have been committed but can't
            be answered. It must not return.
        worker: starts the thread that commits.
        clock: monotonic seconds, fine enough to measure a commit.
    """

    def __init__(
        self,
        sequence: Sequence,
        store: Store,
        loop: asyncio.AbstractEventLoop,
        admission: Admission,
        *,
        max_index: int,
        fail_stop: Callable[[BaseException], NoReturn],
        worker: type[Worker] = Worker,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sequence = sequence
        self.problem: StoreUnavailableError | DatabaseInvalidError | None = None
        """Why the store is unavailable, or None; None for an exclusive store."""
        self._store = store
        self._loop = loop
        self._admission = admission
        self._max_index = max_index
        self._fail_stop = fail_stop
        self._clock = clock

        self.batch_steps = Histogram(SIZES)
        """Steps of each commit."""
        self.commit_seconds = Histogram(SECONDS)
        self.batch_wait_seconds = Histogram(SECONDS)
        """From the request of a batch's first step until it can be answered."""
        self._oldest = 0.0
        """When the first waiting step was requested."""
        self._batch_oldest = 0.0
        """The same for the batch."""

        self._waiting: list[Waiting] = []
        self._enough = 1
        """A batch begins when no more than this many wait."""
        self._special = False
        """Whether a waiting step has a condition or a key."""
        self.repeated = 0
        """Steps that were found, by their keys, to have been made earlier."""
        self.keys_problem: KeysUnavailableError | None = None
        """Why the store could not keep keys, the last time that it failed to."""
        self._keeps_keys = True
        """Whether it kept the last ones; it is logged once that it does not."""
        self._batch: list[Waiting] = []
        self._failures: dict[int, Failure] = {}
        """The steps of the batch that are not made, by their position in it."""
        self._keys: Keys = NO_KEYS
        """The keys of the batch, until it is answered."""
        self._answer_size = len(sequence.current) + 1
        """An upper bound on the bytes of the next number."""
        self._scheduled = False
        self._commit_began: float | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._worker = worker("commit", loop, fail_stop)

    @property
    def pending(self) -> int:
        """How many steps wait for their commit."""
        return len(self._waiting) + len(self._batch)

    @property
    def warnings(self) -> tuple[DurabilityWarning, ...]:
        """Settings of the store under which acknowledged steps may be lost, as last seen."""
        return self._store.warnings

    @property
    def kept_keys(self) -> int | None:
        """How many keys the store keeps; None while that is not known."""
        return self._store.kept_keys

    def stalled_for(self) -> float:
        """Seconds that the commit under way has taken, or that a step has waited without one."""
        began = self._commit_began
        if began is None and self._waiting:
            began = self._oldest
        return 0.0 if began is None else self._clock() - began

    def submit(
        self,
        deliver: Deliver,
        condition: Condition | None = None,
        caller: Any = None,
        key: Key | None = None,
    ) -> None:
        """Request one step; ``deliver`` is called once, on the loop, with its outcome.

        Args:
            deliver: must not raise; otherwise the process ends as after a failed commit.
            condition: called with the index that the step would start from, when its batch begins.
            caller: handed to ``deliver``, which then need not be a closure for each step.
            key: at most one step is ever made for it. If that was made earlier, its index is the
                outcome, whatever the condition; otherwise the condition decides.

        Raises:
            OverloadedError: see ``Admission.admit_step``. Nothing will step.
        """
        self._admission.admit_step(len(self._waiting) + len(self._batch), self._answer_size)
        if not self._waiting:
            self._oldest = self._clock()
        if key is not None and key in self._keys:
            self._loop.call_soon(deliver, self.sequence.snapshot, Failure.OUTSTANDING, caller)
            return
        self._waiting.append((deliver, condition, caller, key))
        if condition is not None or key is not None:
            self._special = True
        if not self._scheduled:
            self._scheduled = True
            self._idle.clear()
            self._loop.call_soon(self._gather)

    def read(self, deliver: DeliverRead) -> None:
        """Call ``deliver`` with the committed snapshot, at once: nobody else moves it."""
        deliver(self.sequence.snapshot)

    @property
    def recent(self) -> Snapshot | None:
        """The snapshot to show without asking the store: here always the committed one."""
        return self.sequence.snapshot

    async def drain(self) -> None:
        """Wait until every requested step is answered."""
        await self._idle.wait()

    def close(self) -> None:
        """End the thread, after the commit under way, and close the store. Drain first."""
        self._worker.close()
        self._store.close()

    def _gather(self) -> None:
        """Begin a batch, unless many more steps arrived in the last turn of the loop.

        Requests that arrive together go into one batch, and so do those that follow the answers to
        the previous batch: otherwise two halves of the clients would take turns. A step that waits
        alone does not wait for others. Each turn must bring an eighth more: with the default bound,
        at most about fifty turns pass.
        """
        waiting = self._count_waiting()
        if waiting > self._enough:
            self._enough = waiting * 9 // 8
            self._loop.call_soon(self._gather)
        else:
            self._enough = 1
            self._begin()

    def _count_waiting(self) -> int:
        return len(self._waiting)

    def _begin(self) -> None:
        """Make all waiting steps a batch, and start it."""
        self._batch, self._waiting = self._waiting, []
        self._batch_oldest = self._oldest
        special, self._special = self._special, False
        self._start(special)

    def _start(self, special: bool) -> None:
        """Commit the batch in the thread.

        Args:
            special: whether a step of it may have a condition or a key.
        """
        index = self.sequence.index
        steps = len(self._batch)
        if special or index + steps > self._max_index:
            steps = self._examine(index)
        if steps or self._keys:
            self._commit_began = self._clock()
            self._worker.do(partial(self._commit, steps, self._keys))
        else:
            # Not at once: an answer may bring the next request of its connection.
            self._loop.call_soon(self._answer)

    def _examine(self, index: int) -> int:
        """Find the steps of the batch that can be made from ``index``; return their number."""
        failures: dict[int, Failure] = {}
        keys: dict[Key, int] = {}
        steps = 0
        for place, (_, condition, _, key) in enumerate(self._batch):
            if key in keys:
                failures[place] = Failure.OUTSTANDING
                continue
            position = 0
            if condition is not None and not condition(index + steps):
                failures[place] = Failure.PRECONDITION
            elif index + steps >= self._max_index:
                failures[place] = Failure.EXHAUSTED
            else:
                position = steps = steps + 1
            if key is not None:
                # Even if the step fails now, it may have been made earlier: its key is looked up.
                keys[key] = position
                if len(keys) == MAX_KEYED:
                    self._put_back(self._batch[place + 1 :])
                    del self._batch[place + 1 :]
                    break
        self._failures, self._keys = failures, keys
        return steps

    def _put_back(self, steps: list[Waiting]) -> None:
        """Make steps wait again, ahead of all others."""
        self._waiting[:0] = steps
        self._special = self._special or bool(steps)

    def _sort_out(self, found: Mapping[Key, Outcome]) -> None:
        """Answer the steps whose keys decide their outcome; the others are the next batch.

        Nothing of the batch was committed. The next batch takes no later steps: their keys could be
        known too, and repeated keys could hold up the others forever.
        """
        self._commit_began = None
        batch, self._batch = self._batch, []
        self._failures, self._keys = {}, NO_KEYS
        rest = [step for step in batch if step[3] not in found]
        for deliver, _, caller, key in batch:
            if key is not None and key in found:
                self.repeated += isinstance(found[key], Repeated)
                self._deliver(deliver, self.sequence.snapshot, found[key], caller)
        if rest:
            self._batch = rest
            self._start(special=True)
        else:
            self._go_on()

    def _deliver(self, deliver: Callable[..., None], *what: object) -> None:
        try:
            deliver(*what)
        except BaseException as error:
            self._fail_stop(error)

    def _answer(self) -> None:
        """Move the sequence through a committed batch, and answer its steps."""
        self._commit_began = None
        batch, self._batch = self._batch, []
        if batch:
            self.batch_wait_seconds.observe(self._clock() - self._batch_oldest)
        failures, self._failures = self._failures, {}
        # From now on the store finds them.
        self._keys = NO_KEYS
        sequence = self.sequence
        try:
            if not failures:
                for deliver, _, caller, _ in batch:
                    deliver(sequence.advance(), None, caller)
            else:
                for place, (deliver, _, caller, _) in enumerate(batch):
                    if place in failures:
                        deliver(sequence.snapshot, failures[place], caller)
                    else:
                        deliver(sequence.advance(), None, caller)
        except BaseException as error:
            # The batch is on disk and can't be shown (no memory): the next process can. Going on
            # would leave this process at another index than the store, or without answers.
            self._fail_stop(error)
        self._answer_size = len(self.sequence.current) + 1
        self._go_on()

    def _go_on(self) -> None:
        """Begin the next batch, if any step waits."""
        if self._waiting:
            self._loop.call_soon(self._gather)
        else:
            self._scheduled = False
            self._idle.set()

    # In the worker's thread

    def _commit(self, steps: int, keys: Keys) -> Callable[[], None]:
        """Commit ``steps`` more; return the function that answers them on the loop."""
        began = self._clock()
        if keys:
            try:
                self._store.advance(steps, self.sequence.index, keys=keys)
            except (KeyConflictError, KeysUnavailableError) as error:
                return partial(self._sort_out, self._outcomes(error, keys))
            self._keeps_keys = True
        else:
            self._store.advance(steps, self.sequence.index)
        if steps:
            self.batch_steps.observe(steps)
            self.commit_seconds.observe(self._clock() - began)
        return self._answer

    def _outcomes(
        self, error: KeyConflictError | KeysUnavailableError, keys: Keys
    ) -> dict[Key, Outcome]:
        """The outcomes of keyed steps for which nothing was committed."""
        if isinstance(error, KeysUnavailableError):
            self.keys_problem = error
            if self._keeps_keys:
                logger.error("%s", explain(error), extra=event("no keys"))
            self._keeps_keys = False
            return dict.fromkeys(keys, Failure.KEYS_UNAVAILABLE)
        found: dict[Key, Outcome] = {}
        for key, index in error.found.items():
            if index is not None:
                found[key] = Repeated(index)
            elif key.since > error.index:
                found[key] = Failure.KEY_AHEAD
            else:
                found[key] = Failure.KEY_DROPPED
        return found
