"""Disks that fail: a file system whose power can be cut, and one that can be full."""

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from fibcore.stores.high_water_mark import BOOT_ID
from tests.support import requires

EXT4_IOC_SHUTDOWN: Final = 0x8004587D
"""_IOR('X', 125, __u32): see ext4_shutdown() in Linux's fs/ext4/ioctl.c."""

NO_LOG_FLUSH: Final = struct.pack("I", 2)
"""Not even the file system's own journal gets to write what it has in memory."""


class Volume:
    """A real ext4 file system in a file, mounted at ``path``, whose power can be cut.

    After ``cut_power`` nothing that the kernel held in memory reaches the disk any more, and
    every write fails. ``restore_power`` mounts what is on the disk: the file system recovers as
    it does after a real power cut, and what was not synced is gone. To the programs that ``there``
    starts the kernel is one that was booted then.
    """

    def __init__(self, folder: Path, megabytes: int) -> None:
        self._image = folder / "image"
        self._boot_id = folder / "boot_id"
        self.path = folder / "disk"
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(megabytes * 2**20)
        subprocess.run(
            # All of it is written now, so that later writes are the test's own.
            [
                requires.program("mkfs.ext4"),
                "-q",
                "-F",
                "-b",
                "4096",
                "-E",
                "lazy_itable_init=0,lazy_journal_init=0",
                self._image,
            ],
            check=True,
        )
        self._mount()

    def _mount(self) -> None:
        self._boot_id.write_text(f"{uuid.uuid4()}\n")
        subprocess.run(["mount", "-o", "loop", self._image, self.path], check=True)

    def cut_power(self) -> None:
        """Cut the power of the disk; whoever uses it gets errors from now on.

        Nobody may be in a system call then. The simulation has a flaw that no real power cut has:
        a sync that is under way may return success, although what it should have brought to the
        disk is gone. (So it is for a program that does nothing but append and fdatasync.)
        """
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, NO_LOG_FLUSH)
        finally:
            os.close(fd)

    def restore_power(self) -> None:
        """Mount what is on the disk. All who had files open there must have ended.

        It is a copy that is mounted: programs in mount namespaces of their own, such as those that
        ``there`` starts for any test that runs meanwhile, may keep the file system that has no
        power, and whoever mounts the same file then gets that one again.
        """
        old = self._image
        self._image = old.with_name(f"image_{uuid.uuid4()}")
        shutil.copyfile(old, self._image)
        old.unlink()
        subprocess.run(["umount", self.path], check=True)
        self._mount()

    def there(self, command: Sequence[str]) -> list[str]:
        """What runs ``command`` on the machine whose power was cut."""
        script = f'mount --bind {self._boot_id} {BOOT_ID} && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", script, "sh", *command]

    def fill(self) -> Path:
        """Use up all the space that is left; return the file that holds it."""
        filler = self.path / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        return filler


@contextlib.contextmanager
def volume(megabytes: int = 16) -> Iterator[Volume]:
    """A volume of its own for the ``with`` block, and nothing left after it."""
    if os.geteuid() != 0:
        pytest.fail("this test mounts a file system, so it needs root: sudo make test-faults")
    folder = Path(tempfile.mkdtemp(prefix="fibcore-"))
    try:
        made = Volume(folder, megabytes)
        try:
            yield made
        finally:
            # Lazily: a process that a failed test left there must not keep it mounted.
            subprocess.run(["umount", "--lazy", made.path], check=True)
    finally:
        shutil.rmtree(folder)
