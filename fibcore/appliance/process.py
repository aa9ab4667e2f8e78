"""The process around the server: its descriptors, memory, socket and signals."""

import ctypes
import logging
import os
import resource
import select
import signal
import socket
import stat
import sys
from pathlib import Path
from typing import Final

from fibcore.appliance import logs
from fibcore.appliance.ending import end_at_once, end_invalid
from fibcore.appliance.settings import Settings, gather, home
from fibcore.problems import CantListenError, SettingsError

logger = logging.getLogger("fibcore")

PR_SET_PDEATHSIG: Final = 1
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
KEPT_MEMORY: Final = 32 * 2**20
"""Bytes of freed memory to keep for the next numbers."""
SPARE_DESCRIPTORS: Final = 224
"""Descriptors besides those of the connections: 35 for the database, its WAL and the event loop;
the connections accepted or evicted in the last turns of the loop; and rejected ones that linger
(``web.http.hub.MAX_TURNED_AWAY``)."""

BACKLOG: Final = 2048
"""Connections that the kernel queues until they are accepted, as during a takeover."""

ACCEPTS: Final = 16
"""Connections accepted in a turn of the event loop. Each costs 5 microseconds in a turn with fewer
newcomers, and nothing in a turn with as many."""


def begin(form: str) -> Settings:
    """Begin a process of the appliance: set up its log, and have it exit with its supervisord.

    If the settings are invalid it logs that, and exits.

    Args:
        form: the format of a log line, unless the settings select JSON.
    """
    gathered = gather(folder=home())
    logs.set_up(form, as_json=gathered.values["FIB_LOG_FORMAT"].text == "json")
    end_with_supervisord()
    try:
        return Settings.of(gathered)
    except SettingsError as error:
        end_invalid(error, end_at_once)


def end_with_supervisord() -> None:
    """Have the kernel kill this process when supervisord is killed: its successor needs the port.

    Does nothing if supervisord did not start this process.
    """
    if "SUPERVISOR_ENABLED" not in os.environ:
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have been killed before that, during our start: then nobody reads our log.
    log = select.poll()
    log.register(sys.stdout.fileno(), 0)
    if log.poll(0):
        sys.exit(0)


def keep_freed_memory() -> None:
    """Have malloc reuse the memory of long numbers instead of returning it to the kernel.

    The kernel clears each page that it hands out: at a million digits that is as much work as the
    step. Only glibc has the function; elsewhere this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT_MEMORY)
        mallopt(M_MMAP_THRESHOLD, KEPT_MEMORY)


def give_back_memory() -> None:
    """Have malloc return freed memory to the kernel, except what it keeps for the next numbers.

    Otherwise it returns only memory freed at the end of its heap, and there is nearly always a
    number in use behind the freed ones.
    """
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(KEPT_MEMORY)


def allow_connections(wanted: int) -> int:
    """Raise the descriptor limit for ``wanted`` connections; return how many it allows, at least 1.

    Without a free descriptor the event loop closes a new connection unanswered, however many others
    are idle. So the limit on connections, which evicts idle ones, must not exceed that.
    """
    descriptors = wanted + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    possible = descriptors if hard == resource.RLIM_INFINITY else min(descriptors, hard)
    if soft != resource.RLIM_INFINITY and soft < possible:
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    if possible == descriptors:
        return wanted
    allowed = max(1, possible - SPARE_DESCRIPTORS)
    logger.warning(
        "The system allows this process %d descriptors, but FIB_MAX_CONNECTIONS=%d needs %d. The "
        "limit is now %d connections; nothing is lost. Raise the limit (ulimit -n), or lower "
        "FIB_MAX_CONNECTIONS.",
        possible,
        wanted,
        descriptors,
        allowed,
    )
    return allowed


def listen(host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC) -> socket.socket:
    """Listen at ``host``, a name or an address, and ``port``.

    Args:
        host: if it has addresses of several families, the first is taken.
        port: from 1.
        family: of the address; any by default.

    Raises:
        CantListenError: the system does not allow it.
    """
    try:
        family = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise CantListenError(host, port, error) from error


def inherited_socket() -> socket.socket | None:
    """The listening socket that supervisord passes as standard input, if any."""
    try:
        if not stat.S_ISSOCK(os.fstat(0).st_mode):
            return None
    except OSError:  # It is closed.
        return None
    inherited = socket.socket(fileno=os.dup(0))
    if not inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        inherited.close()
        return None
    return inherited


def url_of(listener: socket.socket) -> str:
    """The URL for a client on this machine, from the address of the socket."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def listens_elsewhere(pid: int) -> bool:
    """Whether another supervisord started the process, with a socket of its own.

    False if that is not visible, or this process has no socket from supervisord.
    """
    try:
        ours, theirs = (str(Path(f"/proc/{each}/fd/0").readlink()) for each in ("self", pid))
    except OSError:
        return False
    return ours.startswith("socket:") and ours != theirs


def acceptors(listener: socket.socket) -> list[socket.socket]:
    """The listening socket, duplicated once for each connection to accept in a turn of the event
    loop.

    libuv accepts one connection per socket and turn (since 1.45, ``uv__server_io``). With a single
    socket, a crowd that makes turns 60 ms long lets in 16 newcomers a second, while the others fill
    the kernel's queue.

    The blocking mode, which all users share, is not changed: ``socket.dup`` would make it blocking,
    and so block the event loop of another process that accepts.
    """
    others = (socket.socket(fileno=os.dup(listener.fileno())) for _ in range(ACCEPTS - 1))
    return [listener, *others]
