"""The output of ``fibcore`` for programs: ``--json``."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fibcore.stores import files
from supervise.backup import BackupCopy
from tests.command.conftest import Fibcore, make

AsJson = Callable[..., Any]


@pytest.fixture
def as_json(fibcore: Fibcore) -> AsJson:
    """Run the command with ``--json``, expect this exit status, and return the decoded output."""

    def run(*arguments: object, status: int = 0) -> Any:
        found, output, complaint = fibcore(*arguments, "--json")
        assert (found, bool(complaint)) == (status, status != 0)
        return json.loads(output) if output else None

    return run


def test_show_prints_exact_facts_as_json(database: Path, as_json: AsJson) -> None:
    """An index is a string: many programs are exact only to 2^53."""
    make(database, 25_000)
    assert as_json("show") == {
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
    assert as_json("show")["backup_copy"] == {"good": True, "index": "25000"}
    make(database, 2**53 + 1)
    assert as_json("show", "--integers", "uint64")["index"] == "9007199254740993"


def test_verify_prints_valid_and_invalid_parts_as_json(database: Path, as_json: AsJson) -> None:
    make(database, 8)
    good = {"store": str(database), "sequence": None, "good": True, "index": "8", "problem": None}
    mark = {"index": "8", "synchronous": "full", "counts": True}
    assert as_json("verify") == {**good, "high_water_mark": mark, "backup_copy": None}
    files.backup_copy_path(database).write_bytes(b"damaged")
    damaged = {"good": False, "index": None}
    found = as_json("verify", status=os.EX_DATAERR)
    assert found == {**good, "high_water_mark": mark, "backup_copy": damaged}
    database.write_bytes(b"damaged")
    found = as_json("verify", status=os.EX_DATAERR)
    assert (found["good"], found["index"]) == (False, None)
    assert "file is not a database" in found["problem"]


def test_commands_that_change_a_store_print_the_change_as_json(
    database: Path, as_json: AsJson, tmp_path: Path
) -> None:
    where = {"store": str(database), "sequence": None}
    assert as_json("init") == {**where, "index": "0", "made": True}
    assert as_json("init") == {**where, "index": "0", "made": False}
    moved = {**where, "index": "50", "before": "0", "kept": None}
    assert as_json("set-index", 50) == moved
    copy = tmp_path / "copy.db"
    assert as_json("backup", copy) == {**where, "file": str(copy), "index": "50"}
    database.write_bytes(b"damaged")
    kept = {"before": None, "kept": f"{database}.invalid-1"}
    assert as_json("restore", copy) == {**where, "index": "50", **kept}
    there = tmp_path / "there.db"
    assert as_json("copy", f"sqlite:{database}", f"sqlite:{there}")["store"] == str(there)


def test_a_failed_command_prints_no_json(database: Path, as_json: AsJson) -> None:
    assert as_json("show", status=os.EX_NOINPUT) is None
    make(database, 8)
    assert as_json("set-index", 7, status=1) is None
