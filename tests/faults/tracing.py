"""strace on a server that runs: what it asks of the kernel, and how that can be made to fail."""

import re
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.supervised import PATIENCE

__all__ = ["Trace", "strace"]


class Trace:
    """What strace has written down of a process with all its threads."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def text(self) -> str:
        return self._path.read_text()

    def calls(self) -> Counter[str]:
        """How often each system call was begun by the thread that did so most often."""
        by_thread: dict[str, Counter[str]] = {}
        for thread, call in re.findall(r"^(\d+) +(\w+)\(", self.text, re.MULTILINE):
            by_thread.setdefault(thread, Counter())[call] += 1
        most: Counter[str] = Counter()
        for calls in by_thread.values():
            most |= calls
        return most


@contextmanager
def strace(pid: int, *options: str) -> Iterator[Trace]:
    """Trace a process from now to the end of the block, or of the process.

    Args:
        pid: the process; threads that it starts are traced too.
        options: such as ``"--inject=fdatasync:error=EIO:when=3"``, where the third call of each
            thread since now is meant. See strace(1) on tampering.
    """
    if shutil.which("strace") is None:
        pytest.fail("strace is missing: apt-get install strace")
    with tempfile.TemporaryDirectory(prefix="fibcore-") as folder:
        trace = Path(folder) / "trace"
        with subprocess.Popen(
            ["strace", "--follow-forks", f"--output={trace}", f"--attach={pid}", *options],
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stderr is not None
                said = process.stderr.readline()
                assert "attached" in said, said + process.stderr.read()
                yield Trace(trace)
            finally:
                # It lets go of the process, which goes on.
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=PATIENCE)
