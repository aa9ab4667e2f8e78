"""Where tests keep files: in memory, or on a small file system that a test can fill."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, Protocol

MEMORY: Final = Path("/dev/shm")
ROOM: Final = 2**30
"""Free bytes required there."""


def memory_with_room() -> Path | None:
    """Return a folder in memory if there is room."""
    there = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM
    return MEMORY if there else None


class SmallDisk(Protocol):
    """Mounts a small file system: the fixture ``small_disk``, which requires root."""

    def __call__(
        self, folder: Path, *, megabytes: int = 1, inodes: int = 1000
    ) -> AbstractContextManager[Path]: ...


@contextmanager
def mounted(folder: Path, *, megabytes: int = 1, inodes: int = 1000) -> Iterator[Path]:
    """Mount a file system of ``megabytes`` MiB and ``inodes`` files at ``folder``."""
    folder.mkdir(exist_ok=True)
    options = f"size={megabytes}m,nr_inodes={inodes}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(disk: Path) -> Path:
    """Use up the free space; return the file that holds it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler
