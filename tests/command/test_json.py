"""What the ``fibcore`` command tells programs: ``--json``."""

import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fibcore.appliance.settings import FILE
from fibcore.command import cli
from fibcore.stores import files
from fibcore.stores.sqlite import SqliteStore
from supervise.backup import BackupCopy

Fibcore = Callable[..., Any]


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path that the command takes by itself; nothing is there."""
    database = tmp_path / "fibcore.db"
    monkeypatch.chdir(tmp_path)
    (tmp_path / FILE).touch()
    monkeypatch.setenv("FIB_STATE", str(database))
    return database


@pytest.fixture
def fibcore(database: Path, capsys: pytest.CaptureFixture[str]) -> Fibcore:
    """Run the command with ``--json`` and such a status; return what it prints."""
    assert database

    def run(*arguments: object, status: int = 0) -> Any:
        capsys.readouterr()
        assert cli.main([str(each) for each in (*arguments, "--json")]) == status
        printed = capsys.readouterr()
        assert bool(printed.err) == (status != 0)
        return json.loads(printed.out) if printed.out else None

    return run


def make(database: Path, index: int) -> None:
    with closing(SqliteStore(database)) as store:
        store.commit(index)


def test_where_it_stands_is_told_exactly(database: Path, fibcore: Fibcore) -> None:
    """An index is a string: past 2^53 many a program's numbers end."""
    make(database, 25_000)
    assert fibcore("show") == {
        "store": str(database),
        "sequence": None,
        "index": "25000",
        "integers": "exact",
        "digits": 5225,
        "first": "21954383555173030127",
        "last": "77036587231777596875",
        "server": None,
        "synchronous": "full",
        "backup_copy": None,
    }
    BackupCopy(database).refresh()
    assert fibcore("show")["backup_copy"] == {"good": True, "index": "25000"}
    make(database, 2**53 + 1)
    assert fibcore("show", "--integers", "uint64")["index"] == "9007199254740993"


def test_what_is_good_and_what_is_not_is_told(database: Path, fibcore: Fibcore) -> None:
    make(database, 8)
    good = {"store": str(database), "sequence": None, "good": True, "index": "8", "problem": None}
    mark = {"index": "8", "synchronous": "full", "counts": True}
    assert fibcore("verify") == {**good, "high_water_mark": mark, "backup_copy": None}
    files.backup_copy_path(database).write_bytes(b"damaged")
    damaged = {"good": False, "index": None}
    found = fibcore("verify", status=os.EX_DATAERR)
    assert found == {**good, "high_water_mark": mark, "backup_copy": damaged}
    database.write_bytes(b"damaged")
    found = fibcore("verify", status=os.EX_DATAERR)
    assert (found["good"], found["index"]) == (False, None)
    assert "file is not a database" in found["problem"]


def test_what_has_been_done_is_told(database: Path, fibcore: Fibcore, tmp_path: Path) -> None:
    where = {"store": str(database), "sequence": None}
    assert fibcore("init") == {**where, "index": "0", "made": True}
    assert fibcore("init") == {**where, "index": "0", "made": False}
    moved = {**where, "index": "50", "before": "0", "kept": None}
    assert fibcore("set-index", 50) == moved
    copy = tmp_path / "copy.db"
    assert fibcore("backup", copy) == {**where, "file": str(copy), "index": "50"}
    database.write_bytes(b"damaged")
    kept = {"before": None, "kept": f"{database}.invalid-1"}
    assert fibcore("restore", copy) == {**where, "index": "50", **kept}
    there = tmp_path / "there.db"
    assert fibcore("copy", f"sqlite:{database}", f"sqlite:{there}")["store"] == str(there)


def test_what_can_not_be_done_is_said_in_words_alone(database: Path, fibcore: Fibcore) -> None:
    assert fibcore("show", status=os.EX_NOINPUT) is None
    make(database, 8)
    assert fibcore("set-index", 7, status=1) is None
