"""What the server has to offer at the moment: the sequence and its stepper, or why not.

While the store can't be used (a full disk, say) the service stands with a reason and tries the
store again every second; every request is answered 503 with that reason.
"""

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Final, NoReturn, Self

from fibcore import MAX_EXACT_INDEX, Sequence, Snapshot
from fibcore.admission import Admission
from fibcore.appliance.ending import fail_stop
from fibcore.appliance.settings import Settings
from fibcore.appliance.takeover_history import Takeovers
from fibcore.catching_up import advance_to, is_near
from fibcore.events import event
from fibcore.numbers.queue import NumberQueue
from fibcore.problems import (
    DatabaseInvalidError,
    IndexPastLimitError,
    IndexTooLargeError,
    StoreUnavailableError,
    explain,
)
from fibcore.shared_stepper import SharedStepper
from fibcore.stepper import Look, Stepper
from fibcore.stores import Store
from fibcore.stores.files import backup_problem_path
from fibcore.threads import Worker
from web.http.answers import Form, Latest
from web.http.rendering import Renderings

logger = logging.getLogger("fibcore")

RETRY_SECONDS: Final = 1.0
DRAIN_SECONDS: Final = 1.0
"""For a commit that is under way when the server has done with its connections."""
STALLED_SECONDS: Final = 10.0
"""A commit that takes longer is reported by ``/health``; the steps go on waiting for it."""


class Service:
    """The appliance behind the endpoints.

    Args:
        settings: its bounds.
        open_store: opens the store; called again every second while it raises
            ``StoreUnavailableError``.
        near: a sequence that may stand a little before the store, once; see ``Follower.stop``.
        fail_stop, worker, clock: passed to the stepper.
    """

    def __init__(
        self,
        settings: Settings,
        open_store: Callable[[], Store],
        *,
        near: Callable[[], Sequence | None] = lambda: None,
        fail_stop: Callable[[BaseException], NoReturn] = fail_stop,
        worker: type[Worker] = Worker,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.admission = Admission(
            max_waiting=settings.max_waiting_steps,
            max_in_flight=settings.max_answer_bytes,
            max_shed=settings.max_connections,
        )
        # Those who wait for numbers leave most connections to others.
        self.lookup = NumberQueue(self.admission, max(1, settings.max_connections // 8))
        self.wraps = settings.integers == "uint64"
        """Whether numbers are kept modulo 2**64."""
        self.latest: dict[Form, Latest] = {}
        """The last answer to a read in each form."""
        self.renderings = Renderings()
        """The last answers of ``/status`` and ``/metrics``."""
        self.answered: defaultdict[str, list[int]] = defaultdict(lambda: [0] * 600)
        """How many requests were answered: by the path of the endpoint, and by status."""
        self.connections: Collection[object] = ()
        """Those that are open, where they are known."""
        self.accepted = 0
        """Connections, since the start."""
        self.takeovers = Takeovers()
        self.began = time.time()
        """When this process began to serve, in seconds since 1970."""
        self._backup_problem: str | None = None
        self._backup_problem_until = 0.0
        self.stepper: Stepper | None = None
        self.sequence: Sequence | None = None
        """The stepper's, if what it shows is all that is committed, so that a read need not look:
        this process is the only writer."""
        self._problem: StoreUnavailableError | None = None
        """Why the store could not be opened yet."""
        self._open_store = open_store
        self._near = near
        self._fail_stop = fail_stop
        self._worker = worker
        self._clock = clock
        self.opening: asyncio.Task[None] | None = None
        """Tries the store again, if it could not be opened at once; fails if it is invalid."""

    async def __aenter__(self) -> Self:
        """Open the store and take the sequence up where it stands.

        Raises:
            DatabaseInvalidError: the database can't be trusted, or not be counted on from.
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
        """Open the store, and work out the number that it stands at."""
        settings = self.settings
        store = self._open_store()
        try:
            index = store.read()
            if settings.integers == "exact" and index > MAX_EXACT_INDEX:
                raise IndexTooLargeError(settings.where, index, MAX_EXACT_INDEX)
            if index > settings.max_index:
                raise IndexPastLimitError(settings.where, index, settings.max_index)
            sequence = self._near()
            if sequence is None or not is_near(sequence, index):
                sequence = Sequence(index, integers=settings.integers)
            advance_to(sequence, index)
        except BaseException:
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
            else f"sequence={settings.sequence}",
            settings.integers,
            settings.where,
            extra=event(
                "serving",
                index=str(sequence.index),
                store=settings.where,
                synchronous=settings.synchronous if store.exclusive else None,
                integers=settings.integers,
            ),
        )

    async def _open_when_possible(self) -> None:
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            try:
                # Not on the event loop: it may wait for the disk, and /health must say so.
                taken_up = await asyncio.to_thread(self._take_up)
            except StoreUnavailableError as error:
                self._report(error)
            else:
                self._serve_from(*taken_up)
                return

    async def __aexit__(self, *_: object) -> None:
        """Answer the steps that wait, then close the store.

        Raises:
            DatabaseInvalidError: the store was tried again, and the database can't be trusted.
        """
        await self.lookup.close()
        if self.opening is not None:
            self.opening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.opening
        if self.stepper is None:
            return
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self.stepper.drain()
        except TimeoutError:
            # A node also asks its store when nobody waits for the reply.
            if self.stepper.pending:
                logger.error(
                    "%s, and the server ends without it. Nothing that was answered is lost; the "
                    "steps that wait are not answered.",
                    self._late(self.stepper.stalled_for()),
                    extra=event("stalled"),
                )
        else:
            self.stepper.close()

    def stop(self, seconds: float) -> None:
        """Answer within so many seconds all who wait for a number."""
        self.lookup.stop(seconds)

    @property
    def snapshot(self) -> Snapshot | None:
        """What may be shown without asking: committed, and asked for a moment ago; or None.

        With an exclusive store that is all there is; with a shared one others may be further, and
        what is to be right for a request comes from ``look``.
        """
        return None if self.stepper is None else self.stepper.recent

    def look(self, deliver: Look) -> None:
        """Have ``deliver`` called with what is committed when it is called, or with None.

        With an exclusive store that is at once; with a shared one it is when the store has replied.
        None means that ``reason`` has why nothing can be known.
        """
        if self.stepper is None:
            deliver(None)
        else:
            self.stepper.look(deliver)

    @property
    def warnings(self) -> list[str]:
        """What endangers acknowledged steps, a sentence each, for anybody."""
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
        """Why the store is unusable, as a sentence for anybody; None when it is usable."""
        problem = self.problem
        if problem is not None:
            return problem.public
        if self.stepper is None:
            return "The server is starting."
        stalled = self.stepper.stalled_for()
        if stalled > STALLED_SECONDS:
            return f"{self._late(stalled)}. Steps wait for it; nothing that was answered is lost."
        return None

    @property
    def problem(self) -> StoreUnavailableError | DatabaseInvalidError | None:
        """Why the store is unusable, if that is known. The log has all of it."""
        return self._problem if self.stepper is None else self.stepper.trouble

    def _late(self, seconds: float) -> str:
        """A clause that says how long a commit has taken."""
        who = (
            "The store has not replied"
            if self.settings.database is None
            else ("The disk has not finished a commit")
        )
        return f"{who} for {seconds:.0f} s"
