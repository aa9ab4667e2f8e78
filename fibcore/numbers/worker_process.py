"""The server's handle on the process that computes long numbers; ``worker`` runs in it.

The first number starts it. It is replaced if it ends or makes no progress.
"""

import asyncio
import contextlib
import sys
import time
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Final, NoReturn

CHECK_SECONDS: Final = 1.0
"""How often the process is checked for progress."""

MAX_SILENT: Final = 3
"""Checks in a row without progress after which the process is killed."""

WORK_SECONDS: Final = 10.0
"""Processor time allowed for a number, ..."""

DIGIT_SECONDS: Final = 2e-6
"""... and, in addition, for each of its digits: 20 times what is needed."""

DIGITS_PER_INDEX: Final = 0.2089876402499787
"""The decimal logarithm of the golden ratio, rounded up."""


def most_digits(index: int) -> int:
    """How many digits F(``index``) has, or one more."""
    return int(index * DIGITS_PER_INDEX) + 1


class WorkerProcess:
    """Computes numbers in the process, one at a time. Use it only on the event loop."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._ended: list[Process] = []
        """Killed processes that may not have ended yet."""

    async def compute(self, index: int) -> bytes:
        """Compute the digits of F(``index``) in the process, which is started if there is none.

        Raises:
            OSError: it can't be started, or does not take the request.
            EOFError: it has ended, or was killed because it made no progress.
        """
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "fibcore.numbers.worker"),
                stdin=PIPE,
                stdout=PIPE,
                limit=2**20,
                start_new_session=True,
            )
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(b"%d\n" % index)
        watching = asyncio.create_task(_watch(self._process, index))
        try:
            size = await stdout.readline()
            if not size:
                raise EOFError("the process has ended")
            return await stdout.readexactly(int(size))
        finally:
            watching.cancel()

    def end(self) -> None:
        """Kill the process, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            self._ended = [each for each in self._ended if each.returncode is None]
            self._ended.append(process)
            _kill(process)

    async def ended(self) -> None:
        """Wait until all killed processes have ended."""
        for process in self._ended:
            await process.wait()


async def _watch(process: Process, index: int) -> NoReturn:
    """Kill the process if it makes no progress with a number.

    It has idle priority, so elapsed time proves nothing. It makes progress if it has used processor
    time, up to a bound in proportion to the number, or if it waits for the processor or the disk.
    """
    begun = had = _processor_seconds(process.pid)
    most = WORK_SECONDS + DIGIT_SECONDS * most_digits(index)
    silent = 0
    while True:
        await asyncio.sleep(CHECK_SECONDS)
        before, had = had, _processor_seconds(process.pid)
        works = had > before or _is_runnable(process.pid)
        silent = 0 if works else silent + 1
        if silent >= MAX_SILENT or had - begun > most:
            _kill(process)


def _kill(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


def _processor_seconds(pid: int) -> float:
    """The processor time used by a process; 0 if it has ended."""
    try:
        # The clock of the process: clock_getcpuclockid(3).
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0.0


def _is_runnable(pid: int) -> bool:
    """Whether a process waits for the processor or for the disk, and for nothing else."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    # The state follows the name, which is in parentheses and may hold anything: proc_pid_stat(5).
    return stat.rpartition(")")[2].split()[0] in {"R", "D"}
