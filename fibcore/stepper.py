"""Group commit: the steps that wait at one moment share one commit and one disk sync.

Steps are asked for, and answered, on the event loop; commits run in a thread of their own, so
that neither reads nor the asking of further steps ever wait for the disk. The sequence moves
only after the commit, so what it shows is committed. One commit is under way at a time, and the
steps that come meanwhile are the next batch: the slower the disk, the larger the batches.

See D. DeWitt et al., Implementation Techniques for Main Memory Database Systems, SIGMOD 1984, on
group commit.
"""

import asyncio
import enum
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn, TypeAlias

from fibcore._sequence import Sequence, Snapshot
from fibcore.admission import Admission
from fibcore.appliance.ending import EXIT_COMMIT_FAILED, EXIT_DATABASE_INVALID, End, end_at_once
from fibcore.events import event
from fibcore.histogram import SECONDS, SIZES, Histogram
from fibcore.problems import (
    BatchUnknowableError,
    CommitFailedError,
    DatabaseInvalidError,
    IndexRegressedError,
    StoreUnavailableError,
    explain,
)
from fibcore.stores import Store
from fibcore.threads import Worker

logger = logging.getLogger("fibcore")


class Failure(enum.Enum):
    """Why a step was not made."""

    PRECONDITION = "the sequence did not stand where the request asked it to"
    EXHAUSTED = "the sequence stands at the configured largest index"
    UNAVAILABLE = "a shared store can't be used now; see ``Stepper.trouble``"


Deliver: TypeAlias = Callable[[Snapshot, Failure | None, Any], None]
"""Takes the snapshot that a step led to, or that of where it was not made; and its caller."""

Look: TypeAlias = Callable[[Snapshot | None], None]
"""Takes what is committed, or None while that can't be known."""

Condition: TypeAlias = Callable[[int], bool]
"""Tells whether a step may be made from an index."""

Waiting: TypeAlias = tuple[Deliver, Condition | None, Any]
"""A step that was asked for: what ``submit`` was given."""


def fail_stop(error: BaseException, end: End = end_at_once) -> NoReturn:
    """End the process: a step that may be committed can't be answered, for ``error``."""
    status = EXIT_COMMIT_FAILED
    if isinstance(error, (CommitFailedError, BatchUnknowableError)):
        logger.critical("%s", explain(error), extra=event("commit failed"))
    elif isinstance(error, IndexRegressedError):
        logger.critical("%s", explain(error), extra=event("fell back"))
        # The next process would answer steps a second time, so that a person is asked first.
        status = EXIT_DATABASE_INVALID
    else:
        logger.critical(
            "A step that may be committed can't be answered: %r. The process ends, so that the "
            "next one goes on from what is committed.",
            error,
            exc_info=error,
            extra=event("commit failed"),
        )
    end(status)


class Stepper:
    """Steps a sequence durably for many callers at once; this process is the only writer.

    Args:
        sequence: moved by this object alone from now on.
        store: an exclusive one that stands at the sequence's index, used by this object alone.
        loop: where ``submit`` is called and answers are delivered.
        admission: says whether one more step may wait.
        max_index: the largest index that a step may lead to.
        fail_stop: called with the error, in any thread, when a step may have been committed and
            can't be answered. It must not return.
        worker: starts the thread that commits.
        clock: seconds, at a resolution with which a commit can be measured.
    """

    def __init__(
        self,
        sequence: Sequence,
        store: Store,
        loop: asyncio.AbstractEventLoop,
        admission: Admission,
        *,
        max_index: int,
        fail_stop: Callable[[BaseException], NoReturn] = fail_stop,
        worker: type[Worker] = Worker,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sequence = sequence
        self.trouble: StoreUnavailableError | DatabaseInvalidError | None = None
        """Why the store can't be used, from when that is known; an exclusive one always can be."""
        self._store = store
        self._loop = loop
        self._admission = admission
        self._max_index = max_index
        self._fail_stop = fail_stop
        self._clock = clock

        self.batch_sizes = Histogram(SIZES)
        """Steps of each commit."""
        self.commit_seconds = Histogram(SECONDS)
        self.wait_seconds = Histogram(SECONDS)
        """From when the first step of a batch was asked for until it can be answered."""
        self._oldest = 0.0
        """When the first of those that wait was asked for."""
        self._batch_oldest = 0.0
        """The same of the batch."""

        self._waiting: list[Waiting] = []
        self._enough = 1
        """With how many that wait a batch is begun."""
        self._conditional = False
        """Whether a step that waits has a condition."""
        self._batch: list[Waiting] = []
        self._failures: dict[int, Failure] = {}
        """The steps of the batch that are not made, by their place in it."""
        self._answer_size = len(sequence.current) + 1
        """Bytes that the next number has at the most."""
        self._scheduled = False
        self._commit_began: float | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._worker = worker("commit", loop, fail_stop)

    @property
    def pending(self) -> int:
        """How many steps wait for their commit."""
        return len(self._waiting) + len(self._batch)

    def stalled_for(self) -> float:
        """For how many seconds the commit under way has been running; 0 when there is none."""
        began = self._commit_began
        return 0.0 if began is None else self._clock() - began

    def submit(
        self, deliver: Deliver, condition: Condition | None = None, caller: Any = None
    ) -> None:
        """Ask for one step; ``deliver`` is called once, on the loop, when it is committed.

        Args:
            deliver: must not raise; if it does, the process ends as after a failed commit.
            condition: asked with the index that the step would start from, when its turn comes.
            caller: handed to ``deliver``, for which it need not be made anew for each step.

        Raises:
            OverloadedError: see ``Admission.admit_step``. Nothing will step.
        """
        self._admission.admit_step(len(self._waiting) + len(self._batch), self._answer_size)
        if not self._waiting:
            self._oldest = self._clock()
        self._waiting.append((deliver, condition, caller))
        if condition is not None:
            self._conditional = True
        if not self._scheduled:
            self._scheduled = True
            self._idle.clear()
            self._loop.call_soon(self._gather)

    def look(self, deliver: Look) -> None:
        """Have ``deliver`` called with the committed snapshot, at once: nobody else moves it."""
        deliver(self.sequence.snapshot)

    @property
    def recent(self) -> Snapshot | None:
        """What may be shown without asking the store: here all that is committed, always."""
        return self.sequence.snapshot

    async def drain(self) -> None:
        """Wait until every step that was asked for is answered."""
        await self._idle.wait()

    def close(self) -> None:
        """End the thread, after the commit under way, and close the store. Drain first."""
        self._worker.close()
        self._store.close()

    def _gather(self) -> None:
        """Begin a batch, unless many more came in the last turn of the loop.

        The requests that arrived together go into one batch, and so do those that the answers to
        the batch before bring on: else its clients and those who waited meanwhile would take turns,
        each with half a batch. One that waits alone does not wait for others; and as each turn must
        bring an eighth more, no more than some fifty can pass.
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
        """Make a batch of all steps that wait, and have it committed."""
        self._batch, self._waiting = self._waiting, []
        self._batch_oldest = self._oldest
        index = self.sequence.index
        steps = len(self._batch)
        if self._conditional or index + steps > self._max_index:
            steps = self._examine(index)
            self._conditional = False
        if steps:
            self._commit_began = self._clock()
            self._worker.do(partial(self._commit, steps))
        else:
            # Not at once: an answer may bring the next request of its connection with it.
            self._loop.call_soon(self._answer)

    def _examine(self, index: int) -> int:
        """Look which steps of the batch can be made from ``index`` on; return how many."""
        start = index
        self._failures = {}
        for place, (_, condition, _) in enumerate(self._batch):
            if condition is not None and not condition(index):
                self._failures[place] = Failure.PRECONDITION
            elif index >= self._max_index:
                self._failures[place] = Failure.EXHAUSTED
            else:
                index += 1
        return index - start

    def _answer(self) -> None:
        """Move the sequence through a batch that is committed, and answer its steps."""
        self._commit_began = None
        batch, self._batch = self._batch, []
        if batch:
            self.wait_seconds.observe(self._clock() - self._batch_oldest)
        failures, self._failures = self._failures, {}
        sequence = self.sequence
        try:
            if not failures:
                for deliver, _, caller in batch:
                    deliver(sequence.advance(), None, caller)
            else:
                for place, (deliver, _, caller) in enumerate(batch):
                    if place in failures:
                        deliver(sequence.snapshot, failures[place], caller)
                    else:
                        deliver(sequence.advance(), None, caller)
        except BaseException as error:
            # It is on disk and can't be shown (no memory): the next process can. To go on without
            # it would be to stand at another index than the store, or never to answer again.
            self._fail_stop(error)
        self._answer_size = len(self.sequence.current) + 1
        self._go_on()

    def _go_on(self) -> None:
        """Begin the next batch, if somebody waits for it."""
        if self._waiting:
            self._loop.call_soon(self._gather)
        else:
            self._scheduled = False
            self._idle.set()

    # In the thread.

    def _commit(self, steps: int) -> Callable[[], None]:
        """Commit ``steps`` more; return what answers them on the loop."""
        began = self._clock()
        self._store.advance(steps, self.sequence.index)
        self.batch_sizes.observe(steps)
        self.commit_seconds.observe(self._clock() - began)
        return self._answer
