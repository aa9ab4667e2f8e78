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
from typing import NamedTuple

from fibcore.stores import sqlite_file


class InvalidDatabase(NamedTuple):
    """A way to make a valid database invalid, and a part of the message for it."""

    name: str
    make: Callable[[Path], object]
    complaint: str


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


def change_in_the_wal(path: Path, statement: str) -> None:
    """Change a database and exit, so that the change is only in the WAL."""
    program = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(sys.argv[2])
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", program, path, statement], check=True)
    assert path.with_name(path.name + "-wal").stat().st_size


def _foreign(path: Path) -> None:
    path.unlink()
    change(path, "PRAGMA journal_mode = wal", "CREATE TABLE theirs (a)")


def _foreign_with_a_wal(path: Path) -> None:
    _foreign(path)
    change_in_the_wal(path, "INSERT INTO theirs VALUES (1)")


def _foreign_with_a_journal(path: Path) -> None:
    """A file of another program, which died during a transaction."""
    path.unlink()
    program = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("CREATE TABLE theirs (a)")
connection.execute("INSERT INTO theirs VALUES (zeroblob(100000))")
connection.execute("BEGIN")
connection.execute("UPDATE theirs SET a = zeroblob(100001)")
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", program, path], check=True)
    assert path.with_name(path.name + "-journal").stat().st_size


def _one_row_too_many(path: Path) -> None:
    digest = sqlite_file.index_digest(9).hex()
    change(
        path,
        "PRAGMA ignore_check_constraints = on",
        f"INSERT INTO sequence (id, n, digest) VALUES (2, 9, x'{digest}')",
    )


def _overwrite_the_page_of_the_index(path: Path) -> None:
    data = path.read_bytes()
    begin = _place_of_the_digest(path) // sqlite_file.PAGE_SIZE * sqlite_file.PAGE_SIZE
    path.write_bytes(data[:begin] + b"\xff" * 64 + data[begin + 64 :])


def _cut(path: Path, parts: int) -> None:
    os.truncate(path, path.stat().st_size // parts)


def _flip_a_bit_of_the_index(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[_place_of_the_digest(path) - 1] ^= 4
    path.write_bytes(data)


def _place_of_the_digest(path: Path) -> int:
    """Return the position of the index's digest, right after the index."""
    with closing(sqlite_file.connect(path, "alone")) as connection:
        (digest,) = connection.execute("SELECT digest FROM sequence").fetchone()
    return path.read_bytes().index(digest)


def _replace_by_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _replace_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _replace_by_a_link_to_it(path: Path) -> None:
    path.symlink_to(path.rename(path.with_name("real.db")))


def _replace_by_a_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.db")


INVALID_DATABASES = [
    InvalidDatabase("empty", lambda path: path.write_bytes(b""), "it is empty"),
    InvalidDatabase(
        "text", lambda path: path.write_text("index 5\n" * 999), "file is not a database"
    ),
    InvalidDatabase("zeros", lambda path: path.write_bytes(bytes(8192)), "file is not a database"),
    InvalidDatabase("foreign", _foreign, "another program made it"),
    InvalidDatabase("foreign, with a WAL", _foreign_with_a_wal, "another program made it"),
    InvalidDatabase(
        "foreign, with a journal", _foreign_with_a_journal, "attempt to write a readonly database"
    ),
    InvalidDatabase(
        "no format",
        lambda path: change(path, "PRAGMA user_version = 0"),
        "it was not written completely: it names no format",
    ),
    InvalidDatabase(
        "later format",
        lambda path: change(path, "PRAGMA user_version = 2"),
        "its format is 2, and this program knows 1 alone",
    ),
    InvalidDatabase(
        "later format, in the WAL",
        lambda path: change_in_the_wal(path, "PRAGMA user_version = 2"),
        "its format is 2, and this program knows 1 alone",
    ),
    InvalidDatabase(
        "no row",
        lambda path: change(path, "DELETE FROM sequence"),
        "it holds 0 rows instead of one",
    ),
    InvalidDatabase("two rows", _one_row_too_many, "it holds 2 rows instead of one"),
    InvalidDatabase("no table", lambda path: change(path, "DROP TABLE sequence"), "no such table"),
    InvalidDatabase(
        "index changed",
        lambda path: change(path, "UPDATE sequence SET n = 6"),
        "its index does not match the digest",
    ),
    InvalidDatabase(
        "index changed, in the WAL",
        lambda path: change_in_the_wal(path, "UPDATE sequence SET n = 6"),
        "its index does not match the digest",
    ),
    InvalidDatabase("bit flipped", _flip_a_bit_of_the_index, "its index does not match the digest"),
    InvalidDatabase(
        "digest of another index",
        lambda path: change(
            path, f"UPDATE sequence SET digest = x'{sqlite_file.index_digest(6).hex()}'"
        ),
        "its index does not match the digest",
    ),
    InvalidDatabase("page overwritten", _overwrite_the_page_of_the_index, "it is corrupt ("),
    InvalidDatabase("truncated", lambda path: _cut(path, 2), "malformed"),
    InvalidDatabase("cut short", lambda path: _cut(path, 3), "malformed"),
    InvalidDatabase("pipe", _replace_by_a_pipe, "it is not a file"),
    InvalidDatabase("folder", _replace_by_a_folder, "it is not a file"),
    InvalidDatabase("link", _replace_by_a_link_to_it, "it is a link to /"),
    InvalidDatabase("dangling link", _replace_by_a_dangling_link, "it is a link to /"),
]
