"""The life of a server: stand by, open the store, serve, drain, exit."""

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NoReturn

from fibcore.appliance import process, servers, takeover_history
from fibcore.appliance.ending import (
    EXIT_FAILED,
    NOT_ENOUGH,
    End,
    end_invalid,
    fail_stop,
    is_lack_of_memory,
)
from fibcore.appliance.settings import Settings
from fibcore.events import event
from fibcore.follower import Follower
from fibcore.problems import (
    CantListenError,
    DatabaseInvalidError,
    InUseError,
    SettingsError,
    StoreUnavailableError,
)
from fibcore.stores import Opener, Store
from fibcore.threads import Worker
from web.service import Service

logger = logging.getLogger("fibcore")


class Life:
    """The life of one server, from its start to its exit, which is always by ``end``.

    Args:
        settings: the server's settings.
        opener: opens the store.
        end: ends the process; must not return.
        worker, clock: passed to the stepper.
        follower: computes the number in advance while this process stands by.
        another_serves: tells whether another process serves the same store.
    """

    def __init__(
        self,
        settings: Settings,
        opener: Opener,
        end: End,
        *,
        worker: type[Worker] = Worker,
        clock: Callable[[], float] = time.monotonic,
        follower: type[Follower] = Follower,
        another_serves: Callable[[Settings], bool] = servers.another_serves,
    ) -> None:
        self._settings = settings
        self._opener = opener
        self._end = end
        self._clock = clock
        self._another_serves = another_serves
        self._follower = follower(opener.peek, settings.integers, settings.max_index)
        self._stood_by = self._is_writer = False
        self._acquired: float | None = None
        """Monotonic time at which the awaited lock was acquired; None if nothing was awaited."""
        self.service = Service(
            settings,
            self._open,
            near=self._follower.stop,
            on_serving=self._start_recording,
            fail_stop=self._fail_stop,
            worker=worker,
            clock=clock,
        )

    def live(self, work: Callable[[], None]) -> NoReturn:
        """Run ``work`` (stand by, then serve), and end the process whatever the outcome."""
        try:
            work()
        except (DatabaseInvalidError, SettingsError, CantListenError) as error:
            end_invalid(error, self._end)
        except InUseError as error:
            logger.warning(
                "%s serves the database %s now, so this process exits. The next one stands by.",
                *("Another process" if error.pid is None else f"Process {error.pid}", error.where),
                extra=event("makes way", server=error.pid),
            )
            self._end(os.EX_TEMPFAIL)
        except Exception as error:
            if is_lack_of_memory(error):
                logger.critical(NOT_ENOUGH, error, extra=event("failed"))
                self._end(os.EX_OSERR)
            logger.critical(
                "Unexpected error; the server is exiting. No acknowledged step is lost; the next "
                "process resumes from the last commit. The error follows.",
                exc_info=True,
                extra=event("failed"),
            )
            self._end(EXIT_FAILED)
        index = None if self.service.snapshot is None else self.service.snapshot.index
        logger.info("stopped at index %s", index, extra=event("stopped", index=str(index)))
        if self._is_writer:
            self._note("stopped")
        self._end(0)

    def _fail_stop(self, error: BaseException) -> NoReturn:
        try:
            stepper = self.service.stepper
            self._note("failed", 0.0 if stepper is None else stepper.stalled_for())
        finally:
            fail_stop(error, self._end)

    def _note(self, ending: takeover_history.Ending, silent: float = 0.0) -> None:
        if self._settings.database is not None:
            takeover_history.note_ending(self._settings.database, ending, silent)

    async def stand_by(self) -> None:
        """Wait until this process may open the store, or it is unavailable and nobody serves it.

        Raises:
            DatabaseInvalidError: it must not open it, until an operator has intervened.
        """

        def wait() -> bool:
            try:
                self._opener.stand_by(self._report)
            except StoreUnavailableError:
                if self._another_serves(self._settings):
                    raise
                return False  # This process must answer 503 with the reason.
            return True

        self._is_writer = await self.service.keep_trying(wait)
        if self._is_writer and self._stood_by:
            logger.info("taking over", extra=event("taking over"))
            self._acquired = self._clock()

    def _open(self) -> Store:
        """Open the store, first trying again for the writer's lock if ``stand_by`` did not get it.

        Raises:
            InUseError: another process serves by now.
        """
        if not self._is_writer:
            try:
                self._opener.stand_by(self._make_way)
            except StoreUnavailableError:
                if self._another_serves(self._settings):
                    self._make_way(None)
                raise
            self._is_writer = True
        return self._opener.open()

    def _make_way(self, pid: int | None) -> NoReturn:
        raise InUseError(self._opener.where, pid)

    def _report(self, pid: int | None) -> None:
        """Log that process ``pid`` serves, and start to follow its number."""
        self._stood_by = True
        logger.info(
            "standing by: process %s serves %s",
            *(pid, self._opener.where),
            extra=event("standby", server=pid),
        )
        if pid is not None and process.listens_elsewhere(pid):
            logger.error(
                "Process %d listens elsewhere: another appliance serves this database, and until "
                "it stops, the clients of this one get no answers. Nothing is lost. Stop the other "
                "appliance, or set FIB_STORE to a different database for this one.",
                pid,
                extra=event("elsewhere", server=pid),
            )
        self._follower.start()

    @contextlib.asynccontextmanager
    async def serving(self, stop: Callable[[], None]) -> AsyncIterator[None]:
        """Open the store, serve inside the context, then drain.

        Args:
            stop: called if the store could not be opened at first and then proves invalid.

        Raises:
            DatabaseInvalidError: the database can't be trusted.
        """

        def stop_if_failed(opening: asyncio.Task[None]) -> None:
            if not opening.cancelled() and opening.exception() is not None:
                stop()

        async with self.service as service:
            if service.opening is not None:
                service.opening.add_done_callback(stop_if_failed)
            yield

    def _start_recording(self) -> None:
        database = self._settings.database
        if database is None:
            return
        seconds = None if self._acquired is None else self._clock() - self._acquired
        # In a thread: no client has to wait for the disk.
        threading.Thread(target=self._record, args=(database, seconds), daemon=True).start()

    def _record(self, database: Path, seconds: float | None) -> None:
        """Record that this process serves, ``seconds`` after it got the lock, if it awaited it."""
        known = self.service.takeovers = takeover_history.record(database, seconds)
        if seconds is not None and known.after is not None and known.seconds is not None:
            logger.info(
                "took over: the previous server %s; nothing was served for %.0f ms",
                *(takeover_history.ENDINGS[known.after], 1000 * known.seconds),
                extra=event(
                    "takeover", after=known.after, seconds=known.seconds, number=known.number
                ),
            )
