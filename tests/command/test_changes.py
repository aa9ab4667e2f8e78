"""``fibcore backup``, ``restore`` and ``set-index``."""

import os
from pathlib import Path

import pytest

from fibcore import MAX_INDEX
from fibcore.stores import files, sqlite_file, sqlite_opener
from supervise.backup import BackupCopy
from tests.command.conftest import Fibcore, make
from tests.support.invalid_databases import contents

# backup and restore


def test_a_backup_can_be_restored(database: Path, fibcore: Fibcore, tmp_path: Path) -> None:
    make(database, 50)
    file = tmp_path / "backup.db"
    assert fibcore("backup", file) == (0, f"{file}: a verified copy at index 50\n", "")
    database.write_bytes(b"damaged")
    files.high_water_mark_path(database).unlink()
    status, output, complaint = fibcore("restore", file)
    assert (status, complaint) == (0, "")
    assert output == (
        f"{database} is at index 50\n"
        f"the previous database was invalid; it is kept as {database}.invalid-1\n"
    )
    assert sqlite_opener.verified_index(database) == 50
    assert sqlite_file.verify_file(file) == 50


def test_the_backup_copy_can_be_restored(database: Path, fibcore: Fibcore) -> None:
    make(database, 50)
    BackupCopy(database).refresh()
    database.write_bytes(b"damaged")
    assert fibcore("restore", files.backup_copy_path(database))[0] == 0
    assert sqlite_opener.verified_index(database) == 50


def test_an_older_backup_is_restored_only_with_lower(
    database: Path, fibcore: Fibcore, tmp_path: Path
) -> None:
    make(database, 50)
    file = tmp_path / "backup.db"
    fibcore("backup", file)
    make(database, 60)
    status, output, complaint = fibcore("restore", file)
    assert (status, output) == (1, "")
    assert (
        "has reached index 60: going back to 50 would hand out the indexes in between a second time"
        in complaint
    )
    assert fibcore("restore", "--lower", file) == (
        0,
        f"{database} is at index 50; previously at 60\n",
        "",
    )


def test_an_invalid_copy_is_not_restored(database: Path, fibcore: Fibcore, tmp_path: Path) -> None:
    """tests/stores covers every kind of invalid copy."""
    make(database, 5)
    folder = tmp_path / "copy"
    folder.mkdir()
    file = folder / "backup.db"
    file.write_bytes(b"damaged")
    before = contents(folder), contents(database.parent)
    status, _, complaint = fibcore("restore", file)
    assert status == os.EX_DATAERR
    assert f"{file} can't be restored" in complaint
    assert (contents(folder), contents(database.parent)) == before


# set-index


def test_the_index_is_set(database: Path, fibcore: Fibcore) -> None:
    assert fibcore("set-index", 5) == (0, f"{database} is at index 5\n", "")
    assert fibcore("set-index", 9) == (0, f"{database} is at index 9; previously at 5\n", "")
    assert fibcore("set-index", 4)[0] == 1
    assert fibcore("set-index", "--lower", 4)[0] == 0
    assert sqlite_opener.verified_index(database) == 4


def test_files_created_by_the_command_are_private(database: Path, fibcore: Fibcore) -> None:
    umask = os.umask(0o022)
    try:
        fibcore("set-index", 5)
        fibcore("backup", database.with_name("backup.db"))
        assert {path.stat().st_mode & 0o777 for path in database.parent.iterdir()} == {0o600}
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(umask)


@pytest.mark.parametrize("index", ["-1", "", "x", "1.0", "٣", "1" * 20])
def test_an_invalid_index_is_a_usage_error(database: Path, fibcore: Fibcore, index: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        fibcore("set-index", index)
    assert not database.exists()


def test_an_index_past_the_largest_is_not_set(database: Path, fibcore: Fibcore) -> None:
    assert fibcore("set-index", 10**9 + 1)[0] == 1
    assert fibcore("set-index", "--integers", "uint64", MAX_INDEX + 1)[0] == 1
    assert not database.exists()
    assert fibcore("set-index", "--integers", "uint64", MAX_INDEX)[0] == 0


def test_a_store_to_copy_may_be_given_in_a_file(
    database: Path, fibcore: Fibcore, tmp_path: Path
) -> None:
    make(database, 50)
    source, target = tmp_path / "from", tmp_path / "to"
    source.write_text(f"sqlite:{database}\n")
    target.write_text(f"sqlite:{tmp_path}/there.db\n")
    status, said, _ = fibcore("copy", f"@{source}", f"@{target}")
    assert (status, said.split()[0]) == (0, f"{tmp_path}/there.db")
    assert f"do not step {database} any more" in said
