"""The file system that holds a database: a lock on it must hold, and what is synced must stay."""

import os
from pathlib import Path
from typing import Final

from fibcore.stores import DurabilityWarning, Risk
from fibcore.stores.files import folder_of

MOUNTS: Final = Path("/proc/self/mountinfo")

IN_MEMORY: Final = {"ramfs", "tmpfs"}
SHARED: Final = {"9p", "afs", "ceph", "cifs", "nfs", "nfs4", "smb3", "smbfs", "vboxsf", "virtiofs"}
"""File systems that machines share, each with rules of its own for locks and syncs."""


def mount_of(path: Path) -> tuple[os.stat_result, list[str]]:
    """The status of a file, and its mount: the fields of proc_pid_mountinfo(5), or none.

    Raises:
        OSError: the kernel does not tell.
    """
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        info = Path(f"/proc/self/fdinfo/{fd}").read_text()
    finally:
        os.close(fd)
    number = next((line.split()[1] for line in info.splitlines() if line[:7] == "mnt_id:"), None)
    mounts = (line.split() for line in MOUNTS.read_text().splitlines())
    return status, next((fields for fields in mounts if fields[0] == number), [])


def warning_at(database: Path | None) -> DurabilityWarning | None:
    """The risk of keeping ``database`` where it is, or will be created; None if there is none."""
    if database is None:
        return None
    try:
        _, fields = mount_of(folder_of(database))
    except OSError:
        return None
    kind = fields[fields.index("-") + 1] if "-" in fields else ""
    if kind in IN_MEMORY:
        return DurabilityWarning(f"the file system {kind}", Risk.REBOOT)
    if kind in SHARED or kind == "fuse" or kind.startswith("fuse."):
        return DurabilityWarning(f"the file system {kind}", Risk.SHARED)
    return None
