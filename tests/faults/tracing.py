"""strace on a server that runs: what it asks of the kernel, and how that can be made to fail."""

import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.support import requires
from tests.support.waiting import PATIENCE


class Point(NamedTuple):
    """A moment: when a thread makes this call for the so-manieth time since it is traced."""

    call: str
    number: int

    def inject(self, what: str) -> str:
        """The option of strace that has something happen there, such as ``error=EIO``."""
        return f"--inject={self.call}:{what}:when={self.number}"


class Call(NamedTuple):
    """What a thread has asked of the kernel, and of which file."""

    point: Point
    file: str
    """Its name, or ``socket:``, or what else the descriptor is of; empty where there is none."""
    injected: bool
    """Whether strace made it fail."""

    def __str__(self) -> str:
        return f"{self.point.call} {self.file}"


class Trace:
    """What strace writes down, as far as it has come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._complete: str | None = None

    @property
    def text(self) -> str:
        """A line for each event, which begins with the thread's number."""
        return self._path.read_text() if self._complete is None else self._complete

    def complete(self) -> None:
        """Remember it: strace has ended, and the file goes away."""
        self._complete = self.text

    @property
    def ends_with_the_thread(self) -> bool:
        """Whether what was traced has ended; who waits for its process may hear of it later."""
        return self.text.endswith("+++\n")

    def count(self, call: str) -> int:
        """How often a system call has been begun."""
        return len(re.findall(rf"^(?:\d+ +)?{call}\(", self.text, re.MULTILINE))

    @property
    def calls(self) -> list[Call]:
        """All that were begun, of a single thread that is traced with ``-y``."""
        counts: Counter[str] = Counter()
        found = []
        for line in self.text.splitlines():
            if begun := re.match(r"(\w+)\((?:\d+<([^>]*)>)?", line):
                call, path = begun.groups(default="")
                counts[call] += 1
                file = re.sub(r"\[\d+\]$", "", path.rpartition("/")[2])
                point = Point(call, counts[call])
                found.append(Call(point, file, line.endswith("(INJECTED)")))
        return found

    @property
    def points(self) -> list[Point]:
        """Every moment at which it could have been cut short."""
        by_thread: dict[str, Counter[str]] = {}
        for thread, call in re.findall(r"^(\d+) +(\w+)\(", self.text, re.MULTILINE):
            by_thread.setdefault(thread, Counter())[call] += 1
        most: Counter[str] = Counter()
        for calls in by_thread.values():
            most |= calls
        return [
            Point(call, number)
            for call, count in sorted(most.items())
            for number in range(1, count + 1)
        ]


@contextmanager
def strace(pid: int, *options: str, threads: bool = True) -> Iterator[Trace]:
    """Trace a process until the block or the process ends.

    Args:
        pid: the process, or a thread.
        options: more of strace's.
        threads: whether all threads of the process are meant, or this one alone.
    """
    program = requires.program("strace")
    with TemporaryDirectory(prefix="fibcore-") as folder:
        trace = Trace(Path(folder) / "trace")
        with subprocess.Popen(
            [
                program,
                *(["-f"] if threads else []),
                *("-s", "256", "-o", f"{folder}/trace", "-p", str(pid)),
                *options,
            ],
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stderr is not None
                said = process.stderr.readline()
                assert "attached" in said, said + process.stderr.read()
                yield trace
            finally:
                _end(process)
                trace.complete()


def _end(process: subprocess.Popen[str]) -> None:
    """Have strace let go of its process, which goes on, if it is not dead.

    strace may wait for ever when it is told to let go of one that is just dying.
    """
    for number, seconds in ((0, 0.1), (signal.SIGINT, 5.0), (signal.SIGKILL, PATIENCE)):
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=seconds)
            return
