"""``fibcore show`` and ``verify``."""

import os
from pathlib import Path

import pytest

from fibcore import MAX_INDEX
from fibcore.problems import typed
from fibcore.stores import files, sqlite_file
from fibcore.stores.sqlite import SqliteStore
from supervise.backup import BackupCopy
from tests.command.conftest import Fibcore, make, rows
from tests.support.invalid_databases import contents
from tests.support.reference import digits_of
from tests.support.store_processes import serve_and_be_killed

# show


def test_show_prints_the_index_and_its_number(database: Path, fibcore: Fibcore) -> None:
    make(database, 25_000)
    status, output, complaint = fibcore("show")
    assert (status, complaint) == (0, "")
    assert rows(output) == {
        "database": str(database),
        "index": "25000",
        "number": "21954383555173030127...77036587231777596875 (5225 digits)",
        "served by": "no process",
        "durability": "synchronous=full when last written: no acknowledged step is lost, even "
        "in a power cut",
        "backup copy": "none",
    }


@pytest.mark.parametrize(
    ("index", "number"),
    [
        (0, "0 (1 digit)"),
        (10, "55 (2 digits)"),
        (93, "12200160415121876738 (20 digits)"),
        (100, "35422484817926191507...54224848179261915075 (21 digits)"),
    ],
)
def test_show_shows_a_short_number_whole(
    database: Path, fibcore: Fibcore, index: int, number: str
) -> None:
    make(database, index)
    assert rows(fibcore("show")[1])["number"] == number


@pytest.mark.parametrize("index", [0, 1, 93, 94, 30_000])
def test_show_digits_prints_only_the_number(database: Path, fibcore: Fibcore, index: int) -> None:
    make(database, index)
    assert fibcore("show", "--digits") == (0, digits_of(index).decode() + "\n", "")


def test_show_uses_the_configured_kind_of_integer(
    database: Path, fibcore: Fibcore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set in the environment, or on the command line."""
    make(database, 94)
    modular = f"{int(digits_of(94)) % 2**64}\n"
    assert fibcore("show", "--digits", "--integers", "uint64")[1] == modular
    monkeypatch.setenv("FIB_INTEGERS", "uint64")
    assert fibcore("show", "--digits")[1] == modular
    assert fibcore("show", "--digits", "--integers", "exact")[1] == f"{digits_of(94).decode()}\n"


def test_show_does_not_print_a_number_larger_than_memory(database: Path, fibcore: Fibcore) -> None:
    make(database, MAX_INDEX)
    status, output, complaint = fibcore("show", "--digits")
    assert (status, output) == (1, "")
    assert "is past 1000000000, the largest index with integers exact" in complaint
    assert fibcore("show", "--digits", "--integers", "uint64")[0] == 0


def test_show_explains_the_level_of_durability(database: Path, fibcore: Fibcore) -> None:
    sqlite_file.create(database)
    assert rows(fibcore("show")[1])["durability"] == "unknown: there is no valid high-water mark"
    SqliteStore(database, "normal").close()
    durability = rows(fibcore("show")[1])["durability"]
    assert durability == "synchronous=normal when last written: a power cut may lose the last steps"


# verify


def test_verify_checks_database_high_water_mark_and_backup_copy(
    database: Path, fibcore: Fibcore
) -> None:
    make(database, 7)
    BackupCopy(database).refresh()
    make(database, 8)
    status, output, complaint = fibcore("verify")
    assert (status, complaint) == (0, "")
    assert output.splitlines() == [
        "high-water mark  index 8, recorded with synchronous=full: usable as evidence",
        "backup copy      good, at index 7",
        "database         good, at index 8",
    ]


def test_verify_accepts_a_database_without_mark_and_backup_copy(
    database: Path, fibcore: Fibcore
) -> None:
    sqlite_file.create(database, 8)
    status, output, complaint = fibcore("verify")
    assert (status, complaint) == (0, "")
    assert output.splitlines() == [
        "high-water mark  none, or damaged",
        "backup copy      none",
        "database         good, at index 8",
    ]


@pytest.mark.processes
def test_verify_rejects_what_the_server_would_and_names_the_remedy(
    database: Path, fibcore: Fibcore
) -> None:
    serve_and_be_killed(database)
    files.wal_path(database).unlink()
    before = contents(database.parent)
    status, output, complaint = fibcore("verify")
    assert status == os.EX_DATAERR
    assert rows(output)["database"] == "invalid"
    assert "index 5 was committed" in complaint
    way_out = typed(f"fibcore set-index 5 --database {database}")
    assert f"To resume at its last index, with no step lost: {way_out}." in complaint
    assert contents(database.parent) == before
    assert fibcore("set-index", 5)[0] == 0
    assert fibcore("verify")[0] == 0


def test_verify_reports_a_damaged_backup_copy(database: Path, fibcore: Fibcore) -> None:
    make(database, 8)
    files.backup_copy_path(database).write_bytes(b"damaged")
    status, output, complaint = fibcore("verify")
    assert status == os.EX_DATAERR
    assert rows(output)["backup copy"] == "damaged"
    assert rows(output)["database"] == "good, at index 8"
    assert f"{database.name}.backup is damaged: file is not a database" in complaint
