"""Group commit in any order of events, against a model of it."""

import asyncio

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from fibcore.admission import OverloadedError
from fibcore.stepper import (
    Failure,
)
from tests.support.stepper_harness import StepperHarness
from tests.support.waiting import PATIENCE, until_idle


@pytest.mark.proves("3", "any order of steps and commits")
class AnyOrder(RuleBasedStateMachine):
    """Steps and commits in any order, against the model: a list of batches."""

    @initialize(start=st.integers(0, 100), room=st.integers(0, 20))
    def begin(self, start: int, room: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.max_index = start + room

        async def make() -> StepperHarness:
            return StepperHarness(start=start, max_index=self.max_index, max_waiting=8)

        self.harness = self.loop.run_until_complete(make())
        self.names = map(str, range(10**9))
        self.shown = start
        self.waiting: list[tuple[str, int | None]] = []
        self.batch: list[tuple[str, int, Failure | None]] = []
        self.answered: list[tuple[str, int, Failure | None]] = []

    def model_begins(self) -> None:
        index = self.shown
        for name, wanted in self.waiting:
            if wanted is not None and wanted != index:
                failure: Failure | None = Failure.PRECONDITION
            elif index == self.max_index:
                failure = Failure.EXHAUSTED
            else:
                failure, index = None, index + 1
            self.batch.append((name, index, failure))
        self.waiting = []
        if index == self.shown:
            self.model_answers()

    def model_answers(self) -> None:
        if self.batch:
            self.shown = self.batch[-1][1]
        self.answered += self.batch
        self.batch = []
        if self.waiting:
            self.model_begins()

    @rule(ahead=st.none() | st.integers(-2, 6))
    def ask(self, ahead: int | None) -> None:
        name = next(self.names)
        wanted = None if ahead is None else self.shown + ahead
        condition = None if wanted is None else lambda index: index == wanted
        if len(self.waiting) + len(self.batch) == 8:
            with pytest.raises(OverloadedError):
                self.harness.ask(name, condition=condition)
        else:
            self.harness.ask(name, condition=condition)
            self.waiting.append((name, wanted))

    @rule()
    def run_the_loop(self) -> None:
        self.loop.run_until_complete(until_idle())
        if not self.batch:
            self.model_begins()

    @precondition(lambda self: self.batch)
    @rule()
    def finish_the_commit(self) -> None:
        assert self.harness.store.begun() == self.batch[-1][1]
        self.harness.store.finish()
        self.model_answers()
        expected = len(self.answered)

        async def answers() -> None:
            async with asyncio.timeout(PATIENCE):
                await self.harness.answered(expected)
            await until_idle()

        self.loop.run_until_complete(answers())

    @invariant()
    def what_is_shown_and_answered_is_what_the_model_says(self) -> None:
        assert self.harness.sequence.index == self.shown
        assert self.harness.answers == self.answered

    def teardown(self) -> None:
        async def end() -> None:
            self.harness.store.finish(self.harness.stepper.pending + 1)
            await self.harness.stepper.drain()

        self.loop.run_until_complete(end())
        self.harness.stepper.close()
        self.loop.close()


TestAnyOrderOfStepsAndCommits = AnyOrder.TestCase
