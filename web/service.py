"""The service behind the endpoints: the sequence and its stepper, or why the store is unavailable.

While it is (a full disk, say), steps and reads of the sequence get a 503 with the reason, and the
service retries the store every second.
"""

import asyncio
import contextlib
import hashlib
import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn, Self, TypeVar

from fibcore import Sequence, Snapshot
from fibcore.appliance.ending import fail_stop
from fibcore.appliance.settings import Settings
from fibcore.appliance.takeover_history import Takeovers
from fibcore.catching_up import advance_to, is_near
from fibcore.events import event
from fibcore.numbers.queue import NumberQueue
from fibcore.problems import (
    IndexPastLimitError,
    StoreProblem,
    StoreUnavailableError,
    explain,
)
from fibcore.shared_stepper import SharedStepper
from fibcore.stepper import DeliverRead, Stepper
from fibcore.stores import Store
from fibcore.stores.files import backup_problem_path
from fibcore.threads import Worker
from web.http.answers import Form, Latest
from web.http.rendering import Renderings
from web.http.routing import Backend

logger = logging.getLogger("fibcore")

RETRY_SECONDS: Final = 1.0
DRAIN_SECONDS: Final = 1.0
"""Time allowed for a commit that is under way once all connections are done."""
STALLED_SECONDS: Final = 10.0
"""``/health`` reports a commit that takes longer; the steps keep waiting for it."""

T = TypeVar("T")


class Service(Backend):
    """The appliance behind the endpoints.

    Args:
        settings: the server's settings.
        open_store: opens the store; called again every second while it raises
            ``StoreUnavailableError``.
        near: returns, once, a sequence that may be a little behind the store; see
            ``Follower.stop``.
        on_serving: called when the store has been opened.
        fail_stop, worker, clock: passed to the stepper.
    """

    def __init__(
        self,
        settings: Settings,
        open_store: Callable[[], Store],
        *,
        near: Callable[[], Sequence | None] = lambda: None,
        on_serving: Callable[[], object] = lambda: None,
        fail_stop: Callable[[BaseException], NoReturn] = fail_stop,
        worker: type[Worker] = Worker,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(settings)
        self.node = _node_of(settings.port)
        # Requests that wait for numbers leave most connections to others.
        self.lookup = NumberQueue(self.admission, max(1, settings.max_connections // 8))
        self.wraps = settings.integers == "uint64"
        """Whether numbers are computed modulo 2**64."""
        self.latest: dict[Form, Latest] = {}
        """The last answer to a read in each form."""
        self.renderings = Renderings()
        """The last answers of ``/status`` and ``/metrics``."""
        self.takeovers = Takeovers()
        self.began = time.time()
        """When this process began to serve, in seconds since 1970."""
        self._backup_problem: str | None = None
        self._backup_problem_until = 0.0
        self.stepper: Stepper | None = None
        self.sequence: Sequence | None = None
        """The stepper's sequence if this process is the only writer: reads then need not ask the
        store. Otherwise None."""
        self._problem: StoreUnavailableError | None = None
        """Why the store is not open yet."""
        self._open_store = open_store
        self._past_limit: Store | None = None
        """The open store, if its index exceeds ``FIB_MAX_INDEX``. To open it again each second
        would write as much as a takeover does."""
        self._near = near
        self._on_serving = on_serving
        self._fail_stop = fail_stop
        self._worker = worker
        self._clock = clock
        self.opening: asyncio.Task[None] | None = None
        """Retries a store that could not be opened at once; fails if it is invalid."""

    async def __aenter__(self) -> Self:
        """Open the store and resume the sequence at its index.

        Raises:
            DatabaseInvalidError: the database can't be trusted, or its index is past a limit.
        """
        self.began = time.time()
        self.renderings.clock = asyncio.get_running_loop().time
        try:
            self._serve_from(*self._take_up())
        except StoreUnavailableError as error:
            self._report(error)
            self.opening = asyncio.get_running_loop().create_task(self._open_when_possible())
        return self

    def _report(self, problem: StoreUnavailableError) -> None:
        if self._problem is None or str(problem) != str(self._problem):
            logger.error("%s", explain(problem), extra=event("unavailable"))
        self._problem = problem

    def _take_up(self) -> tuple[Store, Sequence]:
        """Open the store, and compute the number at its index."""
        settings = self.settings
        store, self._past_limit = self._past_limit or self._open_store(), None
        try:
            index = store.read()
            problem = settings.problem_at(index)
            if isinstance(problem, IndexPastLimitError):
                self._past_limit = store
            if problem is not None:
                raise problem
            sequence = self._near()
            if sequence is None or not is_near(sequence, index):
                sequence = Sequence(index, integers=settings.integers)
            advance_to(sequence, index)
        except BaseException:
            if self._past_limit is None:
                store.close()
            raise
        return store, sequence

    def _serve_from(self, store: Store, sequence: Sequence) -> None:
        settings = self.settings
        kind = Stepper if store.exclusive else SharedStepper
        self.stepper = kind(
            sequence,
            store,
            asyncio.get_running_loop(),
            self.admission,
            max_index=settings.max_index,
            fail_stop=self._fail_stop,
            worker=self._worker,
            clock=self._clock,
        )
        self.sequence = sequence if store.exclusive else None
        logger.info(
            "serving from index %d; %s, integers=%s, %s",
            sequence.index,
            f"synchronous={settings.synchronous}"
            if store.exclusive
            else f"node={self.node}, sequence={settings.sequence}",
            settings.integers,
            settings.where,
            extra=event(
                "serving",
                node=self.node,
                index=str(sequence.index),
                store=settings.where,
                synchronous=settings.synchronous if store.exclusive else None,
                integers=settings.integers,
            ),
        )
        self._on_serving()

    async def _open_when_possible(self) -> None:
        # It was tried a moment ago.
        await asyncio.sleep(RETRY_SECONDS)
        self._serve_from(*await self.keep_trying(self._take_up))

    async def keep_trying(self, attempt: Callable[[], T]) -> T:
        """Call ``attempt`` every second until the store is available to it; return its result.

        In a thread: it may wait for a lock or the disk, while signals are handled and ``/health``
        is answered.
        """
        while True:
            try:
                return await asyncio.to_thread(attempt)
            except StoreUnavailableError as error:
                self._report(error)
            await asyncio.sleep(RETRY_SECONDS)

    async def __aexit__(self, *_: object) -> None:
        """Answer the waiting steps, then close the store.

        Raises:
            DatabaseInvalidError: a retry found that the database can't be trusted.
        """
        await self.lookup.close()
        if self.opening is not None:
            self.opening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.opening
        if self._past_limit is not None:
            self._past_limit.close()
        if self.stepper is None:
            return
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self.stepper.drain()
        except TimeoutError:
            # A node also queries its store when no request waits for the reply.
            if self.stepper.pending:
                logger.error(
                    "%s; the server exits without it. No acknowledged step is lost; the waiting "
                    "steps get no answer.",
                    self._late(self.stepper.stalled_for()),
                    extra=event("stalled"),
                )
        else:
            self.stepper.close()

    def stop(self, seconds: float) -> None:
        self.lookup.stop(seconds)

    @property
    def snapshot(self) -> Snapshot | None:
        """As the store last replied.

        It is exact with an exclusive store. With a shared one other nodes may be further: a
        linearizable read uses ``read``.
        """
        return None if self.stepper is None else self.stepper.recent

    def read(self, deliver: DeliverRead) -> None:
        """Call ``deliver`` with the committed state, or with None if it is unknown (see
        ``reason``).

        At once with an exclusive store; with a shared one, when the store has replied.
        """
        if self.stepper is None:
            deliver(None)
        else:
            self.stepper.read(deliver)

    @property
    def warnings(self) -> list[str]:
        """What endangers acknowledged steps: public sentences."""
        stepper, backup = self.stepper, self.backup_problem
        warnings = [] if stepper is None else [e.explain("The store") for e in stepper.warnings]
        return warnings if backup is None else [*warnings, f"No backup copy is made. {backup}"]

    @property
    def backup_problem(self) -> str | None:
        """Why the last attempt to make a backup copy failed, at most a second ago; else None."""
        now = time.monotonic()
        if now >= self._backup_problem_until:
            self._backup_problem_until = now + 1.0
            self._backup_problem = None
            if self.settings.database is not None:
                with contextlib.suppress(OSError, UnicodeDecodeError):
                    path = backup_problem_path(self.settings.database)
                    self._backup_problem = path.read_text()[:1000]
        return self._backup_problem

    @property
    def reason(self) -> str | None:
        """Why the store is unusable, as a public sentence; None when it is usable."""
        problem = self.problem
        if problem is not None:
            return problem.public
        if self.stepper is None:
            return "The server is starting."
        stalled = self.stepper.stalled_for()
        if stalled > STALLED_SECONDS:
            return f"{self._late(stalled)}. Steps wait for it; no acknowledged step is lost."
        return None

    @property
    def problem(self) -> StoreProblem | None:
        """The problem that makes the store unusable, if known. The log has the details."""
        return self._problem if self.stepper is None else self.stepper.problem

    def _late(self, seconds: float) -> str:
        """A clause that says how long the commit has taken so far."""
        who = (
            "The store has not replied"
            if self.settings.database is None
            else "A commit has been waiting for the disk"
        )
        return f"{who} for {seconds:.0f} s"


def _node_of(port: int) -> str:
    """The name of the node with ``port`` on this machine, which the log and ``/status`` show.

    It stays the same, and tells a client neither the host nor the machine ID (machine-id(5)).
    """
    try:
        machine = Path("/etc/machine-id").read_text()
    except OSError:
        machine = ""
    return hashlib.sha256(f"{machine}{socket.gethostname()}:{port}".encode()).hexdigest()[:8]
