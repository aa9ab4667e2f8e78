"""The product's server in the simulated world, over a store in memory."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest

from bench.checker import Summary, WrongAnswer, check
from fibcore.stores.keys import NO_KEYS, Keys
from tests.simulation.clients import Client, History
from tests.simulation.network import Listener, Network
from tests.simulation.process import Process
from tests.simulation.server import DEFAULTS, Server
from tests.simulation.world import World


class Memory:
    """What is left of the stores of processes that were killed."""

    index = 0


class MemoryStore:
    """An exclusive store, the commits of which take a while."""

    exclusive = True
    where = "memory"
    doubt: Exception | None = None
    kept_keys = None
    warnings = ()

    def __init__(self, process: Process, memory: Memory) -> None:
        self._process = process
        self._memory = memory

    def read(self) -> int:
        return self._memory.index

    def advance(
        self,
        steps: int,
        expected: int | None = None,
        limit: int | None = None,
        keys: Keys = NO_KEYS,
    ) -> int:
        assert expected == self._memory.index
        assert limit is None
        assert not keys
        self.commit(steps)
        return self._memory.index

    def commit(self, steps: int) -> None:
        self._process.sleep(0.01 * self._process.world.random.random())
        self._memory.index += steps
        self._process.sleep(0.01 * self._process.world.random.random())

    def close(self) -> None:
        pass


class Forgetful(MemoryStore):
    """The control: it replies before it commits."""

    def commit(self, steps: int) -> None:
        self._process.spawn(partial(super().commit, steps))


class Run(NamedTuple):
    trace: list[str]
    check: Callable[[], Summary]

    def checked(self) -> Summary:
        return self.check()


def run(seed: int, store: type[MemoryStore] = MemoryStore) -> Run:
    """Four clients, and a server that is killed and started again."""
    world = World(seed, tracing=True)
    listener, memory, history = Listener(Network(world), "a"), Memory(), History()

    def start() -> Server:
        process = Process(world, "server", "a")
        return Server(process, listener, DEFAULTS, lambda: store(process, memory))

    def script(client: Client) -> None:
        for _ in range(10):
            client.ask("next" if world.random.random() < 0.7 else "current")
            client.pause(world.random.random() * 0.02)

    clients = Process(world, "clients")
    for number in range(4):
        Client(clients, f"client {number}", [listener], history).start(script)
    world.after(0.05 + 0.1 * world.random.random(), None, start().process.kill)
    world.after(0.2, None, start)
    world.run(60)
    world.close()
    return Run(world.trace, lambda: check(history.operations, first=0, last=memory.index))


def test_what_was_answered_before_a_kill_is_there_after_it() -> None:
    for seed in range(20):
        assert run(seed).checked().steps > 10


def test_a_store_that_replies_before_it_commits_is_found_out() -> None:
    runs = [run(seed, Forgetful) for seed in range(20)]
    with pytest.raises(WrongAnswer):
        list(map(Run.checked, runs))


def test_one_seed_is_one_run() -> None:
    assert run(7).trace == run(7).trace != run(8).trace
