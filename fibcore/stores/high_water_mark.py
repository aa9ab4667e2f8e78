"""The high-water mark: evidence, beside the database, of how far it has been committed.

SQLite takes a WAL that is missing, or damaged in its last frames, for one that ended earlier, and
silently reads an older index. So the writer records each index in ``<database>.mark``, after its
commit and before its steps are answered. A database behind its high-water mark is invalid.

To record is to copy 53 bytes into a mapped page, without a system call or a sync.
docs/reliability.md explains what a record proves, and which orders of events are possible.
"""

import contextlib
import errno
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Self
from zlib import crc32

from fibcore.problems import (
    DatabaseInvalidError,
    StepsLostError,
    StoreBusyError,
    StoreProblem,
    StoreUnavailableError,
)
from fibcore.stores import files, sqlite_file

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

FILE_SIZE: Final = 4096
"""Bytes: a whole block. File systems may store a much smaller file elsewhere."""

TEXT_SIZE: Final = 44
RECORD_SIZE: Final = 53
"""Bytes of a record without and with its checksum: within one cache line, so rarely torn.

For example ``              25000 full   4b6dba3a4f1c9e02 91b3e846``: the index, the level, the
boot, the checksum.
"""


@dataclass(frozen=True)
class Record:
    """The content of a high-water mark."""

    index: int
    """The index that was committed."""
    synchronous: str
    """The level of durability that it was committed with."""
    boot: str
    """The first digits of the kernel's boot id; empty if unknown."""

    @property
    def origin(self) -> bytes:
        """The part that is the same in all records of a process."""
        return b"%-6b %-16b " % (self.synchronous.encode(), self.boot.encode())

    @property
    def is_of_this_boot(self) -> bool:
        """Whether no power cut can have come between."""
        return self.boot != "" and self.boot == _boot()

    @property
    def counts(self) -> bool:
        """Whether a database behind this record has lost steps that it must not lose."""
        return self.synchronous == "full" or self.is_of_this_boot


def read(database: Path) -> Record | None:
    """Read the high-water mark of ``database``; None if it is missing or damaged.

    Raises:
        StoreUnavailableError: it exists and can't be read.
    """
    path = files.high_water_mark_path(database)
    # The writer may be recording: a torn record is complete a moment later.
    for _ in range(3):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                data = os.pread(fd, RECORD_SIZE, 0)
            finally:
                os.close(fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise sqlite_file.unavailable(error, path) from error
        text = data[:TEXT_SIZE]
        if data == b"%b%08x\n" % (text, crc32(text)):
            return Record(
                int(text[:19]),
                text[20:26].decode().strip(),
                text[27:43].decode().strip(),
            )
    return None


class HighWaterMark:
    """The high-water mark of ``database``, for the process that holds the writer's lock."""

    def __init__(
        self, database: Path, synchronous: str, index: int, *, lower: bool = False
    ) -> None:
        """Create or take over the high-water mark, and record ``index`` durably.

        Args:
            database: its path.
            synchronous: the level at which this process commits.
            index: the index of the database, which must be committed.
            lower: whether an operator has asked for a lower index than before.

        Raises:
            StoreUnavailableError: it can't be created. The database is untouched.
            StoreBusyError: another process has recorded a higher index meanwhile, and its record
                stays.
        """
        path = files.high_water_mark_path(database)
        self._origin = Record(index, synchronous, _boot()).origin
        before = read(database)
        if before is not None and before.counts and before.index > index and not lower:
            # Our index is stale: another process has taken the writer's lock.
            raise StoreBusyError(database)
        try:
            with contextlib.ExitStack() as opened:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                opened.callback(os.close, fd)
                # Always synced: a process that was killed before its sync leaves a record, or a
                # name, that is in the page cache alone and looks like any other.
                data = self._record(index).ljust(FILE_SIZE, b"\0")
                if os.pwrite(fd, data, 0) < FILE_SIZE:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(fd)
                sqlite_file.sync(path.parent)
                self._page = mmap.mmap(fd, FILE_SIZE)
        except OSError as error:
            raise sqlite_file.unavailable(error, path) from error

    def record(self, index: int) -> None:
        """Record that ``index`` is committed."""
        self._page[:RECORD_SIZE] = self._record(index)

    def close(self) -> None:
        """Close the file, which keeps the last record; a second call does nothing."""
        self._page.close()

    def _record(self, index: int) -> bytes:
        text = b"%19d %b" % (index, self._origin)
        return b"%b%08x\n" % (text, crc32(text))


class Evidence(NamedTuple):
    """What is known of a database without opening it. Read it first: a server may be stepping."""

    database: Path
    high_water_mark: Record | None
    backup_copy: int | None
    """The index of the backup copy, if there is a good one."""

    @classmethod
    def of(cls, database: Path) -> Self:
        """Read the evidence of ``database``.

        Raises:
            StoreUnavailableError: the high-water mark can't be read.
        """
        backup_copy = None
        with contextlib.suppress(StoreProblem):
            backup_copy = sqlite_file.verify_file(files.backup_copy_path(database))
        return cls(database, read(database), backup_copy)

    @property
    def largest(self) -> int:
        """The largest index known to have been committed."""
        mark = self.high_water_mark
        return max(mark.index if mark is not None and mark.counts else 0, self.backup_copy or 0)

    @property
    def largest_is_last(self) -> bool:
        """Whether ``largest`` is the last acknowledged index, because this boot recorded it."""
        mark = self.high_water_mark
        return mark is not None and mark.index == self.largest and mark.is_of_this_boot

    def resume_index(self, index: int) -> int:
        """Return the index from which a database at ``index`` resumes.

        Raises:
            StepsLostError: the database has lost steps that it must not lose.
        """
        mark = self.high_water_mark
        if index >= self.largest:
            return index
        if mark is not None and not mark.counts:
            return self.largest
        is_mark = mark is not None and mark.index == self.largest
        path_of = files.high_water_mark_path if is_mark else files.backup_copy_path
        evidence = path_of(self.database).name
        raise StepsLostError(self.database, index, evidence, known=self.largest)


@contextlib.contextmanager
def with_evidence(database: Path) -> Iterator[None]:
    """Add the evidence of ``database`` to a ``DatabaseInvalidError`` that is raised inside."""
    try:
        yield
    except DatabaseInvalidError as error:
        with contextlib.suppress(StoreUnavailableError):
            evidence = Evidence.of(database)
            error.known = evidence.largest
            error.known_is_last = evidence.largest_is_last
        raise


def _boot() -> str:
    try:
        return BOOT_ID.read_text().replace("-", "")[:16]
    except OSError:
        return ""
