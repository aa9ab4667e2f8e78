"""Heartbeats: a process counts its own in memory, and whoever watches it reads the count.

**What holds the heartbeats can't be removed, filled or taken by another program.** The count is in
anonymous memory that the process has open (memfd_create(2)); a watcher finds it in ``/proc``. There
is no file to delete, no queue that could be full, and a watcher that has just started sees whether
a process has ever beaten. A beat costs no disk, and never waits.

A server's beat is due four times a second, and comes from the event loop itself: from a timer while
little happens, and under a load from the turns that are made (``web/http/turns.py``). A timer alone
would not do, as libuv polls again and again before it runs one, so that a flood puts it off. A
thread of its own would prove nothing: it beats beside a loop that hangs. A request in an endless
loop makes no turn, and no beat.
"""

import contextlib
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop  # which a watcher has no use for

NAME: Final = "fibcore-heartbeat"

LINK: Final = f"/memfd:{NAME} (deleted)"
"""What the kernel shows of a descriptor of it: proc_pid_fd(5)."""

BEAT: Final = struct.Struct("<Qd")


class Beat(NamedTuple):
    """The last beat of a process."""

    number: int
    """How many there have been."""
    patience: float
    """For how many seconds there may be none after it."""


class Pulse:
    """The heartbeats of this process, of which there is one."""

    def __init__(self) -> None:
        self._fd: int | None = os.memfd_create(NAME)
        self._number = 0

    def beat(self, patience: float) -> None:
        """Say once that this process is well, and for how many seconds that is to be believed."""
        if self._fd is None:
            return
        self._number += 1
        with contextlib.suppress(OSError):  # No memory, say: that ends nothing.
            os.pwrite(self._fd, BEAT.pack(self._number, patience), 0)

    def close(self) -> None:
        """Beat no more. Closing twice is allowed."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def beat_of(pid: int) -> Beat | None:
    """The last beat of a process; None if it has never beaten, has ended, or can't be read."""
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as descriptors:
        # Its own is among the first, however many connections it has.
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


class HeartbeatReader:
    """The heartbeats of processes, as one watcher sees them."""

    def __init__(self) -> None:
        self._last: dict[int, Beat] = {}

    def poll(self, pid: int) -> float | None:
        """Seconds for which ``pid`` may be silent from now on; None if it has not beaten since.

        A process whose beats can't be read any more is taken for one that beats: nothing is ended
        because its watcher is blind.
        """
        last, beat = self._last.get(pid), beat_of(pid)
        if beat is None:
            return None if last is None else last.patience
        self._last[pid] = beat
        return None if last is not None and last.number == beat.number else beat.patience

    def forget(self, pid: int) -> None:
        """It has ended: its process id may become another's."""
        self._last.pop(pid, None)


# A server's.


BEAT_SECONDS: Final = 0.25
"""How often it beats, if the turns of the loop are not longer."""

STARTING_SECONDS: Final = 120.0
"""For a server that has just taken over. The numbers at an index of 10^9 take a minute."""

LEAST_SECONDS: Final = 2.0
REQUEST_SECONDS: Final = 100e-6
"""For each request of a turn, several times what it takes."""


def longest_turn(connections: int, steps: int) -> float:
    """Seconds of processor time past which a turn of the loop hangs, whatever clients do.

    Every connection may have a request in it, and every step that may wait be answered in it.
    """
    return max(LEAST_SECONDS, REQUEST_SECONDS * (connections + steps))


class Heartbeat:
    """The heartbeat of a server.

    Args:
        patience: asked at each beat for how many seconds there may be none after it.
    """

    def __init__(self, patience: Callable[[], float]) -> None:
        self._patience = patience
        self._pulse = Pulse()
        self._is_closed = False
        self._beaten = 0.0
        """When it last did, by the monotonic clock."""

    def beat(self) -> None:
        """Say once that this process is well."""
        self._beaten = time.monotonic()
        self._pulse.beat(self._patience())

    def turned(self) -> None:
        """Say so if it is time: the loop has made a turn."""
        if time.monotonic() - self._beaten >= BEAT_SECONDS:
            self.beat()

    def beat_on(self, loop: "AbstractEventLoop") -> None:
        """Beat from now on, for as long as ``loop`` turns."""
        if not self._is_closed:
            self.beat()
            loop.call_later(BEAT_SECONDS, self.beat_on, loop)

    def close(self) -> None:
        """Beat no more."""
        self._is_closed = True
        self._pulse.close()
