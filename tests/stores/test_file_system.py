"""The file systems on which a database may lose steps."""

import os
from pathlib import Path

import pytest

from fibcore.stores import Risk, file_system


@pytest.mark.parametrize(
    ("kind", "risk"),
    [
        ("tmpfs", Risk.REBOOT),
        ("ramfs", Risk.REBOOT),
        ("nfs4", Risk.SHARED),
        ("cifs", Risk.SHARED),
        ("fuse.sshfs", Risk.SHARED),
        ("fuse", Risk.SHARED),
        ("fuseblk", None),
        ("ext4", None),
        ("overlay", None),
    ],
)
def test_a_database_in_memory_or_on_a_shared_file_system_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, risk: Risk | None
) -> None:
    _, fields = file_system.mount_of(tmp_path)
    fields[fields.index("-") + 1] = kind
    mounts = tmp_path / "mounts"
    mounts.write_text(f"1 0 0:1 / /other rw - ext4 none rw\n{' '.join(fields)}\n")
    monkeypatch.setattr(file_system, "MOUNTS", mounts)
    # It need not exist yet.
    found = file_system.warning_at(tmp_path / "new" / "fibcore.db")
    assert (found and found.risk) == risk
    assert found is None or found.setting == f"the file system {kind}"


def test_without_information_from_the_kernel_there_is_no_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert file_system.warning_at(None) is None
    monkeypatch.setattr(file_system, "MOUNTS", tmp_path / "missing")
    assert file_system.warning_at(tmp_path / "fibcore.db") is None
    (tmp_path / "missing").touch()
    assert file_system.warning_at(tmp_path / "fibcore.db") is None


def test_a_file_system_in_memory_is_recognized() -> None:
    if not os.path.ismount("/dev/shm"):
        pytest.fail("/dev/shm is not mounted")
    found = file_system.warning_at(Path("/dev/shm/fibcore.db"))
    assert found is not None
    assert found.setting == "the file system tmpfs"
