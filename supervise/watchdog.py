"""The watchdog: kills a process that hangs, so that another replaces it.

A server beats four times a second as long as its event loop runs
(``fibcore/appliance/heartbeat.py``). One that is silent for too long (``supervise/liveness.py``) is
killed: the kernel releases its lock, and the standby takes over at the last committed index. A
standby does not beat; it is killed if it has been stopped, as it could not take over. So is the
backup, which may hold a read transaction open. supervisord restarts every process killed here.

**The watcher is watched**: the watchdog beats as well, and ``supervise/extension.py``, inside
supervisord, kills it if it hangs or has been stopped.
"""

import argparse
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final, NoReturn

from fibcore.appliance import process
from fibcore.appliance.heartbeat import STARTING_SECONDS, Heartbeat
from fibcore.appliance.servers import environment_of
from fibcore.appliance.takeover_history import note_ending
from fibcore.events import event
from supervise.liveness import Liveness, Watch, children_of, sample

logger = logging.getLogger("watchdog")

POLL_SECONDS: Final = 0.5
"""How often it polls the processes."""

SILENCE_SECONDS: Final = 2.0
"""How long the watchdog itself may be silent, in its own time."""

ROLES: Final = {"backup": "backup"}
"""The roles of processes that send no heartbeat, by name."""

GONE_ON: Final = {
    "server": "the other process resumes at the last committed index",
    "standby": "the server is not affected, and another standby replaces it",
    "backup": "the server is not affected, and another process makes the copies",
}


def name_in(groups: Collection[str], pid: int) -> str | None:
    """The name, such as ``web:web_0``, by which supervisord started a process of ``groups``."""
    environment: dict[str, str] = {}
    with contextlib.suppress(OSError):
        environment = environment_of(pid)
    group = environment.get("SUPERVISOR_GROUP_NAME", "")
    if group not in groups:
        return None
    name = environment.get("SUPERVISOR_PROCESS_NAME", "?")
    return name if name == group else f"{group}:{name}"


class Watchdog:
    """Polls the processes of ``groups`` that supervisord has started.

    Args:
        groups: supervisord's names for them.
        database: the served file, if any; the reason for a kill is noted beside it.
        children: returns the process ids of all children of supervisord.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        groups: Collection[str],
        *,
        database: Path | None = None,
        children: Callable[[], Sequence[int]] = lambda: children_of(os.getppid()),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._groups = groups
        self._watch = Watch(clock)
        self._database = database
        self._children = children

    def poll(self) -> None:
        """Check all processes, and kill any that hangs."""
        for pid, liveness, before in self._watch.poll(self._children()):
            serves = liveness.patience not in (before, STARTING_SECONDS)
            if not (serves or liveness.reason):
                continue
            name = name_in(self._groups, pid)
            if serves and name:
                logger.info(
                    "%s (pid %d) serves; it may be silent for up to %g s",
                    name,
                    pid,
                    liveness.patience,
                )
            if liveness.reason and name:
                self._end(pid, name, liveness)

    def _end(self, pid: int, name: str, liveness: Liveness) -> None:
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            try:
                again = sample(pid)
                if again is None or again.started != liveness.started:
                    return  # The process id has been reused.
                role = "server" if liveness.patience is not None else ROLES.get(name, "standby")
                logger.error(
                    "%s (pid %d), the %s, %s and is killed. No acknowledged step is lost; %s.",
                    *(name, pid, role, liveness.reason, GONE_ON[role]),
                    extra=event("hung", process=name, ended=pid),
                )
                if liveness.patience is not None and self._database is not None:
                    note_ending(self._database, "hung", liveness.passed)
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            finally:
                os.close(fd)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Watch until supervisord exits."""
    parser = argparse.ArgumentParser(prog="python -m supervise.watchdog", description=__doc__)
    parser.add_argument("groups", nargs="+", help="the groups of processes to watch")
    options = parser.parse_args(arguments)
    settings = process.begin("%(asctime)s %(levelname)s %(message)s")
    logger.info("watching the processes of %s", " and ".join(options.groups))
    watchdog = Watchdog(options.groups, database=settings.database)
    with contextlib.closing(Heartbeat(lambda: SILENCE_SECONDS)) as heartbeat:
        while True:
            heartbeat.beat()
            time.sleep(POLL_SECONDS)
            watchdog.poll()


if __name__ == "__main__":
    main()
