"""``fibcore show`` and ``verify``."""

import json
import os
import signal
from pathlib import Path

import pytest

from fibcore import MAX_INDEX
from tests.command.conftest import Fibcore, rows
from tests.support.invalid_databases import contents
from tests.support.reference import digits_of
from tests.support.servers import ServerProcess


def put(fibcore: Fibcore, index: int) -> None:
    """Set the sequence to ``index``."""
    assert fibcore("set-index", "--lower", "--integers", "uint64", index)[0] == 0


def keep_a_backup_copy(fibcore: Fibcore, database: Path) -> Path:
    """Put a copy where the backup program keeps its own."""
    assert fibcore("backup", "copy.db")[0] == 0
    return Path("copy.db").rename(f"{database}.backup")


def test_show_prints_the_index_and_its_number(database: Path, fibcore: Fibcore) -> None:
    put(fibcore, 25_000)
    status, output, problem = fibcore("show")
    assert (status, problem) == (0, "")
    assert rows(output) == {
        "database": str(database),
        "index": "25000",
        "number": "21954383555173030127...77036587231777596875 (5225 digits)",
        "served by": "no process",
        "durability": "synchronous=full when last written: no acknowledged step is lost, even "
        "in a power cut",
        "backup copy": "none",
    }
    assert json.loads(fibcore("show", "--json")[1]) == {
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


@pytest.mark.usefixtures("database")
def test_show_digits_prints_only_the_number(fibcore: Fibcore) -> None:
    for index, shown in ((0, "0 (1 digit)"), (93, "12200160415121876738 (20 digits)")):
        put(fibcore, index)
        assert rows(fibcore("show")[1])["number"] == shown
        assert fibcore("show", "--digits") == (0, digits_of(index).decode() + "\n", "")
    put(fibcore, 30_000)
    assert fibcore("show", "--digits") == (0, digits_of(30_000).decode() + "\n", "")


@pytest.mark.usefixtures("database")
def test_the_kind_of_integer_is_that_of_the_settings_or_the_command_line(
    fibcore: Fibcore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(fibcore, 94)
    exact, modular = f"{digits_of(94).decode()}\n", f"{int(digits_of(94)) % 2**64}\n"
    assert fibcore("show", "--digits", "--integers", "uint64")[1] == modular
    monkeypatch.setenv("FIB_INTEGERS", "uint64")
    assert fibcore("show", "--digits")[1] == modular
    assert fibcore("show", "--digits", "--integers", "exact")[1] == exact


@pytest.mark.usefixtures("database")
def test_a_number_larger_than_memory_is_not_printed(fibcore: Fibcore) -> None:
    put(fibcore, MAX_INDEX)
    status, output, problem = fibcore("show", "--digits")
    assert (status, output) == (1, "")
    assert "is past 1000000000, the largest index with integers exact" in problem
    assert fibcore("show", "--digits", "--integers", "uint64")[0] == 0


def test_verify_checks_database_high_water_mark_and_backup_copy(
    database: Path, fibcore: Fibcore
) -> None:
    put(fibcore, 7)
    copy = keep_a_backup_copy(fibcore, database)
    put(fibcore, 8)
    status, output, problem = fibcore("verify")
    assert (status, problem) == (0, "")
    assert output.splitlines() == [
        "high-water mark  index 8, recorded with synchronous=full: usable as evidence",
        "backup copy      good, at index 7",
        "database         good, at index 8",
    ]
    assert rows(fibcore("show")[1])["backup copy"] == "good, at index 7"

    copy.write_bytes(b"damaged")
    status, output, problem = fibcore("verify")
    assert status == os.EX_DATAERR
    assert rows(output)["backup copy"] == "damaged"
    assert rows(output)["database"] == "good, at index 8"
    assert f"{copy.name} is damaged: file is not a database" in problem
    assert json.loads(fibcore("verify", "--json")[1]) == {
        "store": str(database),
        "sequence": None,
        "good": True,
        "index": "8",
        "problem": None,
        "high_water_mark": {"index": "8", "synchronous": "full", "counts": True},
        "backup_copy": {"good": False, "index": None},
    }

    copy.unlink()
    Path(f"{database}.mark").unlink()
    status, output, problem = fibcore("verify")
    assert (status, problem) == (0, "")
    assert rows(output)["high-water mark"] == "none, or damaged"
    assert rows(output)["backup copy"] == "none"


def test_a_truncated_database_is_reported_with_the_remedy_that_loses_nothing(
    database: Path, fibcore: Fibcore
) -> None:
    put(fibcore, 1000)
    keep_a_backup_copy(fibcore, database)
    put(fibcore, 1009)
    os.truncate(database, database.stat().st_size // 2)
    before = contents(database.parent)
    for asked in ("show", "verify"):
        status, _, problem = fibcore(asked)
        assert status == os.EX_DATAERR
        assert f"{database} is invalid: " in problem
        assert "It has not been changed, and nothing is served from it." in problem
        assert problem.endswith(f"fibcore set-index 1009 --database {database}.\n")
        assert "with no step lost: " in problem
        assert "restore" not in problem
    facts = json.loads(fibcore("verify", "--json")[1])
    assert (facts["good"], facts["index"]) == (False, None)
    assert facts["problem"] in problem
    assert contents(database.parent) == before
    assert fibcore("set-index", 1009)[0] == 0
    assert "good, at index 1009" in fibcore("verify")[1]


@pytest.mark.processes
def test_verify_rejects_a_database_without_its_wal_as_a_server_would(
    server: ServerProcess, database: Path, fibcore: Fibcore
) -> None:
    for _ in range(5):
        server.client.get("/next")
    server.signal(signal.SIGKILL)
    server.wait()
    Path(f"{database}-wal").unlink()
    before = contents(database.parent)
    status, output, problem = fibcore("verify")
    assert (status, rows(output)["database"]) == (os.EX_DATAERR, "invalid")
    assert "index 5 was committed" in problem
    assert "To resume at its last index, with no step lost: " in problem
    assert contents(database.parent) == before
    with ServerProcess(database) as again:
        assert again.wait() == os.EX_DATAERR
    assert fibcore("set-index", 5)[0] == 0
    assert fibcore("verify")[0] == 0


def test_a_missing_database_is_not_reported_as_damaged(database: Path, fibcore: Fibcore) -> None:
    status, output, problem = fibcore("show", "--json")
    assert (status, output) == (os.EX_NOINPUT, "")
    assert problem.startswith(f"fibcore: There is no database {database}. Nothing has been created")
    assert "restore" not in problem
    assert not database.exists()
