"""The process around the server: its descriptors, its memory, its socket, and its end."""

import ctypes
import logging
import os
import resource
import select
import signal
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fibcore.appliance import logs
from fibcore.appliance.settings import Gathered, gather, home

logger = logging.getLogger("fibcore")

PR_SET_PDEATHSIG: Final = 1
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
KEPT_MEMORY: Final = 32 * 2**20
"""Bytes of freed memory that are kept for the next numbers."""
SPARE_DESCRIPTORS: Final = 224
"""Files that are open beside the connections: the database, its WAL, the event loop's own: 35;
the connections that have been accepted, or have given way, in the last turns of the loop; and those
that were turned away and linger (``web.http.hub.MAX_TURNED_AWAY``)."""

HEEDED_SECONDS: Final = 0.1
"""In which the main thread acts on a signal that has come to it."""

ACCEPTS: Final = 16
"""Connections that are accepted in a turn of the event loop. Each costs 5 microseconds of a turn in
which fewer have come, and nothing of one in which as many have."""


@contextmanager
def heeding_signals() -> Iterator[None]:
    """Act on a signal that Python handles, though the main thread, which calls this, waits.

    Python acts on a signal in the main thread, when that comes back from what it does. It does not
    come back from flock(2) where the kernel has given the signal to another thread, or to it in the
    instant before: as may be at a stop that comes with SIGCONT. Then it is given the signal again.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    waiting = threading.get_ident()
    over = threading.Event()

    def hand_on() -> None:
        while number := os.read(reading, 1):
            if not over.wait(HEEDED_SECONDS):
                signal.pthread_kill(waiting, number[0])
        os.close(reading)

    threading.Thread(target=hand_on, name="signals", daemon=True).start()
    signal.set_wakeup_fd(writing)
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(-1)
        os.close(writing)


def begin(form: str) -> Gathered:
    """Do what each process of ours begins with: it logs, and ends with its supervisord.

    Args:
        form: of a line of the log, unless the settings say otherwise.

    Returns:
        The settings, not checked yet: what is wrong with them is to be logged.
    """
    gathered = gather(folder=home())
    logs.set_up(form, as_json=gathered.values["FIB_LOG_FORMAT"].text == "json")
    end_with_supervisord()
    return gathered


def end_with_supervisord() -> None:
    """Have the kernel kill us when supervisord is killed: its successor needs the port.

    Does nothing where supervisord did not start us.
    """
    if "SUPERVISOR_ENABLED" not in os.environ:
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have been killed before that, while we were starting: then nobody reads our log.
    log = select.poll()
    log.register(sys.stdout.fileno(), 0)
    if log.poll(0):
        sys.exit(0)


def keep_freed_memory() -> None:
    """Have malloc reuse the memory of long numbers, not give it back and ask for it again.

    The kernel clears each page that it hands out: at a million digits that is as much work as the
    step. Only glibc has the function; others do without.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT_MEMORY)
        mallopt(M_MMAP_THRESHOLD, KEPT_MEMORY)


def give_back_memory() -> None:
    """Have malloc give back all freed memory but as much as it keeps for the next numbers.

    By itself it gives back only what is freed at the end of its heap, and of numbers that come and
    go there is nearly always one behind those that are freed.
    """
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(KEPT_MEMORY)


def allow_connections(wanted: int) -> int:
    """Have the system allow so many connections; return how many it allows, at least 1.

    A connection for which there is no descriptor is closed unanswered by the event loop, however
    many others are idle. So the bound on connections, which closes these, is not to be above that.
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
        "The system gives this process %d descriptors, and FIB_MAX_CONNECTIONS=%d wants %d. It "
        "takes %d connections instead; nothing is lost. Raise the limit (ulimit -n), or lower "
        "FIB_MAX_CONNECTIONS.",
        possible,
        wanted,
        descriptors,
        allowed,
    )
    return allowed


def inherited_socket() -> socket.socket | None:
    """The listening socket that supervisord passes as standard input, if it does."""
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
    """What a client on this machine asks, as far as the socket tells."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def listens_elsewhere(pid: int) -> bool:
    """Whether another supervisord than ours has started the process, with a socket of its own.

    False where that can't be seen, or we have no socket of supervisord's.
    """
    try:
        ours, theirs = (str(Path(f"/proc/{each}/fd/0").readlink()) for each in ("self", pid))
    except OSError:
        return False
    return ours.startswith("socket:") and ours != theirs


def acceptors(listener: socket.socket) -> list[socket.socket]:
    """The listening socket as often as connections are to be accepted in a turn of the event loop.

    libuv accepts one for each socket (since 1.45, ``uv__server_io``). With one socket alone, a
    crowd for which a turn takes 60 ms lets in 16 newcomers a second, while the others fill the
    kernel's queue.

    Whether it blocks is left as it is, for all who share it: ``socket.dup`` would have it block,
    and so the event loop of another process that accepts.
    """
    others = (socket.socket(fileno=os.dup(listener.fileno())) for _ in range(ACCEPTS - 1))
    return [listener, *others]
