"""The server process: waits for the writer's lock, then serves until it is stopped."""

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import NoReturn, cast

import uvicorn
import uvloop

from fibcore.appliance import process
from fibcore.appliance.ending import end_at_once, end_invalid
from fibcore.appliance.heartbeat import STARTING_SECONDS, Heartbeat, longest_turn
from fibcore.appliance.settings import Settings
from fibcore.events import event
from fibcore.problems import StoreSettingError
from fibcore.stores import file_system
from web.app import create_app
from web.endpoints.record import VERSION
from web.endpoints.table import TABLE
from web.http.access_log import AccessLog
from web.http.answers import SERVERS_OWN
from web.http.hub import Hub, InOrder
from web.http.protocol import LoggedProtocol, Protocol
from web.life import Life

logger = logging.getLogger("fibcore")


class Server(uvicorn.Server):
    """uvicorn's server, except that a stop by signal exits with status 0."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.server_state.connections = InOrder()  # type: ignore[assignment]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start accepting connections, and log the address."""
        await super().startup(sockets)
        if sockets:
            url = process.url_of(sockets[0])
            logger.info("listening at %s", url, extra=event("listening", url=url))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting connections, and answer the requests under way."""
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

    def stop(self) -> None:
        """Start a graceful stop."""
        self.should_exit = True


def main() -> NoReturn:
    """Run the server and exit: status 0 after a stop, else one that names the problem."""
    logging.getLogger("uvicorn.error").addFilter(_is_not_repeated)
    # Until uvicorn handles the signals there is nothing to drain.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit_at_once)
    _at_hangup(_exit_at_once)
    settings = process.begin("%(asctime)s %(process)d %(levelname)s %(message)s")
    process.keep_freed_memory()
    try:
        opener = settings.opener()
    except StoreSettingError as error:
        end_invalid(error)
    logger.info(
        "starting: fibcore %s, %s",
        *(VERSION, settings.where),
        extra=event("start", version=VERSION, store=settings.where),
    )
    settings = replace(
        settings, max_connections=process.allow_connections(settings.max_connections)
    )
    inherited = process.inherited_socket()
    risk = file_system.warning_at(settings.database)
    if risk is not None:
        logger.warning("%s", risk.explain(settings.where), extra=event("weakness"))
    if settings.answered_hosts is None:
        logger.warning("%s", _any_host(settings), extra=event("any host"))
    if settings.integers == "uint64":
        logger.warning(
            "FIB_INTEGERS=uint64: numbers are computed modulo 2^64; past F(93) they are not "
            "Fibonacci numbers",
            extra=event("uint64"),
        )
    life = Life(settings, opener, end_at_once)
    service = life.service
    patience = longest_turn(settings.max_connections, settings.max_waiting_steps)
    heartbeat = Heartbeat(lambda: STARTING_SECONDS if service.stepper is None else patience)
    access = None
    if settings.access_log:
        access = AccessLog(
            as_json=settings.log_format == "json", proxies=settings.forwarded_allow_ips
        )
    hub = Hub(service, TABLE, access)
    hub.turns.made = heartbeat.turned
    config = uvicorn.Config(
        create_app(service, counts=False),
        http=(LoggedProtocol if settings.access_log else Protocol).bound_to(hub),
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        headers=[(name.decode(), value.decode()) for name, value in SERVERS_OWN],
        # uvicorn accepts fractions of a second, despite its type.
        timeout_graceful_shutdown=cast("int", settings.stop_timeout),
        backlog=process.BACKLOG,
    )
    config.load()

    server = Server(config)

    async def work() -> None:
        # Everything above is done while another process may still serve.
        await life.stand_by()
        heartbeat.beat()
        gc.freeze()
        listener = inherited or process.listen(settings.host, settings.port)
        async with life.serving(server.stop):
            heartbeat.beat_on(asyncio.get_running_loop())
            _at_hangup(server.handle_exit)
            await server.serve(sockets=process.acceptors(listener))
        if access is not None:
            access.push()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        life.live(lambda: runner.run(work()))


def _any_host(settings: Settings) -> str:
    """The warning to set ``FIB_ALLOWED_HOSTS`` where other machines can connect."""
    return (
        f"FIB_HOST={settings.host} lets other machines connect, and FIB_ALLOWED_HOSTS is empty: "
        f"requests for any host name are accepted, so a web page can step the sequence by DNS "
        f"rebinding. Set FIB_ALLOWED_HOSTS to the names that clients use; addresses and localhost "
        f"are always accepted."
    )


def _is_not_repeated(record: logging.LogRecord) -> bool:
    """Whether to keep a log record of uvicorn's: this module logs some of them itself."""
    return not str(record.msg).startswith(("Started server", "Finished server", "Shutting down"))


def _at_hangup(handler: Callable[[int, FrameType | None], object]) -> None:
    """Stop when the terminal closes, too; under nohup SIGHUP is ignored."""
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, handler)


def _exit_at_once(sig: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    end_at_once(0)
