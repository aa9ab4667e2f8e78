"""Whether a process is alive: what the kernel shows of it, and how long it has been silent.

How long a process has been silent is told by its own time, not by the clock: an endless loop has
been silent for the processor time that it has used; one that neither runs nor wants to (a deadlock)
for the time that has passed; one that waits for a processor or for the disk, for none. So one that
turns is never killed, however little the machine gives it.
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from fibcore.appliance.heartbeat import HeartbeatReader

MOST_PASSED: Final = 1.0  # pragma: no mutate number: a chosen figure
"""Cap on the seconds charged per poll: if the watcher was suspended, the others probably were too,
and have not had the time to beat yet."""

STOPPED_SECONDS: Final = 2.0  # pragma: no mutate number: a chosen figure
"""How long a process may be stopped."""


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


def name_in(groups: Collection[str], pid: int) -> str | None:
    """The name, such as ``web:web_0``, by which supervisord started a process of ``groups``."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    found = dict(each.split(b"=", 1) for each in environment.split(b"\0") if b"=" in each)
    group = found.get(b"SUPERVISOR_GROUP_NAME", b"").decode()
    if group not in groups:
        return None
    name = found.get(b"SUPERVISOR_PROCESS_NAME", b"?").decode()
    return name if name == group else f"{group}:{name}"


class Liveness:
    """How long one process has been silent, or stopped."""

    def __init__(self, first: Sample, patience: float | None = None) -> None:
        self.started = first.started
        self.patience = patience
        """Seconds for which it may be silent; None for one that has never beaten: a standby."""
        self.silent = 0.0
        self.passed = 0.0
        """Seconds since its last beat, by the clock."""
        self.stopped = 0.0
        self._used = first.used

    def update(
        self, now: Sample, beat: float | None, passed: float, idle: Callable[[], bool]
    ) -> None:
        """Take in how the process is.

        Args:
            now: what it is like.
            beat: the patience that it has asked for, if it has beaten since the last call.
            passed: seconds since then.
            idle: tells whether none of its threads runs, wants to, or waits for the disk.
        """
        used, self._used = now.used - self._used, now.used
        self.passed = 0.0 if beat is not None else self.passed + passed
        self.stopped = self.stopped + passed if now.state == "T" else 0.0
        if beat is not None:
            self.patience, self.silent = beat, 0.0
        elif self.patience is not None:
            self.silent += passed if idle() else used

    @property
    def reason(self) -> str | None:
        """Why the process must be ended, or None."""
        if self.stopped >= STOPPED_SECONDS:
            return "is stopped"
        if self.patience is not None and self.silent >= self.patience:
            return "hangs"
        return None


class Watch:
    """What a watcher knows of the processes that it polls.

    Args:
        reader: of their heartbeats.
        clock: monotonic seconds.
    """

    def __init__(self, reader: HeartbeatReader, clock: Callable[[], float]) -> None:
        self._reader = reader
        self._clock = clock
        self._polled = clock()
        self.known: dict[int, Liveness] = {}
        """By process id; those that have ended are forgotten."""

    def poll(self, pids: Iterable[int]) -> Iterator[tuple[int, Liveness, float | None]]:
        """Give each process that runs, its liveness, and the patience that it had before."""
        now = self._clock()
        passed, self._polled = min(now - self._polled, MOST_PASSED), now
        before, self.known = self.known, {}
        for pid in pids:
            seen = sample(pid)
            if seen is None:
                continue
            liveness = before.get(pid)
            if liveness is None or liveness.started != seen.started:
                # Its id may have been another process's.
                liveness = Liveness(seen)
                self._reader.forget(pid)
            patience = liveness.patience
            liveness.update(seen, self._reader.poll(pid), passed, partial(is_idle, pid))
            self.known[pid] = liveness
            yield pid, liveness, patience


def children_of(pid: int) -> list[int]:
    """The processes that ``pid``, which has one thread, has started."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
