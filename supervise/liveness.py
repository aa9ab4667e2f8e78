"""Whether a process is alive: its state in the kernel, and how long it has been silent.

Silence is measured in the process's own time, not by the clock. For an endless loop it is the
processor time used; for a process that neither runs nor is runnable (a deadlock), the elapsed time;
for one that waits for a processor or for the disk, none. So a working process is never killed,
however little processor time it gets.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from fibcore.appliance.heartbeat import Beat, beat_of

MOST_PASSED: Final = 1.0
"""Cap on the seconds charged per poll: if the watcher was suspended, the others probably were too,
and have not had the time to beat yet."""

STOPPED_SECONDS: Final = 2.0
"""How long a process may be stopped."""


class Sample(NamedTuple):
    """A process at one moment."""

    started: int
    """When it started, in ticks since boot: unique together with the process id."""
    state: str
    """The state of its main thread, as a letter: proc(5)."""
    used: float
    """Processor time of all its threads, in seconds."""


def fields_of(stat: Path) -> list[str]:
    """The fields of a ``stat`` file in ``/proc`` from the state on; none if the process has ended.

    They follow the command's name, which is in parentheses and may contain anything:
    proc_pid_stat(5).
    """
    try:
        return stat.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def sample(pid: int) -> Sample | None:
    """Sample a process; None if it has ended."""
    fields = fields_of(Path(f"/proc/{pid}/stat"))
    if not fields or fields[0] in "ZX":
        return None
    ticks = int(fields[11]) + int(fields[12])
    return Sample(int(fields[19]), fields[0], ticks / os.sysconf("SC_CLK_TCK"))


def is_idle(pid: int) -> bool:
    """Whether no thread of it is running, runnable or waiting for the disk."""
    threads = map(fields_of, Path(f"/proc/{pid}/task").glob("*/stat"))
    return all(fields[0] in "ST" for fields in threads if fields)


class Liveness:
    """How long one process has been silent, or stopped."""

    def __init__(self, first: Sample) -> None:
        self.started = first.started
        self.patience: float | None = None
        """Seconds for which it may be silent; None if it has never beaten, as a standby."""
        self.silent = 0.0
        self.passed = 0.0
        """Seconds since its last beat, by the clock."""
        self.stopped = 0.0
        self._used = first.used
        self._beat: Beat | None = None
        """The last beat that was read."""

    def receive(self, beat: Beat | None) -> float | None:
        """The patience of ``beat``, just read, if it is a new one; else None.

        If its beats have become unreadable, the process counts as beating: none is killed because
        its watcher is blind.
        """
        last, self._beat = self._beat, beat or self._beat
        return None if beat == last or self._beat is None else self._beat.patience

    def update(
        self, now: Sample, beat: float | None, passed: float, idle: Callable[[], bool]
    ) -> None:
        """Account for one poll.

        Args:
            now: the present sample.
            beat: the patience of its beat, if it has beaten since the last call.
            passed: seconds since then.
            idle: whether none of its threads is running, runnable or waiting for the disk.
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
        """Why the process must be killed, or None."""
        if self.stopped >= STOPPED_SECONDS:
            return "is stopped"
        if self.patience is not None and self.silent >= self.patience:
            return "hangs"
        return None


class Watch:
    """The liveness of the processes that a watcher polls.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._polled = clock()
        self.known: dict[int, Liveness] = {}
        """By process id; those that have ended are forgotten."""

    def poll(self, pids: Iterable[int]) -> Iterator[tuple[int, Liveness, float | None]]:
        """Yield each running process, its liveness, and its previous patience."""
        now = self._clock()
        passed, self._polled = min(now - self._polled, MOST_PASSED), now
        before, self.known = self.known, {}
        for pid in pids:
            seen = sample(pid)
            if seen is None:
                continue
            liveness = before.get(pid)
            if liveness is None or liveness.started != seen.started:
                # The id may have been reused.
                liveness = Liveness(seen)
            patience = liveness.patience
            liveness.update(seen, liveness.receive(beat_of(pid)), passed, partial(is_idle, pid))
            self.known[pid] = liveness
            yield pid, liveness, patience


def children_of(pid: int) -> list[int]:
    """The child processes of ``pid``, which has one thread."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
