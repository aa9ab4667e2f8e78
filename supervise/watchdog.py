"""The watchdog: ends a process that hangs, so that another takes its place.

A server says four times a second that its event loop turns (``web/heartbeat.py``). One that has
been silent for too long is killed: the kernel frees its lock, and the standby takes over from the
last committed index. A standby says nothing, and is killed when it has been stopped, as it could
not take over. supervisord starts anew whatever is killed here.

How long a process has been silent is told by its own time, not by the clock: an endless loop has
been silent for the processor time that it has used; one that neither runs nor wants to (a deadlock)
for the time that has passed; one that waits for a processor or for the disk, for none. So one that
turns is never killed, however little the machine gives it.
"""

import argparse
import contextlib
import logging
import os
import re
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from fibcore.events import event
from fibcore.settings import Settings, SettingsError
from fibcore.stores.lock import server_of
from fibcore.takeovers import note_ending
from web import logs
from web.heartbeat import STARTING_SECONDS
from web.process import end_with_supervisord

__all__ = ["Beats", "Sample", "Silence", "Watchdog", "main", "name_in", "sample"]

logger = logging.getLogger("watchdog")

LOOK_SECONDS: Final = 0.5
"""How often it looks."""

MOST_PASSED: Final = 2 * LOOK_SECONDS
"""Of the time between two looks, what counts at most: with us the others may have been frozen, and
have not had the time to beat yet."""

STOPPED_SECONDS: Final = 2.0
"""How long a process may be stopped."""

CREDENTIALS: Final = struct.Struct("3i")
"""The kernel's word on who has sent a message: process, user, group. See unix(7)."""

BEAT: Final = re.compile(rb"^WATCHDOG_USEC=(\d+)$", re.MULTILINE)


class Beats:
    """The socket that the heartbeats arrive at.

    Raises:
        OSError: there can't be one at ``path``.
    """

    def __init__(self, path: str) -> None:
        Path(path).unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(path)

    def heard(self) -> dict[int, float]:
        """Who has beaten since the last time, and for how many seconds each may be silent now."""
        heard = {}
        with contextlib.suppress(BlockingIOError):
            while True:
                message, ancillary, _, _ = self._socket.recvmsg(
                    4096, socket.CMSG_SPACE(CREDENTIALS.size)
                )
                for beat in BEAT.findall(message):
                    for _, _, data in ancillary:
                        heard[CREDENTIALS.unpack(data)[0]] = int(beat) / 1e6
        return heard

    def close(self) -> None:
        """Hear nothing from now on."""
        self._socket.close()


class Sample(NamedTuple):
    """A process at one moment."""

    started: int
    """When, in ticks since boot: with the process id it makes out a process for ever."""
    state: str
    """The kernel's letter for what its main thread does: proc(5)."""
    used: float
    """Processor time of all its threads, in seconds."""


def sample(pid: int) -> Sample | None:
    """Look at a process; None when it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The state follows the command's name, which is in parentheses and may contain anything.
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    ticks = int(fields[11]) + int(fields[12])
    return Sample(int(fields[19]), fields[0], ticks / os.sysconf("SC_CLK_TCK"))


def is_idle(pid: int) -> bool:
    """Whether no thread of it runs, wants to run, or waits for the disk."""
    for thread in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            state = thread.read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state not in "ST":
            return False
    return True


def name_in(group: str, pid: int) -> str | None:
    """The name, such as ``web:web_0``, by which supervisord started a process of ``group``."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    found = dict(each.split(b"=", 1) for each in environment.split(b"\0") if b"=" in each)
    if found.get(b"SUPERVISOR_GROUP_NAME") != group.encode():
        return None
    return f"{group}:{found.get(b'SUPERVISOR_PROCESS_NAME', b'?').decode()}"


class Silence:
    """How long one process has been silent, or stopped."""

    def __init__(self, first: Sample, patience: float | None = None) -> None:
        self.started = first.started
        self.patience = patience
        """Seconds for which it may be silent; None for one that has never beaten: a standby."""
        self.silent = 0.0
        self.stopped = 0.0
        self._used = first.used

    def look(
        self, now: Sample, beat: float | None, passed: float, idle: Callable[[], bool]
    ) -> None:
        """Take in how it is.

        Args:
            now: what it is like.
            beat: the patience that it has asked for, if it has beaten since the last look.
            passed: seconds since then.
            idle: tells whether none of its threads runs, wants to, or waits for the disk.
        """
        used, self._used = now.used - self._used, now.used
        self.stopped = self.stopped + passed if now.state == "T" else 0.0
        if beat is not None:
            self.patience, self.silent = beat, 0.0
        elif self.patience is not None:
            self.silent += passed if idle() else used

    @property
    def complaint(self) -> str | None:
        """Why it must be ended, or None."""
        if self.stopped >= STOPPED_SECONDS:
            return "is stopped"
        if self.patience is not None and self.silent >= self.patience:
            return "hangs: its event loop does not turn"
        return None


class Watchdog:
    """Looks at the processes of ``group`` that supervisord has started.

    Args:
        group: supervisord's name for them.
        beats: where they are heard.
        server: a process that serves already, or None: it need not beat if it hangs.
        database: what is served, if it is a file: beside it stands why a server was ended.
        children: tells the process ids of all that supervisord runs.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        group: str,
        beats: Beats,
        server: int | None,
        *,
        database: Path | None = None,
        children: Callable[[], Sequence[int]] = lambda: children_of(os.getppid()),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._group = group
        self._beats = beats
        self._database = database
        self._children = children
        self._clock = clock
        self._looked = clock()
        self._known: Mapping[int, Silence] = {}
        if server is not None and (first := sample(server)) is not None:
            self._known = {server: Silence(first, STARTING_SECONDS)}

    def look(self) -> None:
        """See how everyone is, and end what hangs."""
        now = self._clock()
        passed, self._looked = min(now - self._looked, MOST_PASSED), now
        heard = self._beats.heard()
        known = {}
        for pid in self._children():
            seen = sample(pid)
            if seen is None:
                continue
            silence = self._known.get(pid)
            if silence is None or silence.started != seen.started:
                silence = Silence(seen)
            before = silence.patience
            silence.look(seen, heard.get(pid), passed, lambda pid=pid: is_idle(pid))  # type: ignore[misc]
            if silence.patience not in (before, STARTING_SECONDS):
                name = name_in(self._group, pid)
                logger.info(
                    "%s (pid %d) serves, and may be silent for %g s", name, pid, silence.patience
                )
            known[pid] = silence
            if silence.complaint and (name := name_in(self._group, pid)):
                self._end(pid, name, silence)
        self._known = known

    def _end(self, pid: int, name: str, silence: Silence) -> None:
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            try:
                again = sample(pid)
                if again is None or again.started != silence.started:
                    return  # The process id is another's by now.
                logger.error(
                    "%s (pid %d), the %s, %s, and is killed. No answered step is lost; %s.",
                    name,
                    pid,
                    "standby" if silence.patience is None else "server",
                    silence.complaint,
                    "the server is not touched, and another stands by in its place"
                    if silence.patience is None
                    else "the other one goes on from the last committed index",
                    extra=event("hung", process=name, ended=pid),
                )
                if silence.patience is not None and self._database is not None:
                    note_ending(self._database, "hung")
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            finally:
                os.close(fd)


def children_of(pid: int) -> list[int]:
    """The processes that ``pid``, which has one thread, has started."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Watch until supervisord is gone; return a status when that can't be done."""
    parser = argparse.ArgumentParser(prog="python -m supervise.watchdog", description=__doc__)
    parser.add_argument("group", help="the group of processes to watch")
    options = parser.parse_args(arguments)
    logs.set_up("%(asctime)s %(levelname)s %(message)s")
    end_with_supervisord()
    try:
        settings = Settings.from_environ()
        address = os.environ.get("NOTIFY_SOCKET")
        if not address:
            raise SettingsError(
                "NOTIFY_SOCKET is not set, so that nobody can be heard and a server that hangs is "
                "not replaced. Nothing else is touched. supervisord.conf sets it: have supervisord "
                "read that anew."
            )
    except SettingsError as error:
        logger.critical("%s", error, extra=event("invalid"))
        return os.EX_CONFIG
    server = None
    with contextlib.suppress(OSError):  # It beats, if it does not hang.
        server = server_of(settings.database) if settings.database else None
    logger.info("watching the processes of %s", options.group)
    watchdog = Watchdog(options.group, Beats(address), server, database=settings.database)
    while True:
        time.sleep(LOOK_SECONDS)
        watchdog.look()


if __name__ == "__main__":
    sys.exit(main())
