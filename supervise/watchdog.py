"""The watchdog: ends a process that hangs, so that another takes its place.

A server beats four times a second for as long as its event loop turns
(``fibcore/appliance/heartbeat.py``). One that has been silent for too long
(``supervise/liveness.py``) is killed: the kernel frees its lock, and the standby takes over from
the last committed index. A standby does not beat, and is killed when it has been stopped, as it
could not take over; so is the backup, as it may be in the middle of a read. supervisord starts
again whatever is killed here.

**What watches is watched**: the watchdog beats as well, and ``supervise/extension.py``, inside
supervisord, ends it if it hangs or has been stopped.
"""

import argparse
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

from fibcore.appliance import process
from fibcore.appliance.heartbeat import STARTING_SECONDS, HeartbeatReader, Pulse
from fibcore.appliance.settings import Settings
from fibcore.appliance.takeover_history import note_ending
from fibcore.events import event
from fibcore.problems import SettingsError
from supervise.liveness import Liveness, Watch, children_of, name_in, sample

logger = logging.getLogger("watchdog")

POLL_SECONDS: Final = 0.5
"""How often it polls the processes."""

SILENCE_SECONDS: Final = 2.0
"""For how long the watchdog itself may be silent, by its own time."""

ROLES: Final = {"backup": "backup"}
"""What a process that never beats is for, by its name."""

GONE_ON: Final = {
    "server": "the other one goes on from the last committed index",
    "standby": "the server is not touched, and another stands by in its place",
    "backup": "the server is not touched, and another process makes the copies",
}


class Watchdog:
    """Polls the processes of ``groups`` that supervisord has started.

    Args:
        groups: supervisord's names for them.
        reader: of their heartbeats.
        database: what is served, if it is a file: beside it stands why a server was ended.
        children: tells the process ids of all that supervisord runs.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        groups: Collection[str],
        reader: HeartbeatReader,
        *,
        database: Path | None = None,
        children: Callable[[], Sequence[int]] = lambda: children_of(os.getppid()),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._groups = groups
        self._watch = Watch(reader, clock)
        self._database = database
        self._children = children

    def poll(self) -> None:
        """See how everyone is, and end what hangs."""
        for pid, liveness, before in self._watch.poll(self._children()):
            serves = liveness.patience not in (before, STARTING_SECONDS)
            if not (serves or liveness.reason):
                continue
            name = name_in(self._groups, pid)
            if serves and name:
                logger.info(
                    "%s (pid %d) serves, and may be silent for %g s", name, pid, liveness.patience
                )
            if liveness.reason and name:
                self._end(pid, name, liveness)

    def _end(self, pid: int, name: str, liveness: Liveness) -> None:
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            try:
                again = sample(pid)
                if again is None or again.started != liveness.started:
                    return  # The process id is another's by now.
                role = "server" if liveness.patience is not None else ROLES.get(name, "standby")
                logger.error(
                    "%s (pid %d), the %s, %s, and is killed. No answered step is lost; %s.",
                    *(name, pid, role, liveness.reason, GONE_ON[role]),
                    extra=event("hung", process=name, ended=pid),
                )
                if liveness.patience is not None and self._database is not None:
                    note_ending(self._database, "hung", liveness.passed)
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            finally:
                os.close(fd)


def main(arguments: Sequence[str] | None = None) -> int:
    """Watch until supervisord is gone; return a status when that can't be done."""
    parser = argparse.ArgumentParser(prog="python -m supervise.watchdog", description=__doc__)
    parser.add_argument("groups", nargs="+", help="the groups of processes to watch")
    options = parser.parse_args(arguments)
    gathered = process.begin("%(asctime)s %(levelname)s %(message)s")
    try:
        settings = Settings.of(gathered)
    except SettingsError as error:
        logger.critical("%s", error, extra=event("invalid"))
        return os.EX_CONFIG
    logger.info("watching the processes of %s", " and ".join(options.groups))
    watchdog = Watchdog(options.groups, HeartbeatReader(), database=settings.database)
    with contextlib.closing(Pulse()) as pulse:
        while True:
            pulse.beat(SILENCE_SECONDS)
            time.sleep(POLL_SECONDS)
            watchdog.poll()


if __name__ == "__main__":
    sys.exit(main())
