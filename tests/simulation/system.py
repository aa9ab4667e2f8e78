"""The system calls of the embedded store, for processes of a simulated machine.

``os``, ``fcntl``, ``mmap``, ``threading`` and paths, as far as the store uses them.
"""

import errno
import fcntl as real_fcntl
import functools
import os as real_os
import stat
import threading as real_threading
import types
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, Final, cast

import greenlet

from tests.simulation.disk import Disk, Inode, OpenFile
from tests.simulation.process import Process
from tests.simulation.world import Thread

FOLDER: Final = "/var/lib/fibcore"
BOOT_ID: Final = "boot_id"


class MachineProcess(Process):
    """A process of a machine with a disk.

    Args:
        disk: the machine's disk.
        name: its name in the trace.
        boot: number of the machine's boot.
        pid: its process id.
    """

    def __init__(self, disk: Disk, name: str, boot: int, pid: int) -> None:
        super().__init__(disk.world, name, disk.host)
        self.disk = disk
        self.boot = boot
        self.pid = pid
        self.files: dict[int, OpenFile] = {}
        self.another_serves: Callable[[], bool] = lambda: False
        self.at_end.append(self._close_files)
        self._last = 2

    def opened(self, file: OpenFile) -> int:
        """Allocate a descriptor."""
        self._last += 1
        self.files[self._last] = file
        return self._last

    def close_file(self, fd: int) -> None:
        """Close a descriptor and release its lock."""
        unlock(self.files.pop(fd))

    def _close_files(self) -> None:
        for fd in list(self.files):
            self.close_file(fd)


def calling_machine_process() -> MachineProcess:
    """Return the simulated process of the caller."""
    return cast("MachineProcess", cast("Thread", greenlet.getcurrent()).process)


def unlock(file: OpenFile) -> None:
    """Release the file's lock, if any, and wake the waiting threads."""
    inode = file.inode
    if inode.locks.pop(file, None) is not None:
        waiting, inode.waiting = inode.waiting, []
        for thread, wait_number in waiting:
            thread.process.world.wake(thread, wait_number)


@functools.cache
def name_of(path: object) -> str:
    return str(path).rpartition("/")[2]


@functools.cache
def is_folder(path: object) -> bool:
    return str(path) == FOLDER or FOLDER.startswith(f"{path}/")


class Status(types.SimpleNamespace):
    """A result of ``stat``."""

    @classmethod
    def of(cls, inode: Inode | None) -> "Status":
        if inode is None:
            return cls(
                st_mode=stat.S_IFDIR | 0o755, st_size=PAGE, st_ino=1, st_dev=1, st_nlink=2, st_uid=0
            )
        return cls(
            st_mode=stat.S_IFREG | 0o644,
            st_size=len(inode.cached),
            st_ino=inode.number,
            st_mtime_ns=inode.changes,
            st_dev=1,
            st_nlink=1,
        )


PAGE: Final = 4096


class SimulatedPath(PurePosixPath):
    """A path on the calling process's machine."""

    __slots__ = ()

    def _inode(self) -> Inode:
        inode = calling_machine_process().disk.find(self.name)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, real_os.strerror(errno.ENOENT), str(self))
        return inode

    def stat(self) -> Status:
        return Status.of(None if is_folder(self) else self._inode())

    lstat = stat  # There are no links.

    def exists(self) -> bool:
        return is_folder(self) or calling_machine_process().disk.find(self.name) is not None

    def is_file(self) -> bool:
        return not is_folder(self) and self.exists()

    def is_symlink(self) -> bool:
        return False

    def resolve(self) -> "SimulatedPath":
        return self

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        assert parents
        assert exist_ok

    def unlink(self, missing_ok: bool = False) -> None:
        if not missing_ok:
            self._inode()
        if self.exists():
            calling_machine_process().disk.rename({self.name: None})

    def rename(self, target: object) -> None:
        calling_machine_process().disk.rename({self.name: None, name_of(target): self._inode()})

    replace = rename

    def read_text(self) -> str:
        if self.name == BOOT_ID:
            return f"{calling_machine_process().boot:08x}-0000-4000-8000-000000000000"
        return self._inode().cached.decode()

    def write_text(self, text: str) -> None:
        fd = os.open(self, real_os.O_CREAT)
        try:
            file = calling_machine_process().files[fd]
            file.inode.truncate(0)
            calling_machine_process().disk.write(file, text.encode(), 0)
        finally:
            os.close(fd)


def _lexists(path: str) -> bool:
    """``os.path.lexists``, which reports inaccessible files as missing."""
    try:
        return SimulatedPath(path).exists()
    except OSError:
        return False


def _access(path: str, mode: int) -> bool:  # noqa: ARG001
    return not calling_machine_process().disk.is_denied and _lexists(path)


def _open(path: object, flags: int, mode: int = 0) -> int:  # noqa: ARG001
    process = calling_machine_process()
    if is_folder(path):
        if str(path) == FOLDER:
            process.disk.find("")
        # Inode 0 stands for the folder's names.
        return process.opened(OpenFile(Inode(-(str(path) != FOLDER))))
    return process.opened(process.disk.open(name_of(path), flags))


def _fsync(fd: int) -> None:
    process = calling_machine_process()
    file = process.files[fd]
    if file.inode.number > 0:
        process.disk.sync(file)
    else:
        process.disk.pause(process.disk.sync_seconds)
        if file.inode.number == 0:
            process.disk.sync_names()


def _file(fd: int) -> OpenFile:
    return calling_machine_process().files[fd]


def _flock(fd: int, flags: int) -> None:
    file = _file(fd)
    inode = file.inode
    if flags & real_fcntl.LOCK_UN:
        unlock(file)
        return
    alone = bool(flags & real_fcntl.LOCK_EX)
    calling_machine_process().disk.pause(1e-5)
    while any(each is not file and (alone or theirs) for each, theirs in inode.locks.items()):
        if flags & real_fcntl.LOCK_NB:
            raise BlockingIOError(errno.EAGAIN, "it is locked")
        thread = cast("Thread", greenlet.getcurrent())
        inode.waiting.append((thread, thread.wait_number + 1))
        thread.process.world.park()
    inode.locks[file] = alone


class Map:
    """A mapped file: writes go to the page cache."""

    def __init__(self, fd: int, size: int) -> None:
        self._file = OpenFile(_file(fd).inode)
        self._inode = self._file.inode
        assert len(self._inode.cached) >= size
        self._inode.maps += 1

    def __setitem__(self, where: slice, data: bytes) -> None:
        self._inode.write(data, where.start or 0)

    def flush(self) -> None:
        calling_machine_process().disk.sync(self._file)

    def close(self) -> None:
        self._inode.maps -= 1


class SimulatedThread:
    """``threading.Thread``."""

    def __init__(
        self,
        target: Callable[..., object],
        args: tuple[object, ...] = (),
        name: str = "",  # noqa: ARG002
        daemon: bool = False,  # noqa: ARG002
    ) -> None:
        self._target = target
        self._arguments = args
        self._has_ended = SimulatedEvent()

    def start(self) -> None:
        calling_machine_process().spawn(self._run)

    def _run(self) -> None:
        self._target(*self._arguments)
        self._has_ended.set()

    def join(self, timeout: float | None = None) -> None:
        self._has_ended.wait(timeout)


class SimulatedEvent:
    """``threading.Event`` for one waiting thread."""

    def __init__(self) -> None:
        self._is_set = False
        self._waiting: tuple[Thread, int] | None = None

    def set(self) -> None:
        self._is_set = True
        if self._waiting is not None:
            thread, wait_number = self._waiting
            self._waiting = None
            thread.process.world.wake(thread, wait_number)

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        if not self._is_set:
            thread = cast("Thread", greenlet.getcurrent())
            self._waiting = thread, thread.wait_number + 1
            thread.process.world.park(timeout)
            self._waiting = None
        return self._is_set


def namespace(module: types.ModuleType, **replaced: object) -> Any:
    """Return a copy of a module with some names replaced."""
    return types.SimpleNamespace(**{**vars(module), **replaced})


os: Final = namespace(
    real_os,
    open=_open,
    close=lambda fd: calling_machine_process().close_file(fd),
    fsync=_fsync,
    lstat=lambda path: SimulatedPath(path).stat(),
    fstat=lambda fd: Status.of(_file(fd).inode),
    lseek=lambda fd, at, whence: len(_file(fd).inode.cached) + at,  # noqa: ARG005
    ftruncate=lambda fd, size: _file(fd).inode.truncate(size),
    pread=lambda fd, size, at: calling_machine_process().disk.read(_file(fd), size, at),
    pwrite=lambda fd, data, at: calling_machine_process().disk.write(_file(fd), data, at),
    getpid=lambda: calling_machine_process().pid,
    access=_access,
    statvfs=lambda _: types.SimpleNamespace(
        f_bavail=0 if calling_machine_process().disk.is_full else 1000
    ),
    setpriority=lambda *_: None,
    path=namespace(
        real_os.path,
        lexists=_lexists,
        exists=_lexists,
        samestat=lambda one, other: one.st_ino == other.st_ino,
    ),
)
fcntl: Final = namespace(real_fcntl, flock=_flock)
mmap: Final = types.SimpleNamespace(mmap=Map)
threading: Final = namespace(
    real_threading, Thread=SimulatedThread, Event=SimulatedEvent, get_native_id=lambda: 0
)
