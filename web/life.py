"""The life of a server: it stands by, opens the store, serves, drains, and ends."""

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Final, NoReturn

from fibcore.appliance import process, takeover_history
from fibcore.appliance.ending import (
    EXIT_DATABASE_INVALID,
    EXIT_FAILED,
    EXIT_SETTINGS_INVALID,
    NOT_ENOUGH,
    End,
    fail_stop,
    how_to_start_again,
    is_lack_of_memory,
)
from fibcore.appliance.settings import Settings
from fibcore.events import event
from fibcore.follower import Follower
from fibcore.problems import (
    CantListenError,
    DatabaseInvalidError,
    SettingsError,
    StoreUnavailableError,
    explain,
)
from fibcore.stores import Opener
from fibcore.threads import Worker
from web.service import RETRY_SECONDS, Service

logger = logging.getLogger("fibcore")

ENDINGS: Final[dict[takeover_history.Ending, str]] = {
    "stopped": "was told to stop",
    "failed": "ended because a commit failed",
    "hung": "hung, and was ended by the watchdog",
    "killed": "was killed, or has crashed",
}


def end_invalid(error: Exception, status: int, end: End) -> NoReturn:
    """End the process because of what a person must change."""
    again = how_to_start_again(status)
    logger.critical("%s %s", explain(error), again, extra=event("invalid", status=status))
    end(status)


class Life:
    """One server's, from its start to its end, which is by ``end`` alone.

    Args:
        settings: the server's.
        opener: of the store.
        end: ends the process. It must not return.
        worker, clock: the stepper's.
    """

    def __init__(
        self,
        settings: Settings,
        opener: Opener,
        end: End,
        *,
        worker: type[Worker] = Worker,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._opener = opener
        self._end = end
        self._follower = Follower(opener.peek, settings.integers, settings.max_index)
        self._free: float | None = None
        """When the lock that was waited for was taken, by the monotonic clock."""
        self.service = Service(
            settings,
            opener.open,
            near=self._follower.stop,
            fail_stop=self._fail_stop,
            worker=worker,
            clock=clock,
        )

    def live(self, work: Callable[[], None]) -> NoReturn:
        """Do ``work``, which is to stand by and to serve, and end the process however that ends."""
        try:
            work()
        except DatabaseInvalidError as error:
            end_invalid(error, EXIT_DATABASE_INVALID, self._end)
        except (SettingsError, CantListenError) as error:
            end_invalid(error, EXIT_SETTINGS_INVALID, self._end)
        except Exception as error:
            if is_lack_of_memory(error):
                logger.critical(NOT_ENOUGH, error, extra=event("failed"))
                self._end(os.EX_OSERR)
            logger.critical(
                "Unexpected error; the server is exiting. No answered step is lost, and the next "
                "process resumes from what is committed. The error is below.",
                exc_info=True,
                extra=event("failed"),
            )
            self._end(EXIT_FAILED)
        stood = None if self.service.snapshot is None else self.service.snapshot.index
        logger.info("stopped at index %s", stood, extra=event("stopped", index=str(stood)))
        self._note("stopped")
        self._end(0)

    def _fail_stop(self, error: BaseException) -> NoReturn:
        stepper = self.service.stepper
        self._note("failed", 0.0 if stepper is None else stepper.stalled_for())
        fail_stop(error, self._end)

    def _note(self, ending: takeover_history.Ending, silent: float = 0.0) -> None:
        if self._settings.database is not None:
            takeover_history.note_ending(self._settings.database, ending, silent)

    def stand_by(self) -> None:
        """Wait until this process may open the store.

        Raises:
            DatabaseInvalidError: it never may, as things are.
        """
        stood_by = False

        def report(pid: int | None) -> None:
            nonlocal stood_by
            stood_by = True
            self._report(pid)

        logged = ""
        while True:
            try:
                self._opener.stand_by(report)
            except StoreUnavailableError as error:
                # Whether another process serves is unknown, so that nothing is answered from here.
                if str(error) != logged:
                    logger.error("%s", explain(error), extra=event("unavailable"))
                logged = str(error)
                time.sleep(RETRY_SECONDS)
            else:
                break
        if stood_by:
            logger.info("taking over", extra=event("taking over"))
            self._free = time.monotonic()

    def _report(self, pid: int | None) -> None:
        """Log that the process ``pid`` serves, and keep its number at hand."""
        logger.info(
            "standing by: process %s serves %s",
            *(pid, self._opener.where),
            extra=event("standby", server=pid),
        )
        if pid is not None and process.listens_elsewhere(pid):
            logger.error(
                "Process %d listens elsewhere: another appliance serves this database, and the "
                "clients of this one are not answered as long as it does. Nothing is lost. End the "
                "other one, or set FIB_STORE to a database of its own for this one.",
                pid,
                extra=event("elsewhere", server=pid),
            )
        self._follower.start()

    @contextlib.asynccontextmanager
    async def serving(self, stop: Callable[[], None]) -> AsyncIterator[None]:
        """Open the store; drain behind what is done within, which answers requests.

        Args:
            stop: called where the database could not be opened at first, and is invalid.

        Raises:
            DatabaseInvalidError: the database can't be trusted.
        """

        def stop_if_failed(opening: asyncio.Task[None]) -> None:
            if not opening.cancelled() and opening.exception() is not None:
                stop()

        async with self.service as service:
            if service.opening is not None:
                service.opening.add_done_callback(stop_if_failed)
            seconds = None if self._free is None else time.monotonic() - self._free
            # Nobody waits for the disk to know of it.
            threading.Thread(target=self._record, args=(seconds,), daemon=True).start()
            yield

    def _record(self, seconds: float | None) -> None:
        """Note that this process serves, after a takeover of so many seconds, if there was one."""
        database = self._settings.database
        if database is None:
            return
        known = self.service.takeovers = takeover_history.record(database, seconds)
        if seconds is not None and known.after is not None:
            logger.info(
                "took over: the server before %s; nobody served for %.0f ms",
                *(ENDINGS[known.after], 1000 * seconds),
                extra=event("takeover", after=known.after, seconds=seconds, number=known.number),
            )
