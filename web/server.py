"""The server process: stands by for the writer's lock, then serves until it is told to stop."""

import asyncio
import gc
import logging
import os
import signal
import socket
import threading
import time
from dataclasses import replace
from types import FrameType
from typing import Final, NoReturn, cast

import uvicorn
import uvloop

from fibcore import takeovers
from fibcore.events import event
from fibcore.settings import Settings, SettingsError
from fibcore.standby import Follower
from fibcore.stepper import fail_stop
from fibcore.stores import DatabaseInvalidError, Opener, StoreUnavailableError
from fibcore.stores.opening import StoreSettingError, opener_of
from fibcore.words import cannot_listen, explain
from web import logs, process
from web.access import AccessLog
from web.app import create_app
from web.connections import Connections
from web.heartbeat import STARTING_SECONDS, Heartbeat, longest_turn
from web.protocol import LoggedProtocol, Protocol
from web.service import RETRY_SECONDS, Service
from web.shedding import LOOK_SECONDS, Shedding
from web.status import VERSION

__all__ = ["EXIT_DATABASE_INVALID", "EXIT_FAILED", "EXIT_SETTINGS_INVALID", "main"]

logger = logging.getLogger("fibcore")

EXIT_DATABASE_INVALID: Final = os.EX_DATAERR
EXIT_SETTINGS_INVALID: Final = os.EX_CONFIG
EXIT_FAILED: Final = 1
BACKLOG: Final = 2048
"""Connections that the kernel holds until they are accepted, as during a takeover."""


class Server(uvicorn.Server):
    """uvicorn's server, ending with status 0 after a signal: it has done what it was told."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take connections, and say where."""
        await super().startup(sockets)
        if sockets:
            url = process.url_of(sockets[0])
            logger.info("listening at %s", url, extra=event("listening", url=url))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and answer what was asked."""
        count = len(self.server_state.connections)
        logger.info(
            "Shutting down; open connections: %d", count, extra=event("stopping", connections=count)
        )
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Stop gracefully; a second interrupt stops at once."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    def stop_if_failed(self, opening: asyncio.Task[None]) -> None:
        """Stop if the database is invalid that could not be opened before."""
        if not opening.cancelled() and opening.exception() is not None:
            self.should_exit = True


def main() -> NoReturn:
    """Run the server and exit: 0 when told to stop, else with a status that says why."""
    logs.set_up("%(asctime)s %(process)d %(levelname)s %(message)s")
    logging.getLogger("uvicorn.error").addFilter(_is_not_said_here)
    # Until uvicorn takes the signals over there is nothing to drain.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit_at_once)
    process.end_with_supervisord()
    process.keep_freed_memory()
    try:
        settings = Settings.from_environ()
        opener = opener_of(settings)
    except (SettingsError, StoreSettingError) as error:
        _exit_invalid(error, EXIT_SETTINGS_INVALID)
    logger.info(
        "starting: fibcore %s, %s",
        *(VERSION, settings.where),
        extra=event("start", version=VERSION, store=settings.where),
    )
    settings = replace(
        settings, max_connections=process.allow_connections(settings.max_connections)
    )
    inherited = process.inherited_socket()
    if settings.integers == "uint64":
        logger.warning(
            "FIB_INTEGERS=uint64: numbers are kept modulo 2^64 and are not Fibonacci numbers "
            "past F(93)",
            extra=event("uint64"),
        )
    follower = Follower(opener.peek, settings.integers)

    def fail(error: BaseException) -> NoReturn:
        if settings.database is not None:
            takeovers.note_ending(settings.database, "failed")
        fail_stop(error)

    service = Service(settings, opener.open, near=follower.stop, fail_stop=fail)
    patience = longest_turn(settings)
    heartbeat = Heartbeat(
        os.environ.get("NOTIFY_SOCKET"),
        lambda: STARTING_SECONDS if service.stepper is None else patience,
    )
    connections = Connections(service)
    if settings.access_log:
        connections.access = AccessLog(as_json=logs.is_json())
    config = uvicorn.Config(
        create_app(service),
        http=(LoggedProtocol if settings.access_log else Protocol).bound_to(connections),
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        # uvicorn waits for fractions of a second, too, whatever its type says.
        timeout_graceful_shutdown=cast("int", settings.graceful_stop),
        backlog=BACKLOG,
    )
    config.load()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.get_loop()
        # Everything above is done while another process may be serving.
        try:
            with process.heeding_signals():
                free = _stand_by(opener, follower)
            heartbeat.beat()
            gc.freeze()
            listener = inherited or _listen(settings)
            runner.run(_serve(Server(config), service, listener, heartbeat, free))
            if connections.access is not None:
                connections.access.push()
        except DatabaseInvalidError as error:
            _exit_invalid(error, EXIT_DATABASE_INVALID)
        except Exception:
            logger.critical(
                "The server ends, by what it was not made for. No answered step is lost, and the "
                "next process goes on from what is committed; what happened stands below.",
                exc_info=True,
                extra=event("failed"),
            )
            _end(EXIT_FAILED)
        stood = None if service.snapshot is None else service.snapshot.index
        logger.info("stopped at index %s", stood, extra=event("stopped", index=str(stood)))
        if settings.database is not None:
            takeovers.note_ending(settings.database, "stopped")
        # The end of the process lets go of the lock, and nothing else does: a thread may be in the
        # middle of opening the store, or of a commit that was not waited for. It ends here.
        _end(0)


async def _serve(
    server: Server,
    service: Service,
    listener: socket.socket,
    heartbeat: Heartbeat,
    free: float | None,
) -> None:
    async with service:
        heartbeat.beat_on(asyncio.get_running_loop())
        if service.opening is not None:
            service.opening.add_done_callback(server.stop_if_failed)
        seconds = None if free is None else time.monotonic() - free
        # Nobody waits for the disk to know of it.
        threading.Thread(target=_record, args=(service, seconds), daemon=True).start()
        watching = asyncio.create_task(_watch(Shedding(service.admission.shed)))
        await server.serve(sockets=process.acceptors(listener))
        watching.cancel()


async def _watch(shedding: Shedding) -> NoReturn:
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        shedding.look(time.monotonic())


def _record(service: Service, seconds: float | None) -> None:
    """Take in that this process serves, after a takeover that took so long, if there was one."""
    database = service.settings.database
    if database is None:
        return
    known = service.takeovers = takeovers.record(database, seconds)
    if seconds is not None and known.after is not None:
        logger.info(
            "took over: the server before %s; nobody served for %.0f ms",
            *(ENDINGS[known.after], 1000 * seconds),
            extra=event("takeover", after=known.after, seconds=seconds, number=known.number),
        )


ENDINGS: Final[dict[takeovers.Ending, str]] = {
    "stopped": "was told to stop",
    "failed": "ended because a commit failed",
    "hung": "hung, and was ended by the watchdog",
    "killed": "was killed, or has crashed",
}


def _stand_by(opener: Opener, follower: Follower) -> float | None:
    """Wait until this process may open the store.

    Returns:
        When that was, by the monotonic clock; None if it need not wait.

    Raises:
        DatabaseInvalidError: it never may, as things are.
    """
    stood_by = False

    def report(pid: int | None) -> None:
        nonlocal stood_by
        stood_by = True
        logger.info(
            "standing by: process %s serves %s",
            *(pid, opener.where),
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
        follower.start()

    said = ""
    while True:
        try:
            opener.stand_by(report)
        except StoreUnavailableError as error:
            # Whether another process serves can't be known, so that nothing is answered from here.
            if str(error) != said:
                logger.error("%s", explain(error), extra=event("unavailable"))
            said = str(error)
            time.sleep(RETRY_SECONDS)
        else:
            break
    if not stood_by:
        return None
    logger.info("taking over", extra=event("taking over"))
    return time.monotonic()


def _is_not_said_here(record: logging.LogRecord) -> bool:
    """Whether a record of uvicorn's is none of those that have another in their place here."""
    return not str(record.msg).startswith(("Started server", "Finished server", "Shutting down"))


def _listen(settings: Settings) -> socket.socket:
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        _exit_invalid(SettingsError(cannot_listen(settings, error)), EXIT_SETTINGS_INVALID)


def _exit_invalid(error: Exception, status: int) -> NoReturn:
    logger.critical("%s", explain(error), extra=event("invalid", status=status))
    _end(status)


def _exit_at_once(sig: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    _end(0)


def _end(status: int) -> NoReturn:
    # Not by way of Python's own end: that waits for threads, which are in the middle of something.
    logging.shutdown()
    os._exit(status)
