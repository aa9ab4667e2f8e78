"""``fibcore init``, ``set-index``, ``backup``, ``restore`` and ``copy``."""

import json
import os
from pathlib import Path

import pytest

from fibcore import MAX_INDEX
from tests.command.conftest import Fibcore, rows
from tests.support.invalid_databases import contents
from tests.support.servers import ServerProcess


def index_of(fibcore: Fibcore, database: Path) -> str:
    """The index that ``fibcore verify`` finds good."""
    status, output, _ = fibcore("verify", "--json", "--database", database)
    assert status == 0
    return str(json.loads(output)["index"])


def test_init_creates_a_database_once(
    fibcore: Fibcore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "new" / "fibcore.db"
    monkeypatch.setenv("FIB_STORE", f"sqlite:{database}")
    assert fibcore("init") == (0, f"{database} has been created, at index 0\n", "")
    fibcore("set-index", 3)
    assert f"{database} is at index 3 already; nothing has been changed" in fibcore("init")[1]


def test_the_index_is_raised_and_lowered_only_with_lower(database: Path, fibcore: Fibcore) -> None:
    assert fibcore("set-index", 5) == (0, f"{database} is at index 5\n", "")
    assert fibcore("set-index", 9) == (0, f"{database} is at index 9; previously at 5\n", "")
    status, output, problem = fibcore("set-index", 4)
    assert (status, output) == (1, "")
    assert "has reached index 9: going back to 4 would hand out the indexes in between" in problem
    assert index_of(fibcore, database) == "9"
    assert fibcore("set-index", "--lower", 4)[0] == 0
    assert index_of(fibcore, database) == "4"


@pytest.mark.parametrize("index", ["-1", "", "x", "1.0", "٣", "1" * 20])
def test_an_invalid_index_is_a_usage_error(database: Path, fibcore: Fibcore, index: str) -> None:
    status, _, problem = fibcore("set-index", index)
    assert (status, database.exists()) == (2, False)
    assert problem.startswith("usage: fibcore set-index ")


def test_an_index_past_the_largest_is_not_set(database: Path, fibcore: Fibcore) -> None:
    status, _, problem = fibcore("set-index", 10**9 + 1)
    assert status == 1
    assert "1000000001 is past 1000000000, the largest index with integers exact." in problem
    assert "Nothing has been changed. With --integers uint64" in problem
    assert fibcore("set-index", "--integers", "uint64", MAX_INDEX + 1)[0] == 1
    assert not database.exists()
    assert fibcore("set-index", "--integers", "uint64", MAX_INDEX)[0] == 0


def test_a_backup_is_restored_in_place_of_a_damaged_database(
    database: Path, fibcore: Fibcore, tmp_path: Path
) -> None:
    fibcore("set-index", 50)
    file = tmp_path / "backup.db"
    assert fibcore("backup", file) == (0, f"{file}: a verified copy at index 50\n", "")
    database.write_bytes(b"damaged")
    Path(f"{database}.mark").unlink()
    kept = f"{database}.invalid-1"
    assert fibcore("restore", file) == (
        0,
        f"{database} is at index 50\nthe previous database was invalid; it is kept as {kept}\n",
        "",
    )
    assert Path(kept).read_bytes() == b"damaged"
    assert index_of(fibcore, database) == index_of(fibcore, file) == "50"


def test_an_older_backup_is_restored_only_with_lower(
    database: Path, fibcore: Fibcore, tmp_path: Path
) -> None:
    fibcore("set-index", 50)
    file = tmp_path / "backup.db"
    fibcore("backup", file)
    fibcore("set-index", 60)
    status, output, problem = fibcore("restore", file)
    assert (status, output) == (1, "")
    assert "has reached index 60: going back to 50 would" in problem
    lowered = f"{database} is at index 50; previously at 60\n"
    assert fibcore("restore", "--lower", file) == (0, lowered, "")


@pytest.mark.usefixtures("database")
def test_an_invalid_or_missing_copy_is_not_restored(fibcore: Fibcore, tmp_path: Path) -> None:
    """tests/stores covers every kind of invalid copy."""
    fibcore("set-index", 5)
    file = tmp_path / "backup.db"
    file.write_bytes(b"damaged")
    before = contents(tmp_path)
    status, _, problem = fibcore("restore", file)
    assert status == os.EX_DATAERR
    assert f"{file} can't be restored" in problem
    status, _, problem = fibcore("restore", "nosuch.db")
    assert status == os.EX_NOINPUT
    assert "nosuch.db can't be restored: there is no such file." in problem
    status, _, problem = fibcore("backup", tmp_path / "nofolder" / "x")
    assert status == os.EX_CANTCREAT
    assert f"there is no folder {tmp_path / 'nofolder'}" in problem
    assert "The database is unchanged." in problem
    assert contents(tmp_path) == before


def test_files_created_by_the_command_are_private(database: Path, fibcore: Fibcore) -> None:
    umask = os.umask(0o022)
    try:
        fibcore("set-index", 5)
        fibcore("backup", f"{database}.copy")
        made = database.parent.glob(f"{database.name}*")
        assert {path.stat().st_mode & 0o777 for path in made} == {0o600}
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(umask)


def test_a_store_to_copy_may_be_given_in_a_file(
    database: Path, fibcore: Fibcore, tmp_path: Path
) -> None:
    """So ``ps`` shows no password."""
    fibcore("set-index", 50)
    source, target = tmp_path / "from", tmp_path / "to"
    source.write_text(f"sqlite:{database}\n")
    target.write_text(f"sqlite:{tmp_path}/there.db\n")
    status, output, _ = fibcore("copy", f"@{source}", f"@{target}")
    assert (status, output.split()[0]) == (0, f"{tmp_path}/there.db")
    assert f"do not step {database} any more" in output
    assert index_of(fibcore, tmp_path / "there.db") == "50"


def test_commands_that_change_a_store_print_the_change_as_json(
    database: Path, fibcore: Fibcore, tmp_path: Path
) -> None:
    def facts(*arguments: object) -> object:
        status, output, problem = fibcore(*arguments, "--json")
        assert (status, problem) == (0, "")
        return json.loads(output)

    where = {"store": str(database), "sequence": None}
    assert facts("init") == {**where, "index": "0", "made": True}
    assert facts("init") == {**where, "index": "0", "made": False}
    assert facts("set-index", 50) == {**where, "index": "50", "before": "0", "kept": None}
    copy = tmp_path / "copy.db"
    assert facts("backup", copy) == {**where, "file": str(copy), "index": "50"}
    database.write_bytes(b"damaged")
    kept = {"before": None, "kept": f"{database}.invalid-1"}
    assert facts("restore", copy) == {**where, "index": "50", **kept}
    assert fibcore("set-index", 7, "--json")[:2] == (1, "")


@pytest.mark.processes
def test_a_served_database_can_be_shown_verified_and_copied(
    server: ServerProcess, fibcore: Fibcore, tmp_path: Path
) -> None:
    copy = tmp_path / "backup.db"
    for index in range(1, 6):
        assert server.client.get("/next").index == index
        status, output, _ = fibcore("show")
        assert (status, rows(output)["index"]) == (0, str(index))
        assert rows(output)["served by"] == f"process {server.pid}"
        assert fibcore("verify")[0] == 0
        assert fibcore("backup", copy)[0] == 0
        assert index_of(fibcore, copy) == str(index)


@pytest.mark.processes
def test_a_served_database_cannot_be_set_restored_or_moved(
    server: ServerProcess, database: Path, fibcore: Fibcore, tmp_path: Path
) -> None:
    assert fibcore("set-index", 50, "--database", "backup.db")[0] == 0
    assert server.client.get("/next").index == 1
    for arguments in (
        ("set-index", 9),
        ("restore", "backup.db"),
        ("copy", f"sqlite:{database}", f"sqlite:{tmp_path}/there.db"),
    ):
        status, output, problem = fibcore(*arguments)
        assert (status, output) == (os.EX_TEMPFAIL, "")
        assert f"in use by process {server.pid}. Nothing has been changed." in problem
        assert "supervisorctl stop 'web:*'" in problem
    assert server.client.get("/next").index == 2
    assert not (tmp_path / "there.db").exists()
