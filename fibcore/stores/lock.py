"""The lock that makes one process the only writer of a database.

It is an exclusive ``flock`` on a file beside the database: the kernel releases it when its holder
ends, however that happens. The file holds the process id of its last holder, for supervisors.
"""

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import Final

from fibcore.stores.file_system import mount_of
from fibcore.stores.files import lock_path

LOCKS: Final = Path("/proc/locks")

TEST_SECONDS: Final = 0.001
"""Time for ``server_of`` in another process to release the lock."""


def server_of(database: Path) -> int | None:
    """The process id of the holder of the lock on ``database``, 0 if unknown, None without one.

    Raises:
        OSError: the lock file exists and can't be read.
    """
    try:
        fd = os.open(lock_path(database), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        # The only way to test the lock is to take it. ``WriterLock.acquire`` tries again then.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _named_in(fd) or 0
    else:
        return None
    finally:
        os.close(fd)


def _named_in(fd: int) -> int | None:
    """The process id that a lock file names, if it names one."""
    try:
        return int(os.pread(fd, 32, 0))
    except ValueError:
        return None


def waiting_for(database: Path) -> list[int] | None:
    """The processes that wait for the lock on ``database``; None if the kernel does not tell."""
    try:
        file = _in_locks(lock_path(database))
        lines = LOCKS.read_text().splitlines()
    except OSError:
        return None
    # "7: -> FLOCK  ADVISORY  WRITE 4711 08:01:123456 0 EOF": proc_locks(5).
    waiting = (line.split() for line in lines if "-> FLOCK" in line)
    return [int(fields[5]) for fields in waiting if fields[6] == file]


def _in_locks(path: Path) -> str:
    """The name of a file in ``/proc/locks``: the device of its file system, and its inode.

    An inode alone may belong to a file on another device. ``st_dev`` need not be the device: Btrfs
    makes one up for each subvolume. The kernel's table of mounts has the right one.
    """
    status, mount = mount_of(path)
    device = mount[2] if mount else f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    major, minor = map(int, device.split(":"))
    return f"{major:02x}:{minor:02x}:{status.st_ino}"


class WriterLock:
    """An exclusive lock on ``database``, held until the process ends or ``release``."""

    def __init__(self, database: Path) -> None:
        """Prepare the lock without taking it.

        Raises:
            OSError: the lock file can't be opened.
        """
        self._path = lock_path(database)
        self._fd = self._open()

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def acquire(self, *, wait: bool) -> bool:
        """Take the lock; tell whether it was taken, which it always is when ``wait`` is true.

        Raises:
            OSError: the lock file is unavailable; try again later.
        """
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                if self._is_held():
                    return False
                time.sleep(TEST_SECONDS)
                continue
            if self._is_current():
                break
            # The file was deleted or replaced while we waited, so our lock protects nothing. Open
            # the new file before closing the old descriptor, since opening may fail.
            nothing, self._fd = self._fd, self._open()
            os.close(nothing)
        # Overwriting needs no space on a full disk; a new file there stays empty. The lock holds
        # either way: the name is only for supervisors.
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, os.pwrite(self._fd, b"%d\n" % os.getpid(), 0))
        return True

    def _is_held(self) -> bool:
        """Whether a writer holds it. ``server_of`` has it for a moment, shared."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        return False

    def _is_current(self) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._fd))

    def holder(self) -> int | None:
        """The process id of the last holder, or None if the file has none."""
        return _named_in(self._fd)

    def release(self) -> None:
        """Release the lock. This object can't take it again.

        For programs that are done with the database and keep running. A server never calls it: one
        of its threads may be writing, so only the end of the process releases its lock.
        """
        os.close(self._fd)
