"""Ways to make a database invalid, and a check that rejecting it changed no file."""

import hashlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from stat import filemode
from typing import Final


def contents(folder: Path) -> dict[str, str]:
    """Return a hash of each file in ``folder``.

    Without SQLite's shared memory, an index of the WAL that is rebuilt at each opening, and without
    an empty WAL, which is equivalent to none.
    """
    found = {}
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            found[path.name] = f"-> {path.readlink()}"
        elif not path.is_file():
            found[path.name] = filemode(path.stat().st_mode)
        elif not path.name.endswith("-shm"):
            data = path.read_bytes()
            if data or not path.name.endswith("-wal"):
                found[path.name] = hashlib.sha256(data).hexdigest()
    return found


def change(path: Path, *statements: str) -> None:
    """Change a database directly."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def left_by_a_dead_program(path: Path, *statements: str) -> None:
    """Change a database, and die without closing it: the change is only in the files beside it."""
    program = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    connection.execute(statement)
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", program, path, *statements], check=True)


def _foreign(path: Path) -> None:
    path.unlink()
    change(path, "PRAGMA journal_mode = wal", "CREATE TABLE theirs (a)")


def _foreign_with_a_wal(path: Path) -> None:
    _foreign(path)
    left_by_a_dead_program(path, "INSERT INTO theirs VALUES (1)")


def _foreign_with_a_journal(path: Path) -> None:
    path.unlink()
    left_by_a_dead_program(
        path,
        "PRAGMA cache_size = 1",
        "CREATE TABLE theirs (a)",
        "INSERT INTO theirs VALUES (zeroblob(100000))",
        "BEGIN",
        "UPDATE theirs SET a = zeroblob(100001)",
    )


def _flip_a_bit_of_the_digest(path: Path) -> None:
    """Of the digest of the index, which is found in the file by its bytes."""
    with closing(sqlite3.connect(path)) as connection:
        (digest,) = connection.execute("SELECT digest FROM sequence").fetchone()
    data = bytearray(path.read_bytes())
    data[data.index(digest)] ^= 4
    path.write_bytes(data)


def _replace_by_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _replace_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _replace_by_a_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.db")


Ruin = Callable[[Path], object]

DAMAGED: Final[dict[str, Ruin]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("index 5\n" * 999),
    "zeros": lambda path: path.write_bytes(bytes(8192)),
    "no format": lambda path: change(path, "PRAGMA user_version = 0"),
    "no row": lambda path: change(path, "DELETE FROM sequence"),
    "no table": lambda path: change(path, "DROP TABLE sequence"),
    "index changed": lambda path: change(path, "UPDATE sequence SET n = n + 1"),
    "index changed, in the WAL": lambda path: left_by_a_dead_program(
        path, "UPDATE sequence SET n = n + 1"
    ),
    "digest changed": lambda path: change(path, "UPDATE sequence SET digest = zeroblob(16)"),
    "bit flipped": _flip_a_bit_of_the_digest,
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "cut short": lambda path: os.truncate(path, path.stat().st_size // 3),
}

FOREIGN: Final[dict[str, Ruin]] = {
    "foreign": _foreign,
    "foreign, with a WAL": _foreign_with_a_wal,
    "later format": lambda path: change(path, "PRAGMA user_version = 99"),
    "later format, in the WAL": lambda path: left_by_a_dead_program(
        path, "PRAGMA user_version = 99"
    ),
    "pipe": _replace_by_a_pipe,
    "folder": _replace_by_a_folder,
    "link": lambda path: path.symlink_to(path.rename(path.with_name("real.db"))),
    "dangling link": _replace_by_a_dangling_link,
}
"""What is not this program's to replace."""

INVALID_DATABASES: Final = DAMAGED | FOREIGN | {"foreign, with a journal": _foreign_with_a_journal}
"""Each makes a valid database invalid."""
