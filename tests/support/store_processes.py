"""Processes that commit to a database and are killed; the files that they leave."""

import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from fibcore.stores import files, sqlite_file
from fibcore.stores.sqlite import SqliteStore, Synchronous

COMMITTED = 5


def run(program: str, *arguments: Path | str) -> int:
    """Run Python code after some imports, with ``database`` set; return its exit status."""
    head = """
import os, signal, sys
from pathlib import Path
from fibcore.stores import files, high_water_mark, sqlite_file
from fibcore.stores.sqlite import SqliteStore
database = Path(sys.argv[1])
"""
    return subprocess.run(
        [sys.executable, "-c", head + program, *arguments], check=False
    ).returncode


def serve_and_be_killed(database: Path, level: Synchronous = "full") -> None:
    """Commit every index up to COMMITTED in a process that is then killed."""
    program = """
store = SqliteStore(database, sys.argv[2])
for index in range(store.read() + 1, int(sys.argv[3]) + 1):
    store.commit(index)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run(program, database, level, str(COMMITTED)) == -signal.SIGKILL
    assert files.wal_path(database).stat().st_size > 0


def index_of(database: Path) -> int:
    """Return the index that a server would serve from."""
    with closing(SqliteStore(database)) as store:
        return store.read()


def without_high_water_mark(database: Path) -> Path:
    """Copy the database with its WAL, but without its high-water mark."""
    folder = database.parent / "without-high-water-mark"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in (database, files.wal_path(database)):
        if path.exists():
            shutil.copyfile(path, folder / path.name)
    return folder / database.name


def copy(database: Path, target: Path) -> None:
    with closing(sqlite_file.connect(database, mode="ro")) as connection:
        sqlite_file.copy(connection, database, target)
