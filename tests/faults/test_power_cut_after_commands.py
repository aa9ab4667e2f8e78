"""The power is cut right after a command or a start: its effect survives.

Each program runs on its own file system, which is shut down, as by a power cut, and mounted again.
The controls run the same programs without one of their syncs.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from fibcore.problems import DatabaseInvalidError
from fibcore.stores import files, sqlite_file
from fibcore.stores.sqlite import wal_reserve
from fibcore.stores.sqlite_opener import verified_index
from tests.faults.disks import Volume, volume

pytestmark = [pytest.mark.long, pytest.mark.processes]

PRELUDE: Final = """
import os, signal, sqlite3, sys
from pathlib import Path
from fibcore.stores.sqlite_opener import SqliteOpener
from fibcore.stores import high_water_mark, sqlite_file
from fibcore.stores.high_water_mark import HighWaterMark
from fibcore.stores.sqlite import SqliteStore

database = Path(sys.argv[1])
"""

SERVED: Final = """
store = SqliteStore(database)
store.commit(50)
store.close()
"""
"""The database was served, so its high-water mark is of this boot, and everything is on disk."""

SYNCS_NO_HIGH_WATER_MARK: Final = """
import os
from types import SimpleNamespace
from fibcore.stores import high_water_mark
high_water_mark.os = SimpleNamespace(**{**vars(os), "fsync": lambda _: None})
"""

SYNCS_NO_FILE: Final = "sqlite_file.sync = lambda _: None\n"

SYNCS_NO_COMMIT: Final = """
class Unsynced(sqlite3.Connection):
    def execute(self, statement, *arguments):
        statement = statement.replace("synchronous = full", "synchronous = off")
        return super().execute(statement, *arguments)

connect = sqlite3.connect
sqlite3.connect = lambda *arguments, **named: connect(*arguments, factory=Unsynced, **named)
os.fsync = lambda _: None
"""

KILLED: Final = "os.kill(os.getpid(), signal.SIGKILL)\n"


def run_and_cut(disk: Volume, before: str, program: str) -> Path:
    """Run one program, sync the disk, run the other, and cut the power.

    Returns:
        The database that is on the disk now.
    """
    database = disk.path / "fibcore.db"
    for each in (before, program):
        ended = subprocess.run([sys.executable, "-c", PRELUDE + each, database], check=False)
        assert ended.returncode <= 0, "it has failed"
        if each is before:
            subprocess.run(["sync", "-f", disk.path], check=True)
    disk.cut_power()
    disk.restore_power()
    return database


# set-index

DAMAGED: Final = SERVED + "database.write_bytes(b'damaged')\n"

LOWERED: Final = "SqliteOpener(database).set_index(40, lower=True)\n"


@pytest.mark.parametrize("before", [SERVED, DAMAGED], ids=["whole", "damaged"])
@pytest.mark.parametrize(
    ("index", "program"),
    [(40, LOWERED), (60, "SqliteOpener(database).set_index(60)\n")],
    ids=["lowered", "raised"],
)
def test_an_index_that_was_set_survives_a_power_cut(before: str, index: int, program: str) -> None:
    with volume() as disk:
        assert verified_index(run_and_cut(disk, before, program)) == index


@pytest.mark.parametrize("before", [SERVED, DAMAGED], ids=["whole", "damaged"])
def test_with_an_unsynced_mark_a_lowered_index_would_be_invalid(before: str) -> None:
    with volume() as disk:
        database = run_and_cut(disk, before, SYNCS_NO_HIGH_WATER_MARK + LOWERED)
        with pytest.raises(DatabaseInvalidError, match=r"is at index 40, but .*mark"):
            verified_index(database)


# Copied

BACKUP: Final = "SqliteOpener(database).backup(database.with_name('copy.db'))\n"


def test_a_finished_backup_survives_a_power_cut() -> None:
    with volume() as disk:
        database = run_and_cut(disk, SERVED, BACKUP)
        assert sqlite_file.verify_file(database.with_name("copy.db")) == 50


def test_without_a_sync_a_backup_would_be_lost() -> None:
    with volume() as disk:
        database = run_and_cut(disk, SERVED, SYNCS_NO_FILE + BACKUP)
        with pytest.raises(DatabaseInvalidError):
            sqlite_file.verify_file(database.with_name("copy.db"))


# Created, and opened

RESERVED: Final = wal_reserve(sqlite_file.PAGE_SIZE)
"""Bytes that are reserved for the WAL from the start."""

OPENED: Final = "store = SqliteStore(database)\n" + KILLED


@pytest.mark.parametrize("before", ["", SERVED], ids=["new", "served before"])
def test_files_created_at_a_start_survive_a_power_cut(before: str) -> None:
    """So is the space of its WAL."""
    with volume() as disk:
        database = run_and_cut(disk, before, OPENED)
        assert verified_index(database) == (50 if before else 0)
        assert files.wal_path(database).stat().st_size == RESERVED


def test_without_a_sync_the_reserved_space_of_the_wal_would_be_lost() -> None:
    with volume() as disk:
        database = run_and_cut(disk, SERVED, SYNCS_NO_COMMIT + OPENED)
        assert not files.wal_path(database).exists()


# Served at another level before

FULL_AFTER_OFF: Final = (
    """
from fibcore.idempotency_key import key_of
store = SqliteStore(database, "off")
for number in range(51, 351):
    store.advance(1, keys={key_of(b'"50:%016d"' % number): 1})
store.close()
store = SqliteStore(database)
store.advance(1)
"""
    + KILLED
)

SYNCS_NO_DATABASE: Final = """
sync = sqlite_file.sync
sqlite_file.sync = lambda path: None if path == database else sync(path)
"""


def test_steps_committed_at_off_survive_once_served_at_full() -> None:
    with volume() as disk:
        assert verified_index(run_and_cut(disk, SERVED, FULL_AFTER_OFF)) == 351


def test_without_a_sync_a_database_written_at_off_would_be_ruined() -> None:
    with volume() as disk:
        database = run_and_cut(disk, SERVED, SYNCS_NO_DATABASE + FULL_AFTER_OFF)
        with pytest.raises(DatabaseInvalidError, match="corrupt"):
            verified_index(database)
