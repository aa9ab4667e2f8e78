"""The only file here that imports inner parts of the product, and gives them simulated time.

Clock, sleep, thread and randomness reach the product as arguments; nothing is patched.
"""

import asyncio
import random
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NoReturn, cast

import uvicorn
from uvicorn.server import ServerState

from fibcore.appliance.ending import EXIT_COMMIT_FAILED, EXIT_DATABASE_INVALID, EXIT_FAILED
from fibcore.appliance.settings import Settings
from fibcore.follower import Follower
from fibcore.idempotency_key import Key
from fibcore.stores import Opener
from fibcore.stores.engine import EngineOpener, EngineStore
from fibcore.stores.keys import NO_KEYS, KeyConflictError, Keys, check, made_by
from fibcore.stores.link import Batch, Link, RecordGoneError, ReplyLostError
from fibcore.threads import Task, Worker
from tests.simulation.process import Loop, Process, Queue
from web.endpoints.table import TABLE
from web.http.hub import Hub, InOrder
from web.http.protocol import Protocol
from web.life import Life

__all__ = [
    "EXIT_COMMIT_FAILED",
    "EXIT_DATABASE_INVALID",
    "EXIT_FAILED",
    "NO_KEYS",
    "Batch",
    "EngineOpener",
    "EngineStore",
    "Key",
    "KeyConflictError",
    "Keys",
    "Life",
    "Link",
    "RecordGoneError",
    "ReplyLostError",
    "check",
    "life_of",
    "made_by",
    "on_simulated_time",
    "protocol_of",
]

STORE: Final = "postgresql://engine/fib"
"""No simulated store is a file: the product then writes nothing to the real disk."""

CONFIG: Final = cast("uvicorn.Config", None)
"""Only needed for pages, which no client here requests."""


class SimulatedWorker(Worker):
    """A ``Worker`` with a simulated thread, in the process of ``loop``."""

    def __init__(  # Starts no real thread.
        self,
        name: str,  # noqa: ARG002
        loop: asyncio.AbstractEventLoop,
        fail_stop: Callable[[BaseException], NoReturn],
    ) -> None:
        assert isinstance(loop, Loop)
        self._loop = loop
        self._fail_stop = fail_stop
        self._tasks = Queue(loop.process.world)  # type: ignore[assignment]
        self._end = Queue(loop.process.world)
        loop.process.spawn(self._run)

    def do(self, task: Task) -> None:
        self._tasks.put(task)

    def close(self) -> None:
        self._tasks.put(None)
        self._end.get()

    def _run(self) -> None:
        self._work()
        self._end.put(None)


class IdleFollower(Follower):
    """Computes nothing in advance: numbers are short here."""

    def start(self) -> None:
        pass


def life_of(
    process: Process, opener: Opener, max_index: int, another_serves: Callable[[], bool]
) -> Life:
    """Return the life of a server in ``process``."""
    return Life(
        Settings.from_environ({"FIB_STORE": STORE, "FIB_MAX_INDEX": str(max_index)}),
        opener,
        process.end,
        worker=SimulatedWorker,
        clock=process.monotonic,
        follower=IdleFollower,
        another_serves=lambda _: another_serves(),
    )


def protocol_of(life: Life, process: Process) -> tuple[Callable[[], asyncio.Protocol], ServerState]:
    """Return what makes the protocol of a connection, and the state that lists connections."""
    state = ServerState()
    state.connections = InOrder()  # type: ignore[assignment]
    bound: Any = Protocol.bound_to(Hub(life.service, TABLE))
    return partial(bound, CONFIG, state, {}, process.loop), state


def on_simulated_time(opener: EngineOpener, process: Process, chance: random.Random) -> None:
    """Give an opener the clocks of ``process``, and identities from ``chance``."""
    opener.draw = lambda: uuid.UUID(int=chance.getrandbits(128), version=4)
    opener.sleep, opener.clock = process.sleep, process.monotonic
