"""Group commit over a store that other nodes step, too: waiting steps and reads share a request.

The sequence here is at the index of the store's last reply. A batch is committed at whatever index
the store has reached by then, and the reply numbers its steps. A batch with conditional steps is
committed only at the index for which the conditions were checked. If the store is at another, they
are checked again, and the steps without a condition go first. So a conditional step is never made
from another index, and a step without a condition never waits for other nodes to pause.

A read is answered from the reply to a query that was sent after the read arrived: to a batch or, if
no step waits, to a read of the index. Only one query is under way at a time, so replies come in
order, and many readers share one query.

An unavailable store may recover: all waiting requests get an error, and so do all that arrive until
it replies again. The steps of a batch under way are not answered before their fate is known.

**Whatever shows an index shows one that was read from the store, or none.** So an idle node, and
one whose store is unavailable, queries the store a second after its last query; and the snapshot
that is shown without a query (``recent``) is None when replies stop coming.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from fibcore._sequence import Snapshot
from fibcore.catching_up import advance_to
from fibcore.events import event
from fibcore.idempotency_key import Key
from fibcore.problems import (
    BatchInDoubtError,
    CatchingUpError,
    DatabaseInvalidError,
    EngineUnavailableError,
    IndexPastLimitError,
    IndexRegressedError,
    KeysUnavailableError,
    StoreUnavailableError,
    explain,
)
from fibcore.stepper import Condition, Deliver, DeliverRead, Failure, Outcome, Stepper
from fibcore.stores import DurabilityWarning, IndexConflictError
from fibcore.stores.keys import NO_KEYS, KeyConflictError, Keys

logger = logging.getLogger("fibcore")

ASK_SECONDS: Final = 1.0
"""Time from the end of a question to the next one if no request waits for a reply."""
OVERDUE_SECONDS: Final = 3.0
"""Time after which only the steps of a question under way still wait for its reply."""


NOTHING: Final[Mapping[Key, Outcome]] = {}


class _Question(NamedTuple):
    """A question to the store."""

    steps: int
    """Steps to commit; 0 to read the index."""
    expected: int | None
    """The index for which the conditions of the batch were checked, if it has any."""
    keys: Keys = NO_KEYS


class SharedStepper(Stepper):
    """A ``Stepper`` for a store that is not exclusive."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._waiting_reads: list[DeliverRead] = []
        """The reads that wait for the next question."""
        self._asked_reads: list[DeliverRead] = []
        """The reads that wait for the reply to the question under way."""
        self._question = _Question(0, None)
        self._patience: asyncio.TimerHandle | None = None
        self._asked = self._as_of = self._ended = self._loop.time()
        """When the last question was asked, when that was asked to which the index of the sequence
        is the reply (the caller has just read it), and when the last question ended, with or
        without a reply."""
        self._computing: int | None = None
        """The index whose number is being computed, because other nodes have moved there."""
        self._unasked = self._loop.call_later(ASK_SECONDS, self._ask_unasked)
        self._warnings: tuple[DurabilityWarning, ...] = ()
        """The warnings that have been logged."""
        self._log_warnings()

    def submit(
        self,
        deliver: Deliver,
        condition: Condition | None = None,
        caller: Any = None,
        key: Key | None = None,
    ) -> None:
        """``Stepper.submit``; while the store is unavailable, ``deliver`` is soon called with
        that."""
        if self.problem is not None:
            self._loop.call_soon(deliver, self.sequence.snapshot, Failure.UNAVAILABLE, caller)
        else:
            super().submit(deliver, condition, caller, key)

    def read(self, deliver: DeliverRead) -> None:
        """Call ``deliver`` with the committed snapshot, or with None while it can't be known.

        ``deliver`` must not raise; otherwise the process ends.
        """
        if self.problem is not None:
            self._loop.call_soon(deliver, None)
            return
        self._waiting_reads.append(deliver)
        if not self._scheduled:
            self._scheduled = True
            self._idle.clear()
            self._loop.call_soon(self._gather)

    @property
    def recent(self) -> Snapshot | None:
        """The snapshot of the last reply if it was asked for at most some seconds ago, else None.

        What counts is the question: the reply to a batch that was in doubt has the index of the
        commit, which others may have passed long before.
        """
        if self.problem is not None or self._loop.time() - self._as_of > OVERDUE_SECONDS:
            return None
        return self.sequence.snapshot

    def close(self) -> None:
        """End the thread, after the question under way, and close the store. Drain first."""
        self._unasked.cancel()
        if self._patience is not None:
            self._patience.cancel()
        super().close()

    # On the loop

    def _count_waiting(self) -> int:
        return len(self._waiting) + len(self._waiting_reads)

    def _start(self, special: bool) -> None:
        """Ask the store on behalf of the batch, and of the reads that wait."""
        self._asked_reads, self._waiting_reads = self._waiting_reads, []
        index = self.sequence.index
        # A condition fails for good only if the store is still at the index it was checked for.
        conditional = special and any(condition for _, condition, _, _ in self._batch)
        expected = index if conditional else None
        steps = self._examine(index)
        self._ask(_Question(steps, expected, self._keys))

    def _ask(self, question: _Question) -> None:
        self._question = question
        self._asked = self._loop.time()
        self._idle.clear()
        self._commit_began = self._clock()
        self._patience = self._loop.call_later(OVERDUE_SECONDS, self._lose_patience)
        self._worker.do(partial(self._inquire, question))

    def _ask_unasked(self) -> None:
        """Read the index if nothing has been asked for a while."""
        wait = self._ended + ASK_SECONDS - self._loop.time()
        if self._commit_began is not None or (self._scheduled and self.problem is None):
            # A question is under way, or about to be asked.
            wait = ASK_SECONDS
        elif wait <= 0:
            self._scheduled = True
            self._ask(_Question(0, None))
            wait = ASK_SECONDS
        self._unasked = self._loop.call_later(wait, self._ask_unasked)

    def _take_reply(
        self, index: int, elsewhere: bool, found: Mapping[Key, Outcome] = NOTHING
    ) -> None:
        """Handle a reply: the store was at ``index``.

        Nothing was committed if ``elsewhere``, nor with ``found``, because of these keys.
        """
        self._end_question()
        self._as_of = self._asked
        if self.problem is not None:
            logger.info(
                "%s replies again, at index %d",
                *(self._store.where, index),
                extra=event("available", index=str(index)),
            )
            self.problem = None
        self._log_warnings()
        steps, expected, _ = self._question
        if found:
            self._answer_reads(self.sequence.snapshot)
            self._sort_out(found)
        elif elsewhere or not (steps or expected in (None, index)):
            self._check_again(index)
        else:
            self._answer()

    def _log_warnings(self) -> None:
        """Log the durability warnings of the store that are new."""
        now = self._store.warnings
        if now is not self._warnings:
            for warning in now:
                if warning not in self._warnings:
                    logger.warning(
                        "%s", warning.explain(self._store.where), extra=event("weakness")
                    )
            self._warnings = now

    def _check_again(self, index: int) -> None:
        """Check the conditions of the batch, of which nothing was committed, at ``index``."""
        batch, self._batch = self._batch, []
        snapshot = self.sequence.snapshot
        conditional = []
        for step in batch:
            deliver, condition, caller, key = step
            failure = None
            if condition is not None and not condition(index):
                failure = Failure.PRECONDITION
            elif index >= self._max_index:
                failure = Failure.EXHAUSTED
            if failure is not None and key is not None:
                # If it was made earlier, it is answered with its number, so look up its key first.
                # The index never falls, so a step that fails here can't be made meanwhile.
                late = partial(_deliver_failed, deliver, snapshot, failure)
                self._batch.append((late, lambda _: False, caller, key))
            elif failure is not None:
                self._deliver(deliver, snapshot, failure, caller)
            elif condition is None:
                self._batch.append(step)
            else:
                conditional.append(step)
        self._put_back(conditional)
        self._answer_reads(snapshot)
        if self._batch:
            steps = self._examine(index)
            self._ask(_Question(steps, None, self._keys))
        else:
            self._go_on()

    def _go_on(self) -> None:
        self._answer_reads(self.sequence.snapshot)
        if self._waiting_reads and not self._waiting:
            self._loop.call_soon(self._gather)
        else:
            super()._go_on()

    def _answer_reads(self, snapshot: Snapshot | None) -> None:
        reads, self._asked_reads = self._asked_reads, []
        for deliver in reads:
            self._deliver(deliver, snapshot)

    def _end_question(self) -> None:
        self._commit_began = None
        self._ended = self._loop.time()
        if self._patience is not None:
            self._patience.cancel()

    # If the store is unavailable.

    def _report(self, problem: StoreUnavailableError | DatabaseInvalidError) -> None:
        if str(problem) != str(self.problem):
            logger.error("%s", explain(problem), extra=event("unavailable"))
        self.problem = problem

    def _lose_patience(self) -> None:
        where, doubt, computing = self._store.where, self._store.doubt, self._computing
        if computing is not None:
            self._report(CatchingUpError(where, computing))
        elif doubt is None:
            late = f"it has not replied for {OVERDUE_SECONDS:g} s"
            self._report(EngineUnavailableError(where, late))
        else:
            self._report(BatchInDoubtError(where, self._question.steps, doubt))
        self._reject_waiting()
        # By then the reason, and with it the remedy, may have changed.
        self._patience = self._loop.call_later(ASK_SECONDS, self._lose_patience)

    def _fail(self, error: StoreUnavailableError | DatabaseInvalidError) -> None:
        """Handle an error: nothing of the question has been committed, nor will it be."""
        self._end_question()
        self._report(error)
        self._waiting[:0], self._batch = self._batch, []
        self._failures, self._keys = {}, NO_KEYS
        self._reject_waiting()
        self._idle.set()

    def _keep_no_keys(self, found: Mapping[Key, Outcome]) -> None:
        """The store can't keep keys; nothing of the batch has been committed."""
        self._end_question()
        self._waiting_reads[:0], self._asked_reads = self._asked_reads, []
        self._sort_out(found)

    def _reject_waiting(self) -> None:
        """Answer all waiting requests with the problem, except the steps of the batch under way."""
        snapshot = self.sequence.snapshot
        waiting, self._waiting = self._waiting, []
        self._special = False
        self._asked_reads += self._waiting_reads
        self._waiting_reads = []
        for deliver, _, caller, _ in waiting:
            self._deliver(deliver, snapshot, Failure.UNAVAILABLE, caller)
        self._answer_reads(None)

    # In the worker's thread

    def _inquire(self, question: _Question) -> Callable[[], None]:
        """Ask the store; return the function that handles its reply on the loop."""
        elsewhere = False
        found: Mapping[Key, Outcome] = NOTHING
        steps, expected, keys = question
        try:
            if steps or keys:
                began = self._clock()
                index = self._store.advance(steps, expected, self._max_index, keys)
                if keys:
                    self._keeps_keys = True
                if steps:
                    self.batch_steps.observe(steps)
                    self.commit_seconds.observe(self._clock() - began)
            else:
                index = self._store.read()
        except IndexConflictError as error:
            elsewhere, index = True, error.index
        except KeyConflictError as error:
            elsewhere, index, found = True, error.index, self._outcomes(error, keys)
        except KeysUnavailableError as error:
            return partial(self._keep_no_keys, self._outcomes(error, keys))
        except (StoreUnavailableError, DatabaseInvalidError) as error:
            # The store raises these only if it knows that the batch was not committed.
            return partial(self._fail, error)
        # The batch may be committed, so any error from here on ends the process. Its steps are
        # made, and answered, on the loop.
        start = index if elsewhere else index - question.steps
        known = self.sequence.index
        if start < known:
            raise IndexRegressedError(self._store.where, start, known=known)
        if index > self._max_index and (elsewhere or not question.steps):
            # Its number is not computed: that might take more memory and time than there is.
            return partial(
                self._fail, IndexPastLimitError(self._store.where, index, self._max_index)
            )
        self._computing = start
        advance_to(self.sequence, start)
        self._computing = None
        return partial(self._take_reply, index, elsewhere, found)


def _deliver_failed(
    deliver: Deliver,
    snapshot: Snapshot,
    failure: Failure,
    now: Snapshot,
    outcome: Outcome,
    caller: Any,
) -> None:
    """Deliver a step that had failed, with the first snapshot and failure, if it is not made."""
    if outcome in (Failure.PRECONDITION, Failure.EXHAUSTED):
        deliver(snapshot, failure, caller)
    else:
        deliver(now, outcome, caller)
