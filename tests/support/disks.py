"""A disk that a test can fill."""

import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

__all__ = ["SmallDisk", "fill", "mounted"]


class SmallDisk(Protocol):
    """Mounts a small file system: the fixture ``small_disk``, which says that this takes root."""

    def __call__(self, folder: Path, *, inodes: int = 1000) -> AbstractContextManager[Path]: ...


@contextmanager
def mounted(folder: Path, *, inodes: int = 1000) -> Iterator[Path]:
    """A file system of 1 MiB and so many files, at ``folder``."""
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size=1m,nr_inodes={inodes}", "tmpfs", folder], check=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(disk: Path) -> Path:
    """Use up all the space that is left; return the file that holds it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler
