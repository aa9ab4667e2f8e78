"""Variants of the server for the controls, each without one of its protections.

A passing test proves little until it has failed: each fault is also tried on a server without the
protection against it, and must then do harm.

    python server_variants.py answers_before_the_commit
"""

import contextlib
import ctypes
import hashlib
import inspect
import itertools
import logging
import math
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NoReturn, TypeAlias

from fibcore.admission import Budget, ShedPace
from fibcore.appliance import logs, process
from fibcore.appliance.heartbeat import Heartbeat
from fibcore.problems import CommitFailedError, EngineUnavailableError
from fibcore.stepper import Stepper
from fibcore.stores import sqlite, sqlite_file
from fibcore.stores.engine import EngineStore
from fibcore.stores.keys import NO_KEYS, Keys
from fibcore.stores.link import Batch, Link, ReplyLostError
from fibcore.stores.lock import WriterLock
from fibcore.stores.sqlite import SqliteStore
from fibcore.threads import Task, Worker
from web import server
from web.http import hub, kernel, turns
from web.http.connection import Connection
from web.http.hub import Hub
from web.http.rendering import Renderings
from web.http.turns import Turns

Made: TypeAlias = Mapping[bytes, int] | None


def answers_before_the_commit() -> None:
    """A batch is answered at once, and committed when the second batch after it arrives.

    So at any moment some acknowledged steps are not committed.
    """

    answered: list[int] = []

    def commit(self: Stepper, steps: int, keys: Keys) -> Callable[[], None]:  # noqa: ARG001
        self._loop.call_soon_threadsafe(self._answer)
        answered.append(steps)
        if len(answered) > 2:
            self._store.advance(answered.pop(0))
        return lambda: None

    Stepper._commit = commit  # type: ignore[method-assign]


def commits_in_the_event_loop() -> None:
    """A commit blocks the event loop."""

    def do(self: Worker, task: Task) -> None:
        self._loop.call_soon(task())

    Worker.do = do  # type: ignore[method-assign]


def commits_each_step_by_itself() -> None:
    """Each commit has one step, however many wait."""
    begin = Stepper._begin

    def begin_one(self: Stepper) -> None:
        self._waiting, rest = self._waiting[:1], self._waiting[1:]
        begin(self)
        self._waiting = rest

    Stepper._begin = begin_one  # type: ignore[method-assign]


def answers_after_a_failed_commit() -> None:
    """Errors of the disk are ignored."""
    commit = SqliteStore.commit

    def commit_or_not(self: SqliteStore, index: int, made: Made = None) -> None:
        with contextlib.suppress(CommitFailedError):
            commit(self, index, made)

    SqliteStore.commit = commit_or_not  # type: ignore[method-assign]


def keeps_deadlines_by_the_wall_clock() -> None:
    """Deadlines use the time of day, and pauses count."""
    hub.CHARGED_SECONDS = math.inf  # type: ignore[misc]

    class WallClock:
        time = staticmethod(time.time)

    tell_time = Hub._tell_time

    def tell_the_time_of_day(self: Hub, loop: object) -> None:  # noqa: ARG001
        tell_time(self, WallClock())  # type: ignore[arg-type]

    Hub._tell_time = tell_the_time_of_day  # type: ignore[method-assign]


def keeps_parts_of_requests_without_bound() -> None:
    """Incomplete requests are bounded per connection, but not in total."""
    hub.MAX_PARTS = sys.maxsize  # type: ignore[misc]


def takes_turns_of_any_length() -> None:
    """A turn handles all that arrived, a timer beats, and nothing is rendered once for all."""
    turns.AT_ONCE = turns.ROUND = 32  # type: ignore[misc]
    turns.UNTIMED = sys.maxsize  # type: ignore[misc]
    Turns.at_once = 32  # type: ignore[method-assign,assignment]

    def put_off(self: Turns, connection: turns.Waits) -> None:  # noqa: ARG001
        connection.loop.call_soon(connection.take_turn)

    Turns.put_off = put_off  # type: ignore[method-assign]
    Heartbeat.turned = lambda _: None  # type: ignore[method-assign,assignment]
    Renderings.answer = lambda _, __, make: make()  # type: ignore[method-assign,assignment]


def closes_at_once_whom_it_turns_away() -> None:
    """Nothing more is read from a rejected client."""

    def turn_away(self: Hub, connection: Connection) -> None:  # noqa: ARG001
        connection.abort()

    Hub.turn_away = turn_away  # type: ignore[method-assign,assignment]


def evicts_nobody() -> None:
    """Idle connections are never evicted."""
    Hub._make_room = lambda _: False  # type: ignore[method-assign,assignment]


def fails_at_its_start() -> None:
    """An unexpected error."""

    def fail(_: object) -> NoReturn:
        raise RuntimeError("nobody has foreseen this")

    process.acceptors = fail  # type: ignore[assignment]


def has_a_thread_that_does_not_end() -> None:
    """No protection is removed: a thread is busy when the server exits."""
    threading.Thread(target=threading.Event().wait).start()


def takes_connections_without_descriptors() -> None:
    """The bound on connections ignores the limit on descriptors."""
    process.allow_connections = lambda wanted: wanted


def opens_its_database_at_each_commit() -> None:
    """A commit needs a new descriptor."""
    commit = SqliteStore.commit

    def open_and_commit(self: SqliteStore, index: int, made: Made = None) -> None:
        kept = self._connection
        with contextlib.closing(sqlite_file.connect(self._path)) as self._connection:
            commit(self, index, made)
        self._connection = kept

    SqliteStore.commit = open_and_commit  # type: ignore[method-assign]


def counts_no_bytes_in_flight() -> None:
    """Answers in flight may take any amount of memory."""
    Budget.fits = lambda *_: True  # type: ignore[method-assign]


def lets_the_kernel_take_what_it_likes() -> None:
    """The kernel may buffer answers of any size."""
    hub.least_share = lambda *_: 2**30  # type: ignore[attr-defined]


def lends_without_bound() -> None:
    """Each client that reads an answer gets the largest share of the kernel's buffers."""
    kernel.Share._of_each = lambda *_: kernel.MOST_SHARE  # type: ignore[method-assign]
    Budget.lend = lambda *_: True  # type: ignore[method-assign]


def forgets_what_it_has_closed() -> None:
    """Bytes in the kernel for closed connections do not count."""
    kernel.Share.held = 0  # type: ignore[assignment,method-assign]


def keeps_all_freed_memory() -> None:
    """Freed memory stays with malloc."""
    process.give_back_memory = lambda: None


def sheds_at_any_pace() -> None:
    """Every 503 is sent at once."""
    ShedPace.submit = lambda _, shed: shed()  # type: ignore[method-assign,assignment]


def takes_no_lock() -> None:
    """Servers serve side by side, and none checks whether another has written."""

    def acquire(self: WriterLock, *, wait: bool) -> bool:  # noqa: ARG001
        return True

    def commit(self: SqliteStore, index: int, made: Made = None) -> None:  # noqa: ARG001
        self._connection.execute(
            "UPDATE sequence SET n = ?, digest = ?", (index, sqlite_file.index_digest(index))
        )

    WriterLock.acquire = acquire  # type: ignore[method-assign]
    SqliteStore.commit = commit  # type: ignore[method-assign]


class WithoutIdentity:
    """A link that gives a batch a new number at each attempt."""

    numbers = itertools.count(1)

    def __init__(self, link: Link) -> None:
        self._link = link

    def __getattr__(self, name: str) -> object:
        return getattr(self._link, name)

    def commit(self, batch: Batch) -> int:
        return self._link.commit(batch._replace(number=next(self.numbers)))

    def settle(self, number: int) -> int:  # noqa: ARG002
        return 0


def makes_a_batch_again() -> None:
    """A batch whose reply was lost is sent again as a new batch."""
    connected = EngineStore._connected
    EngineStore._connected = (  # type: ignore[method-assign]
        lambda self: WithoutIdentity(connected(self))  # type: ignore[assignment,return-value]
    )


def takes_a_lost_batch_for_made() -> None:
    """A batch whose reply was lost counts as applied."""

    def advance_or_suppose(
        self: EngineStore,
        steps: int,
        expected: int | None = None,
        limit: int | None = None,
        keys: Keys = NO_KEYS,  # noqa: ARG001
    ) -> int:
        stood = self.read()
        self._number += 1
        batch = Batch(self._number, steps, expected, limit)
        try:
            link = self._connected()
            with self._dropping_if_it_fails():
                return link.commit(batch)
        except ReplyLostError:
            return stood + steps

    EngineStore.advance = advance_or_suppose  # type: ignore[method-assign]


def takes_a_refusal_for_an_answer() -> None:
    """Any error reply counts as the outcome of a batch, even after a lost reply."""

    def done(self: EngineStore, batch: Batch) -> int:
        is_sent = False
        while True:
            with contextlib.suppress(ReplyLostError, EngineUnavailableError):
                link = self._connected()
                with self._dropping_if_it_fails():
                    if is_sent:
                        if reached := link.settle(self._number):
                            return reached
                        self._number += 1
                    is_sent = True
                    return link.commit(batch._replace(number=self._number))

    EngineStore._done = done  # type: ignore[method-assign]


def outlives_supervisord() -> None:
    """The server survives its supervisord."""
    process.end_with_supervisord = lambda: None


def leaves_its_socket_to_a_child() -> None:
    """A child keeps the listening socket open for half a minute."""
    subprocess.Popen(["sleep", "30"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _loop(*_: object) -> None:
    while True:
        pass


WAYS_TO_HANG: Final[Mapping[str, Callable[[], object]]] = {
    "it waits for good": lambda: time.sleep(3600),
    "it loops": _loop,
    "it waits, and no thread can run Python": lambda: ctypes.PyDLL(None).sleep(3600),
    "it loops outside of Python, and lets no thread run any": (
        lambda: deque(itertools.repeat(None), maxlen=0)
    ),
    "it loops outside of Python": (lambda: hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)),
    "it loops in the next step": lambda: setattr(Stepper, "submit", _loop),
}


def hangs_at_a_signal() -> None:
    """No protection is removed: each real-time signal makes the event loop hang in another way."""
    for number, hang in enumerate(WAYS_TO_HANG.values(), signal.SIGRTMIN):
        signal.signal(number, lambda *_, hang=hang: hang())


def writes_its_log_itself() -> None:
    """Logging blocks until the log is written."""
    logs.set_up = lambda form, **_: logging.basicConfig(format=form, level=logging.INFO)


def checkpoints_often() -> None:
    """No protection is removed: a checkpoint every few commits, rather than every thousand."""
    sqlite.WAL_PAGES = 3  # type: ignore[misc]


def variant(change: Callable[[], None]) -> list[str]:
    """The command that runs the server with that change."""
    return [sys.executable, inspect.getfile(change), change.__name__]


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    server.main()
