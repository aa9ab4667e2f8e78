"""The process that computes long numbers: python -m fibcore.numbers.worker.

For each line with an index it writes a line with the count of digits, then the digits. It has idle
priority, in a session of its own, since Linux first divides the processor between sessions
(sched(7), on autogroups). It is a process, not a thread of the server, because gmpy2 holds the GIL
while it converts to digits, and GMP ends its process when memory runs out.
"""

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import BinaryIO, Final

import gmpy2

PR_SET_PDEATHSIG: Final = 1


def stand_back() -> None:
    """Yield processor and memory to all others, and end with the parent process.

    Best effort: whatever the system refuses is skipped.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    given_up = {"oom_score_adj": "1000"}
    if os.getsid(0) == os.getpid():
        # It applies to a whole session, so it is set only in one of our own.
        given_up["autogroup"] = "19"
    for name, value in given_up.items():
        with contextlib.suppress(OSError):
            Path("/proc/self", name).write_text(value)


def answer(indexes: BinaryIO, numbers: BinaryIO) -> None:
    """Write the number at each of the ``indexes``, until the end of the input."""
    for line in indexes:
        digits = gmpy2.fib(int(line)).digits().encode("ascii")
        numbers.write(b"%d\n" % len(digits))
        numbers.write(digits)
        numbers.flush()


def main() -> None:
    """Compute numbers for the parent process."""
    stand_back()
    with contextlib.suppress(BrokenPipeError):
        answer(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
