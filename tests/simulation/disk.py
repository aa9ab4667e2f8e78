"""The simulated disk of a machine: files in the page cache, and their pages on the disk.

A write makes pages in the cache dirty. A sync, or the kernel's write-back, writes dirty pages to
the disk. A failed sync marks them clean whether they were written or not, and the next sync skips
them. At a power cut, each dirty page is written, torn, or lost, and so are the latest changes of
names since the last sync of the folder.
"""

import errno
import os
from collections.abc import Callable, Iterable
from typing import Final

import greenlet

from tests.simulation.world import Thread, World

PAGE: Final = 512
"""Bytes per page and per write: a small block of a file system."""
SECTOR: Final = 64
"""Granularity of torn pages, bytes."""
SHORT: Final = 1e-4


class Inode:
    """A file, under any name."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.cached = bytearray()
        self.on_disk = bytearray()
        self.dirty: set[int] = set()
        """Pages that the next sync writes."""
        self.lost: set[int] = set()
        """Pages that the kernel believes to be written, but are not."""
        self.errors = 0
        """Write errors; each open file reports new ones at its next sync."""
        self.maps = 0
        """Number of mappings; the kernel keeps mapped pages."""
        self.locks: dict[OpenFile, bool] = {}
        """Holders of an ``flock``, and whether it is exclusive."""
        self.waiting: list[tuple[Thread, int]] = []
        """Threads that wait for a lock."""
        self.changes = 0
        """Number of changes, in place of a modification time."""

    def write(self, data: bytes, at: int) -> None:
        """Write to the cache."""
        self.changes += 1
        end = at + len(data)
        if len(self.cached) < at:
            self.cached.extend(bytes(at - len(self.cached)))
        self.cached[at:end] = data
        pages = range(at // PAGE, (end + PAGE - 1) // PAGE)
        self.dirty.update(pages)
        self.lost.difference_update(pages)

    def truncate(self, size: int) -> None:
        """Truncate the file, on the disk too: no caller depends on the order."""
        self.changes += 1
        del self.cached[size:], self.on_disk[size:]

    def write_to_disk(self, page: int, size: int = PAGE) -> None:
        """Write a page to the disk, or its first ``size`` bytes."""
        start = page * PAGE
        data = self.cached[start : start + size]
        if len(self.on_disk) < start:
            self.on_disk.extend(bytes(start - len(self.on_disk)))
        self.on_disk[start : start + len(data)] = data


class OpenFile:
    """An open file description."""

    def __init__(self, inode: Inode) -> None:
        self.inode = inode
        self.errors = inode.errors
        """How many errors were reported here."""


class Disk:
    """A disk with one folder.

    Args:
        world: provides time and chance.
        host: its machine's name in the trace.
    """

    def __init__(self, world: World, host: str) -> None:
        self.world = world
        self.host = host
        self.names: dict[str, Inode] = {}
        self.is_full = False
        self.is_denied = False
        """Whether the folder is inaccessible; open files stay usable."""
        self.has_no_descriptors = False
        """Whether opening any file fails."""
        self.failing_reads = 0.0
        self.failing_syncs = 0.0
        """Share of syncs that fail."""
        self.failing_writes = 0.0
        self.failing_next_syncs = 0
        """How many of the next syncs fail."""
        self.is_lying = False
        """Whether syncs report success without writing."""
        self.has_lied = False
        """Whether any did since the last boot."""
        self.write_back_fails = True
        """Whether write-back fails as often as syncs; only a later sync reports that."""
        self.sync_seconds = 1e-3
        """Longest usual duration of a sync."""
        self._durable: dict[str, Inode] = {}
        self._renamed: list[dict[str, Inode | None]] = []
        """Changes of names since the last sync of the folder, in order."""
        self._number = 1
        self._scheduled: list[tuple[int, Callable[[], object]]] = []
        self._calls = 0

    # Called by processes.

    def pause(self, seconds: float) -> None:
        """Block the calling thread up to so long; it may be killed meanwhile."""
        if not isinstance(greenlet.getcurrent(), Thread):
            return
        self._calls += 1
        random = self.world.random.random
        if self._scheduled and self._scheduled[0][0] <= self._calls:
            _, action = self._scheduled.pop(0)
            self.world.after(seconds * random(), None, action)
        elif seconds < SHORT and random() < 0.8:
            return  # Usually nothing else happens meanwhile.
        self.world.park(seconds * random())

    def after_calls(self, number: int, action: Callable[[], object]) -> None:
        """Schedule ``action`` in the middle of the nth call from now."""
        self._scheduled.append((self._calls + number, action))
        self._scheduled.sort(key=lambda each: each[0])

    def cancel_actions(self) -> None:
        """Cancel all actions of ``after_calls``."""
        self._scheduled.clear()

    def open(self, name: str, flags: int) -> OpenFile:
        """Open or create a file."""
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
            PermissionError: the folder is inaccessible.
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
        """Fail with the chance ``failing_reads``."""
        if self.failing_reads and self.world.random.random() < self.failing_reads:
            self.world.log(self.host, "fails a read")
            raise error(errno.EIO)

    def write(self, file: OpenFile, data: bytes, at: int) -> int:
        """Write to the cache; return how many bytes fitted on the disk."""
        self.pause(2e-5)
        if self.failing_writes and self.world.random.random() < self.failing_writes:
            self.world.log(self.host, "fails a write")
            raise error(errno.EIO)
        if self.is_full:
            size = len(file.inode.cached)
            if data and at >= size:
                raise error(errno.ENOSPC)
            data = data[: size - at]
        file.inode.write(data, at)
        return len(data)

    def sync(self, file: OpenFile) -> None:
        """Write the dirty pages of a file to the disk."""
        random = self.world.random.random
        self.pause(min(3.0, self.sync_seconds * (100 if random() < 0.01 else 1)))
        inode = file.inode
        fails = self.failing_next_syncs > 0 or (
            self.failing_syncs and random() < self.failing_syncs
        )
        if fails and inode.dirty:
            self.failing_next_syncs -= self.failing_next_syncs > 0
            self.world.log(self.host, f"fails a sync of {self._name_of(inode)}")
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
        # Journaling file systems write the name of a new file with its first sync.
        for name, each in self.names.items():
            if each is inode and self._durable.get(name) is not inode:
                self.sync_names()
                break

    def _name_of(self, inode: Inode) -> str:
        return next((name for name, each in self.names.items() if each is inode), "a file")

    def sync_names(self) -> None:
        """Write the names to the disk."""
        self._durable = dict(self.names)
        self._renamed.clear()

    def rename(self, change: dict[str, Inode | None]) -> None:
        """Change names atomically; None removes one."""
        self._renamed.append(change)
        apply(change, self.names)

    # Faults.

    def _fail_write_back(self, inode: Inode) -> None:
        """Lose some dirty pages, mark all clean, and note the error."""
        random = self.world.random.random
        for page in sorted(inode.dirty):
            if random() < 0.5:
                inode.write_to_disk(page)
            else:
                inode.lost.add(page)
        inode.dirty.clear()
        inode.errors += 1

    def restore(self) -> None:
        """End all faults, and forget unreported errors."""
        self.is_full = self.is_denied = self.has_no_descriptors = False
        self.failing_reads = self.failing_syncs = self.failing_writes = self.failing_next_syncs = 0
        self.sync_seconds = 1e-3
        for inode in self.names.values():
            inode.errors = 0

    def write_back(self) -> None:
        """Write some dirty pages, as the kernel does periodically."""
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
        """Drop lost pages from the cache: the disk has older contents."""
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
        """Lose most of what is not on the disk. All processes have ended."""
        random = self.world.random
        self.world.log(self.host, "loses power")
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
        """Return all files as in the cache."""
        return {name: bytes(inode.cached) for name, inode in self.names.items()}

    def put(self, name: str, data: bytes | None) -> None:
        """Write a file durably, as an operator does; None: remove it."""
        if data is None:
            self.rename({name: None})
        else:
            self._number += 1
            inode = Inode(self._number)
            inode.cached, inode.on_disk = bytearray(data), bytearray(data)
            self.rename({name: inode})
        self.sync_names()


def apply(change: dict[str, Inode | None], names: dict[str, Inode]) -> None:
    for name, inode in change.items():
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
