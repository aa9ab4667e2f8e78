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
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from fibcore.appliance import process
from fibcore.appliance.beats import Beats, Pulse
from fibcore.appliance.heartbeat import STARTING_SECONDS
from fibcore.appliance.settings import Settings
from fibcore.appliance.takeover_history import note_ending
from fibcore.events import event
from fibcore.problems import SettingsError
from supervise.liveness import (
    MOST_PASSED,
    Silence,
    children_of,
    is_idle,
    name_in,
    sample,
    silence_of,
)

logger = logging.getLogger("watchdog")

LOOK_SECONDS: Final = 0.5
"""How often it looks."""

PATIENCE_SECONDS: Final = 2.0
"""For how long the watchdog itself may be silent, by its own time."""

ROLES: Final = {"backup": "backup"}
"""What a process that never beats is for, by its name."""

GONE_ON: Final = {
    "server": "the other one goes on from the last committed index",
    "standby": "the server is not touched, and another stands by in its place",
    "backup": "the server is not touched, and another process makes the copies",
}


class Watchdog:
    """Looks at the processes of ``groups`` that supervisord has started.

    Args:
        groups: supervisord's names for them.
        beats: theirs.
        database: what is served, if it is a file: beside it stands why a server was ended.
        children: tells the process ids of all that supervisord runs.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        groups: Collection[str],
        beats: Beats,
        *,
        database: Path | None = None,
        children: Callable[[], Sequence[int]] = lambda: children_of(os.getppid()),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._groups = groups
        self._beats = beats
        self._database = database
        self._children = children
        self._clock = clock
        self._looked = clock()
        self._known: Mapping[int, Silence] = {}

    def look(self) -> None:
        """See how everyone is, and end what hangs."""
        now = self._clock()
        passed, self._looked = min(now - self._looked, MOST_PASSED), now
        known = {}
        for pid in self._children():
            seen = sample(pid)
            if seen is None:
                continue
            silence = silence_of(self._known, pid, seen, self._beats)
            before = silence.patience
            heard = self._beats.heard(pid)
            silence.look(seen, heard, passed, lambda pid=pid: is_idle(pid))  # type: ignore[misc]
            if silence.patience not in (before, STARTING_SECONDS):
                name = name_in(self._groups, pid)
                logger.info(
                    "%s (pid %d) serves, and may be silent for %g s", name, pid, silence.patience
                )
            known[pid] = silence
            if silence.complaint and (name := name_in(self._groups, pid)):
                self._end(pid, name, silence)
        self._known = known

    def _end(self, pid: int, name: str, silence: Silence) -> None:
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            try:
                again = sample(pid)
                if again is None or again.started != silence.started:
                    return  # The process id is another's by now.
                role = "server" if silence.patience is not None else ROLES.get(name, "standby")
                logger.error(
                    "%s (pid %d), the %s, %s, and is killed. No answered step is lost; %s.",
                    *(name, pid, role, silence.complaint, GONE_ON[role]),
                    extra=event("hung", process=name, ended=pid),
                )
                if silence.patience is not None and self._database is not None:
                    note_ending(self._database, "hung")
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
    watchdog = Watchdog(options.groups, Beats(), database=settings.database)
    pulse = Pulse()
    while True:
        pulse.beat(PATIENCE_SECONDS)
        time.sleep(LOOK_SECONDS)
        watchdog.look()


if __name__ == "__main__":
    sys.exit(main())
