"""A file system whose power can be cut."""

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

from tests.support import requires

BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"

EXT4_IOC_SHUTDOWN: Final = 0x8004587D
"""_IOR('X', 125, __u32): see ext4_shutdown() in Linux's fs/ext4/ioctl.c."""

NO_LOG_FLUSH: Final = struct.pack("I", 2)
"""Not even the journal of the file system is flushed."""


class Volume:
    """A real ext4 file system in a file, mounted at ``path``, whose power can be cut.

    After ``cut_power`` nothing from the kernel's memory reaches the disk, and every write fails.
    ``restore_power`` mounts what is on the disk: the file system recovers as after a real power
    cut, and unsynced data is gone. Programs started with ``there`` see a kernel that was booted
    then.
    """

    def __init__(self, folder: Path, megabytes: int) -> None:
        self._image = folder / "image"
        self._boot_id = folder / "boot_id"
        self.path = folder / "disk"
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(megabytes * 2**20)
        subprocess.run(
            # Everything is written now, so that later writes belong to the test.
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
        """Cut the power of the disk; any use of it fails from now on.

        No process may be in a system call then. Unlike a real power cut, this one may let a sync
        that is under way return success although its data is lost (even for a program that only
        appends and calls fdatasync).
        """
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, NO_LOG_FLUSH)
        finally:
            os.close(fd)

    def restore_power(self) -> None:
        """Mount what is on the disk. Every process that had files open there must have exited.

        A copy is mounted: programs in other mount namespaces, such as those that ``there`` starts
        for other tests, may keep the file system without power alive, and mounting the same file
        would then return that one.
        """
        old = self._image
        self._image = old.with_name(f"image_{uuid.uuid4()}")
        shutil.copyfile(old, self._image)
        old.unlink()
        subprocess.run(["umount", self.path], check=True)
        self._mount()

    def there(self, command: Sequence[str]) -> list[str]:
        """Return a command that runs ``command`` on the machine whose power was cut."""
        script = f'mount --bind {self._boot_id} {BOOT_ID} && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", script, "sh", *command]


@contextlib.contextmanager
def volume(megabytes: int = 16) -> Iterator[Volume]:
    """A separate volume for the ``with`` block, removed at its end."""
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
