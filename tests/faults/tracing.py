"""strace on a running server: its system calls, and how to make them fail."""

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
    """A moment: the ``number``-th time that a traced thread makes this call."""

    call: str
    number: int

    def inject(self, what: str) -> str:
        """strace's option for a fault at this point, such as ``error=EIO``."""
        return f"--inject={self.call}:{what}:when={self.number}"


class Call(NamedTuple):
    """A system call, and its file."""

    point: Point
    file: str
    """The name of the file, or ``socket:`` or the like; empty without a descriptor."""
    injected: bool
    """Whether strace made it fail."""

    def __str__(self) -> str:
        return f"{self.point.call} {self.file}"


class Trace:
    """The output of strace so far."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._complete: str | None = None

    @property
    def text(self) -> str:
        """One line per event, beginning with the thread's id."""
        return self._path.read_text() if self._complete is None else self._complete

    def complete(self) -> None:
        """Keep the text: strace has exited, and its file will be removed."""
        self._complete = self.text

    @property
    def ends_with_the_thread(self) -> bool:
        """Whether the traced thread has ended; its parent may be notified later."""
        return self.text.endswith("+++\n")

    def count(self, call: str) -> int:
        """Number of calls that were begun."""
        return len(re.findall(rf"^(?:\d+ +)?{call}\(", self.text, re.MULTILINE))

    @property
    def calls(self) -> list[Call]:
        """All calls that were begun by a single thread, traced with ``-y``."""
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


@contextmanager
def strace(pid: int, *options: str, threads: bool = True) -> Iterator[Trace]:
    """Trace a process until the block or the process ends.

    Args:
        pid: the process, or a thread.
        options: further options of strace.
        threads: whether to trace all threads of the process, or only this one.
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
    """Detach strace from its process.

    strace may wait forever when it is told to detach from a process that is just dying.
    """
    for number, seconds in ((0, 0.1), (signal.SIGINT, 5.0), (signal.SIGKILL, PATIENCE)):
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=seconds)
            return
