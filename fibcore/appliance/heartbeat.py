"""Heartbeats: a process counts its own in memory, and its watcher reads the count.

**No other program can remove, fill or take over the heartbeats.** The count is in anonymous memory
that the process has open (memfd_create(2)); a watcher finds it in ``/proc``. There is no file to
delete and no queue to fill, and a watcher that has just started sees whether a process has ever
beaten. A beat never touches the disk, and never blocks.

A server beats four times a second, from its event loop: from a timer when idle, and under load from
the turns of the loop (``web/http/turns.py``). A timer alone is not enough: libuv polls repeatedly
before it runs one, so a flood delays it. A separate thread would prove nothing: it would beat
beside a loop that hangs. A request in an endless loop makes no turn, and no beat.
"""

import contextlib
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop  # not needed by a watcher

NAME: Final = "fibcore-heartbeat"

LINK: Final = f"/memfd:{NAME} (deleted)"
"""The target of its descriptor's link: proc_pid_fd(5)."""

BEAT: Final = struct.Struct("<Qd")


class Beat(NamedTuple):
    """The last beat of a process."""

    number: int
    """Its sequence number."""
    patience: float
    """Seconds within which the next beat must follow."""


def beat_of(pid: int) -> Beat | None:
    """The last beat of a process; None if it has never beaten, has exited, or is unreadable."""
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as descriptors:
        # The heartbeat's is among the first, however many connections there are.
        for each in descriptors:
            with contextlib.suppress(FileNotFoundError):
                if str(Path(each.path).readlink()) == LINK:
                    return _read(each.path)
    return None


def _read(path: str) -> Beat | None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.pread(fd, BEAT.size, 0)
    finally:
        os.close(fd)
    return Beat(*BEAT.unpack(data)) if len(data) == BEAT.size else None


BEAT_SECONDS: Final = 0.25
"""Interval between beats, unless a turn of the loop takes longer."""

STARTING_SECONDS: Final = 120.0
"""Patience for a server that has just taken over: at index 10^9 its numbers take a minute."""


def serves(pid: int) -> bool:
    """Whether a process has opened its store and serves, as far as this user may see."""
    beat = beat_of(pid)
    return beat is not None and beat.patience < STARTING_SECONDS


LEAST_SECONDS: Final = 2.0
REQUEST_SECONDS: Final = 100e-6
"""Allowance for each request of a turn: several times what it takes."""


def longest_turn(connections: int, steps: int) -> float:
    """Seconds of processor time after which a turn of the loop counts as hung, whatever clients do.

    A turn may handle a request of every connection, and answer every waiting step.
    """
    return max(LEAST_SECONDS, REQUEST_SECONDS * (connections + steps))


class Heartbeat:
    """The heartbeat of this process; one instance for each process.

    Args:
        patience: called at each beat; returns the seconds within which the next must follow.
    """

    def __init__(self, patience: Callable[[], float]) -> None:
        self._patience = patience
        self._fd: int | None = os.memfd_create(NAME)
        self._number = 0
        self._beaten = 0.0
        """Time of the last beat, by the monotonic clock."""

    def beat(self) -> None:
        """Beat once."""
        self._beaten = time.monotonic()
        if self._fd is None:
            return
        self._number += 1
        with contextlib.suppress(OSError):  # Such as a lack of memory, which is not fatal here.
            os.pwrite(self._fd, BEAT.pack(self._number, self._patience()), 0)

    def turned(self) -> None:
        """Beat if it is due; called when a turn of the loop has completed."""
        if time.monotonic() - self._beaten >= BEAT_SECONDS:
            self.beat()

    def beat_on(self, loop: "AbstractEventLoop") -> None:
        """Beat from now on, as long as ``loop`` runs."""
        if self._fd is not None:
            self.beat()
            loop.call_later(BEAT_SECONDS, self.beat_on, loop)

    def close(self) -> None:
        """Stop beating; a second call does nothing."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
