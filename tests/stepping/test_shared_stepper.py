"""Group commit over a store that others step, too: a fake one that moves when the test says so."""

import asyncio
import contextlib
import random
import threading
from collections.abc import AsyncIterator, Callable
from queue import SimpleQueue
from typing import NoReturn

import pytest

from fibcore import Sequence, Snapshot, shared_stepper
from fibcore.admission import Admission
from fibcore.shared_stepper import SharedStepper
from fibcore.stepper import Condition, Failure, Outcome
from fibcore.stores import DurabilityWarning, IndexConflictError, Store
from fibcore.stores.keys import NO_KEYS, KeptKeys, Key, Keys, check, made_by
from tests.support.reference import digits_of
from tests.support.waiting import PATIENCE, in_a_loop, until_idle


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    # In none of these tests a reply is missing: where one is late, that is the machine's.
    monkeypatch.setattr(shared_stepper, "PATIENCE_SECONDS", PATIENCE)


class FakeEngine:
    """Where the index lives, for several stores at once."""

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self.lock = threading.Lock()
        self.kept = KeptKeys(0)

    def step(self, steps: int = 1) -> None:
        with self.lock:
            self.index += steps


class FakeEngineStore:
    """One node's way to the engine; each question waits for its turn if ``blocking``."""

    exclusive = False
    where = "engine"
    warnings: tuple[DurabilityWarning, ...] = ()
    doubt: Exception | None = None
    kept_keys: int | None = None

    def __init__(self, engine: FakeEngine, *, blocking: bool = False) -> None:
        self.engine = engine
        self.asked: list[tuple[int, int | None]] = []
        self.closed = False
        self.trouble: Exception | None = None
        self.meanwhile: Callable[[], None] = lambda: None
        """Done by others after each question was sent, and before it arrives."""
        self._blocking = blocking
        self._begun: SimpleQueue[tuple[int, int | None]] = SimpleQueue()
        self._turns: SimpleQueue[None] = SimpleQueue()

    def read(self) -> int:
        self._wait(0, None)
        return self.engine.index

    def advance(
        self,
        steps: int,
        expected: int | None = None,
        limit: int | None = None,
        keys: Keys = NO_KEYS,
    ) -> int:
        assert limit is not None
        self._wait(steps, expected)
        with self.engine.lock:
            index = self.engine.index
            if expected not in (None, index) or index + steps > limit:
                raise IndexConflictError(index)
            check(keys, self.engine.kept.made, index, self.engine.kept.dropped)
            self.engine.index = index + steps
            if steps:
                self.engine.kept.add(index + steps, made_by(keys, index))
            return index + steps

    def _wait(self, steps: int, expected: int | None) -> None:
        self.asked.append((steps, expected))
        self._begun.put((steps, expected))
        if self._blocking:
            self._turns.get(timeout=PATIENCE)
        self.meanwhile()
        if self.trouble is not None:
            raise self.trouble

    def close(self) -> None:
        self.closed = True

    def begun(self) -> tuple[int, int | None]:
        """Wait until a question is under way; return it."""
        return self._begun.get(timeout=PATIENCE)

    def go_on(self, questions: int = 1) -> None:
        for _ in range(questions):
            self._turns.put(None)


class Node:
    """A stepper over the engine, and what it has answered so far."""

    def __init__(
        self, store: FakeEngineStore, *, max_index: int = 1_000_000, start: int | None = None
    ) -> None:
        self.store = store
        self.answers: list[tuple[str, int, Outcome]] = []
        self.looks: list[int | None] = []
        self.errors: SimpleQueue[BaseException] = SimpleQueue()
        self._changed = asyncio.Event()
        self.stepper = SharedStepper(
            Sequence(store.engine.index if start is None else start),
            store,
            asyncio.get_running_loop(),
            Admission(max_waiting=1_000, max_in_flight=2**20),
            max_index=max_index,
            fail_stop=self.fail_stop,
        )

    def fail_stop(self, error: BaseException) -> NoReturn:
        self.errors.put(error)
        while True:
            threading.Event().wait()

    def deliver(self, snapshot: Snapshot, failure: Outcome, name: str) -> None:
        assert snapshot.current == digits_of(snapshot.index)
        self.answers.append((name, snapshot.index, failure))
        self._changed.set()

    def ask(self, *names: str, condition: Condition | None = None, key: Key | None = None) -> None:
        for name in names:
            self.stepper.submit(self.deliver, condition, name, key)

    def look(self) -> None:
        def seen(snapshot: Snapshot | None) -> None:
            assert snapshot is None or snapshot.current == digits_of(snapshot.index)
            self.looks.append(None if snapshot is None else snapshot.index)
            self._changed.set()

        self.stepper.look(seen)

    async def begun(self) -> tuple[int, int | None]:
        return await asyncio.to_thread(self.store.begun)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until it holds of what has been answered, to steps or to looks."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()


@contextlib.asynccontextmanager
async def node(
    engine: FakeEngine,
    *,
    blocking: bool = False,
    max_index: int = 1_000_000,
    start: int | None = None,
) -> AsyncIterator[Node]:
    made = Node(FakeEngineStore(engine, blocking=blocking), max_index=max_index, start=start)
    yield made
    made.store.go_on(1_000)
    await made.stepper.drain()
    made.stepper.close()
    assert made.store.closed


def test_the_fake_store_is_a_store() -> None:
    store: Store = FakeEngineStore(FakeEngine())
    store.close()


@in_a_loop
async def test_steps_that_wait_share_a_batch_numbered_at_its_commit() -> None:
    """The numbers are those of where the store stood then."""
    engine = FakeEngine(10)
    async with node(engine) as it:
        it.store.meanwhile = lambda: engine.step(5)
        it.ask("a", "b", "c")
        await it.stepper.drain()
        assert it.store.asked == [(3, None)]
        assert it.answers == [("a", 16, None), ("b", 17, None), ("c", 18, None)]
        assert engine.index == 18


@in_a_loop
async def test_reads_that_wait_share_one_look() -> None:
    """They see what others have stepped."""
    engine = FakeEngine(10)
    async with node(engine, blocking=True) as it:
        it.look()
        assert await it.begun() == (0, None)
        for _ in range(50):
            it.look()
        engine.step(7)
        it.store.go_on()
        await it.until(lambda: it.looks == [17])
        engine.step(20_000)
        it.store.go_on()
        await it.until(lambda: len(it.looks) == 51)
        assert it.looks == [17] + [20_017] * 50
        assert it.store.asked == [(0, None), (0, None)]


@in_a_loop
async def test_a_read_that_comes_after_a_question_waits_for_the_next() -> None:
    engine = FakeEngine()
    async with node(engine, blocking=True) as it:
        it.ask("a")
        assert await it.begun() == (1, None)
        it.look()
        await until_idle()
        it.store.go_on()
        await it.until(lambda: it.answers == [("a", 1, None)])
        assert it.looks == []
        engine.step()
        it.store.go_on()
        await it.until(lambda: it.looks == [2])


@in_a_loop
async def test_reads_and_steps_that_wait_together_cost_one_question() -> None:
    engine = FakeEngine(5)
    async with node(engine) as it:
        it.look()
        it.ask("a", "b")
        await it.stepper.drain()
        assert it.store.asked == [(2, None)]
        assert (it.answers, it.looks) == ([("a", 6, None), ("b", 7, None)], [7])


# Conditions


@in_a_loop
async def test_a_condition_is_met_only_at_the_index_of_its_commit() -> None:
    engine = FakeEngine(5)
    async with node(engine) as it:
        it.ask("a", condition=lambda index: index == 5)
        await it.stepper.drain()
        assert it.answers == [("a", 6, None)]
        it.store.meanwhile = engine.step
        it.ask("b", condition=lambda index: index == 6)
        await it.stepper.drain()
        assert it.answers[1:] == [("b", 7, Failure.PRECONDITION)]
        assert engine.index == 7


@in_a_loop
async def test_a_condition_on_an_index_not_seen_is_looked_at_again() -> None:
    """It is not rejected by where the store stood once."""
    engine = FakeEngine(5)
    async with node(engine) as it:
        engine.step(2)  # Which the client has seen at another node.
        it.ask("a", condition=lambda index: index == 7)
        await it.stepper.drain()
        assert it.answers == [("a", 8, None)]
        assert it.store.asked == [(0, None), (1, 7)]


@in_a_loop
async def test_steps_without_a_condition_do_not_wait_for_others() -> None:
    """Those with one are met only when the others stand still."""
    engine = FakeEngine()
    async with node(engine) as it:
        it.store.meanwhile = engine.step
        it.ask("any", condition=lambda _: True)
        it.ask("free", "too")
        await it.until(lambda: len(it.answers) == 2)
        assert {name for name, _, _ in it.answers} == {"free", "too"}
        it.store.meanwhile = lambda: None
        await it.stepper.drain()
        assert it.answers[2][0] == "any"
        assert it.answers[2][2] is None


@in_a_loop
async def test_without_expected_a_step_would_leave_from_another_index() -> None:
    """The control of the conditions: it is the store that keeps them."""
    engine = FakeEngine(5)

    class Careless(FakeEngineStore):
        def advance(
            self,
            steps: int,
            expected: int | None = None,  # noqa: ARG002
            limit: int | None = None,
            keys: Keys = NO_KEYS,
        ) -> int:
            return super().advance(steps, None, limit, keys)

    it = Node(Careless(engine))
    it.store.meanwhile = engine.step
    it.ask("a", condition=lambda index: index == 5)
    await it.stepper.drain()
    assert it.answers == [("a", 7, None)]
    it.stepper.close()


@in_a_loop
async def test_no_step_passes_the_largest_index_whoever_else_steps() -> None:
    engine = FakeEngine(10)
    async with node(engine, max_index=14) as it:
        it.store.meanwhile = lambda: engine.step(2) if engine.index == 10 else None
        it.ask("a", "b", "c", "d")
        await it.stepper.drain()
        assert it.answers == [
            ("a", 13, None),
            ("b", 14, None),
            ("c", 14, Failure.EXHAUSTED),
            ("d", 14, Failure.EXHAUSTED),
        ]
        assert engine.index == 14


# Several nodes


def test_three_nodes_hand_out_every_index_once() -> None:
    """No condition is broken."""
    engine = FakeEngine()
    drawn = random.Random(1)
    handed: list[int] = []

    async def test() -> None:
        async with node(engine) as one, node(engine) as two, node(engine) as three:
            nodes = [one, two, three]
            for _ in range(300):
                it = drawn.choice(nodes)
                wanted = drawn.choice([None, None, engine.index, engine.index + 1])
                if wanted is None:
                    it.ask("step")
                else:
                    it.ask(str(wanted), condition=lambda index, wanted=wanted: index == wanted)  # type: ignore[misc]
                if drawn.random() < 0.3:
                    it.look()
                if drawn.random() < 0.2:
                    # What is asked before and behind it comes in different turns.
                    await asyncio.sleep(0)
            for it in nodes:
                await it.stepper.drain()
            for it in nodes:
                for name, index, failure in it.answers:
                    if failure is None:
                        handed.append(index)
                        assert name in ("step", str(index - 1))
                assert it.looks == sorted(i for i in it.looks if i is not None)

    in_a_loop(test)()
    assert sorted(handed) == list(range(1, engine.index + 1))
