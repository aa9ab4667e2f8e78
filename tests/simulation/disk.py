"""The simulated disk of a machine: files in the page cache, and what is on the disk of them.

What is written is in the cache, and dirty. A sync, or the kernel by itself, brings dirty pages to
the disk. A sync that fails leaves them clean, on the disk or not, and the next one does not write_to_disk
them. A power cut leaves some of the dirty pages whole, some torn, and some as they were before; and
some of the names that were given since the folder was synced.
"""

import errno
import os
from collections.abc import Callable, Iterable
from typing import Final

import greenlet

from tests.simulation.world import Thread, World

PAGE: Final = 512
"""Bytes that are written together: a block of the file system, of which there are small ones."""
SECTOR: Final = 64
"""Bytes of which a torn one has some."""
SHORT: Final = 1e-4


class Inode:
    """A file, by whichever name."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.cached = bytearray()
        self.on_disk = bytearray()
        self.dirty: set[int] = set()
        """Pages that a sync is to write."""
        self.lost: set[int] = set()
        """Pages that the kernel takes for written, and that are not."""
        self.errors = 0
        """Each who has it open is told of each, by its next sync."""
        self.maps = 0
        """Mappings of it, whose pages the kernel does not drop."""
        self.locks: dict[OpenFile, bool] = {}
        """Who has an ``flock`` on it, and whether alone."""
        self.waiting: list[tuple[Thread, int]] = []
        """Threads that wait for one."""

    def write(self, data: bytes, at: int) -> None:
        """Write into the cache."""
        end = at + len(data)
        if len(self.cached) < at:
            self.cached.extend(bytes(at - len(self.cached)))
        self.cached[at:end] = data
        pages = range(at // PAGE, (end + PAGE - 1) // PAGE)
        self.dirty.update(pages)
        self.lost.difference_update(pages)

    def truncate(self, size: int) -> None:
        """Cut short, on the disk as well: who does that here asks for no order."""
        del self.cached[size:], self.on_disk[size:]

    def write_to_disk(self, page: int, size: int = PAGE) -> None:
        """Bring a page to the disk, or its first bytes."""
        start = page * PAGE
        data = self.cached[start : start + size]
        if len(self.on_disk) < start:
            self.on_disk.extend(bytes(start - len(self.on_disk)))
        self.on_disk[start : start + len(data)] = data


class OpenFile:
    """What a descriptor stands for."""

    def __init__(self, inode: Inode) -> None:
        self.inode = inode
        self.errors = inode.errors
        """Those that it was told of."""


class Disk:
    """A disk, with one folder.

    Args:
        world: where it is.
        host: whose, for the trace.
    """

    def __init__(self, world: World, host: str) -> None:
        self.world = world
        self.host = host
        self.names: dict[str, Inode] = {}
        self.is_full = False
        self.is_denied = False
        """Whether processes lack the right to the folder; what they have open they use on."""
        self.has_no_descriptors = False
        """Whether nothing more can be opened."""
        self.failing_reads = 0.0
        self.failing_syncs = 0.0
        """The share of syncs that fail."""
        self.failing_writes = 0.0
        self.failing_next_syncs = 0
        """So many syncs fail, those that come next."""
        self.is_lying = False
        """Whether it says that it has synced what it has not."""
        self.has_lied = False
        """Since the power was there."""
        self.write_back_fails = True
        """Whether the kernel's own writing fails like a sync; nobody hears of that without one."""
        self.sync_seconds = 1e-3
        """How long a sync takes at the most, mostly."""
        self.failures = 0
        """How often it has failed."""
        self._durable: dict[str, Inode] = {}
        self._renamed: list[dict[str, Inode | None]] = []
        """What has changed in the names since these were synced, in order."""
        self._number = 1
        self._scheduled: list[tuple[int, Callable[[], object]]] = []
        self._calls = 0

    # What a process asks for.

    def pause(self, seconds: float) -> None:
        """Have the calling thread take up to so long; it may be killed meanwhile."""
        if not isinstance(greenlet.getcurrent(), Thread):
            return
        self._calls += 1
        random = self.world.random.random
        if self._scheduled and self._scheduled[0][0] <= self._calls:
            _, action = self._scheduled.pop(0)
            self.world.after(seconds * random(), None, action)
        elif seconds < SHORT and random() < 0.8:
            return  # Most of the time nothing else happens meanwhile.
        self.world.park(seconds * random())

    def after_calls(self, number: int, action: Callable[[], object]) -> None:
        """Have ``action`` happen in the middle of the call that comes as the nth from now on."""
        self._scheduled.append((self._calls + number, action))
        self._scheduled.sort(key=lambda each: each[0])

    def cancel_actions(self) -> None:
        """Have nothing happen in the middle of a call."""
        self._scheduled.clear()

    def open(self, name: str, flags: int) -> OpenFile:
        """Open a file, or make it."""
        inode = self.find(name)
        if self.has_no_descriptors:
            raise error(errno.ENFILE)
        if inode is None:
            if not flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
            if self.is_full:
                raise error(errno.ENOSPC)
            self._number += 1
            inode = Inode(self._number)
            self.rename({name: inode})
        return OpenFile(inode)

    def find(self, name: str) -> Inode | None:
        """Look a name up in the folder.

        Raises:
            PermissionError: the process lacks the right to the folder.
        """
        self.pause(1e-5)
        if self.is_denied:
            raise error(errno.EACCES)
        return self.names.get(name)

    def read(self, file: OpenFile, size: int, at: int) -> bytes:
        """Read from the cache."""
        self.pause(1e-5)
        self.maybe_fail_read()
        return bytes(file.inode.cached[at : at + size])

    def maybe_fail_read(self) -> None:
        """Raise the error of a read that fails, if it does."""
        if self.failing_reads and self.world.random.random() < self.failing_reads:
            self.world.log(self.host, "fails in a read")
            raise error(errno.EIO)

    def write(self, file: OpenFile, data: bytes, at: int) -> int:
        """Write into the cache; return how many bytes there was room for."""
        self.pause(2e-5)
        if self.failing_writes and self.world.random.random() < self.failing_writes:
            self.failures += 1
            self.world.log(self.host, "fails in a write")
            raise error(errno.EIO)
        if self.is_full:
            size = len(file.inode.cached)
            if data and at >= size:
                raise error(errno.ENOSPC)
            data = data[: size - at]
        file.inode.write(data, at)
        return len(data)

    def sync(self, file: OpenFile) -> None:
        """Bring what is dirty of a file to the disk."""
        random = self.world.random.random
        self.pause(min(3.0, self.sync_seconds * (100 if random() < 0.01 else 1)))
        inode = file.inode
        fails = self.failing_next_syncs > 0 or (
            self.failing_syncs and random() < self.failing_syncs
        )
        if fails and inode.dirty:
            self.failing_next_syncs -= self.failing_next_syncs > 0
            self.failures += 1
            self.world.log(self.host, f"fails in a sync of {self._name_of(inode)}")
            self._fail_write_back(inode)
        if inode.errors > file.errors:
            file.errors = inode.errors
            raise error(errno.EIO)
        if self.is_lying:
            self.has_lied |= bool(inode.dirty)
            return
        for page in sorted(inode.dirty):
            inode.write_to_disk(page)
        inode.dirty.clear()
        # As file systems do that have a journal: a file that is new gets its name with it.
        for name, each in self.names.items():
            if each is inode and self._durable.get(name) is not inode:
                self.sync_names()
                break

    def _name_of(self, inode: Inode) -> str:
        return next((name for name, each in self.names.items() if each is inode), "a file")

    def sync_names(self) -> None:
        """Bring the names to the disk."""
        self._durable = dict(self.names)
        self._renamed.clear()

    def rename(self, change: dict[str, Inode | None]) -> None:
        """Change what names mean, all at once."""
        self._renamed.append(change)
        apply(change, self.names)

    # What happens to it.

    def _fail_write_back(self, inode: Inode) -> None:
        """Fail to write what is dirty."""
        random = self.world.random.random
        for page in sorted(inode.dirty):
            if random() < 0.5:
                inode.write_to_disk(page)
            else:
                inode.lost.add(page)
        inode.dirty.clear()
        inode.errors += 1

    def restore(self) -> None:
        """Take all from now on, and tell nobody any more of what has failed."""
        self.is_full = self.is_denied = self.has_no_descriptors = False
        self.failing_reads = self.failing_syncs = self.failing_writes = self.failing_next_syncs = 0
        self.sync_seconds = 1e-3
        for inode in self.names.values():
            inode.errors = 0

    def write_back(self) -> None:
        """What the kernel does now and then: write some pages, and drop some that it can read."""
        random = self.world.random.random
        for inode in self.names.values():
            if inode.dirty and random() < 0.5:
                fails = self.failing_syncs and random() < self.failing_syncs
                if fails and self.write_back_fails:
                    self._fail_write_back(inode)
                    continue
                for page in sorted(inode.dirty):
                    if random() < 0.7:
                        inode.write_to_disk(page)
                        inode.dirty.discard(page)

    def drop_lost_pages(self, names: Iterable[str]) -> None:
        """Read from the disk again what the kernel takes for written: it is old there."""
        for name in names:
            inode = self.names.get(name)
            if inode is None or inode.maps:
                continue
            for page in sorted(inode.lost):
                start = page * PAGE
                size = min(PAGE, len(inode.cached) - start)
                old = inode.on_disk[start : start + size]
                inode.cached[start : start + size] = old.ljust(size, b"\0")
            inode.lost.clear()

    def cut_power(self) -> None:
        """Lose what is not on the disk, or most of it. Nobody has anything open any more."""
        random = self.world.random
        self.world.log(self.host, "has no power")
        self.has_lied = False
        for change in self._renamed[: random.randint(0, len(self._renamed))]:
            apply(change, self._durable)
        self._renamed.clear()
        self.names = dict(self._durable)
        survives = random.choice((0.0, 0.5, 0.9))
        for inode in self.names.values():
            for page in sorted(inode.dirty):
                if random.random() < survives:
                    torn = random.random() < 0.2
                    inode.write_to_disk(page, SECTOR * random.randint(0, 7) if torn else PAGE)
            inode.dirty.clear()
            inode.lost.clear()
            inode.cached = bytearray(inode.on_disk)
            inode.errors = inode.maps = 0

    def snapshot(self) -> dict[str, bytes]:
        """All files, as they are read now."""
        return {name: bytes(inode.cached) for name, inode in self.names.items()}

    def put(self, name: str, data: bytes | None) -> None:
        """Have a file as a person puts it there, durably; None: without it."""
        if data is None:
            self.rename({name: None})
        else:
            self._number += 1
            inode = Inode(self._number)
            inode.cached, inode.on_disk = bytearray(data), bytearray(data)
            self.rename({name: inode})
        self.sync_names()


def apply(change: dict[str, Inode | None], names: dict[str, Inode]) -> None:
    """Change names."""
    for name, inode in change.items():
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode


def error(number: int) -> OSError:
    """As the system raises it."""
    return OSError(number, os.strerror(number))
