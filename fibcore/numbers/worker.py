"""The process that works out long numbers: python -m fibcore.numbers.worker.

It reads an index in a line, writes how many digits its number has in a line, then the digits, and
so on. It runs when nothing else wants to: whatever wakes up has the processor at once, and what it
does is not taken for the server's. It is a process, and not a thread of the server, since gmpy2
keeps the GIL while it makes digits, GMP ends its process where there is no memory, and Linux shares
the processor between sessions before it looks who in them is idle (sched(7), on autogroups).
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
    """Give way to all others, for the processor and for memory, and end with who has started us.

    What the system does not allow is left.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    given_up = {"oom_score_adj": "1000"}
    if os.getsid(0) == os.getpid():
        # It is that of a whole session, and in another's the others would give way, too.
        given_up["autogroup"] = "19"
    for name, value in given_up.items():
        with contextlib.suppress(OSError):
            Path("/proc/self", name).write_text(value)


def answer(asked: BinaryIO, told: BinaryIO) -> None:
    """Answer what is ``asked``, until nobody asks."""
    for line in asked:
        digits = gmpy2.fib(int(line)).digits().encode("ascii")
        told.write(b"%d\n" % len(digits))
        told.write(digits)
        told.flush()


def main() -> None:
    """Work for who has started us."""
    stand_back()
    with contextlib.suppress(BrokenPipeError):
        answer(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
