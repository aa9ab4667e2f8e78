"""One file of a database is damaged, lost, or replaced, in any way that Hypothesis finds.

A server was killed at index 8, with its steps in the WAL and a backup copy at index 3. Then one
file is damaged. The next process finds index 8, or an invalid database that it does not change:
never a lower index, and never silently 0.
"""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal, NamedTuple

import pytest
from hypothesis import Phase, example, find, given, settings
from hypothesis import strategies as st

from fibcore.problems import DatabaseInvalidError
from fibcore.stores import sqlite_file
from fibcore.stores.sqlite import SqliteStore
from tests.faults.conftest import SECONDS
from tests.support.invalid_databases import contents

COMMITTED: Final = 8
BACKED_UP: Final = 3

EXAMPLES: Final = max(25, round(2 * SECONDS))

ANY: Final = settings(max_examples=2_000, phases=[Phase.generate], database=None)
"""For a search in which any finding will do: simplifying it would take as long again."""


class Files(dict[str, bytes]):
    """The contents of a database's folder: the bytes of each file, by name."""

    def __repr__(self) -> str:
        return repr({name: f"{len(data)} bytes" for name, data in self.items()})


DATABASE, LOG, SHARED, MARK, COPY = (
    f"fibcore.db{suffix}" for suffix in ("", "-wal", "-shm", ".mark", ".backup")
)

ALL: Final = (DATABASE, LOG, SHARED, MARK, COPY)

ANOTHER_PROGRAM_S: Final = (
    sqlite3.connect(":memory:").execute("CREATE TABLE theirs (a)").connection.serialize()
)
"""Another valid database."""

SERVER: Final = """
import os, signal, sys
from contextlib import closing
from pathlib import Path
from fibcore.stores import files, sqlite_file
from fibcore.stores.sqlite import SqliteStore

database, committed, backup_copy = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
store = SqliteStore(database)
for index in range(1, committed + 1):
    store.commit(index)
    if index == backup_copy:
        with closing(sqlite_file.connect(database, mode="ro")) as reader:
            sqlite_file.copy(reader, database, files.backup_copy_path(database))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def left() -> Files:
    """The files that the server left."""
    with TemporaryDirectory() as folder:
        database = Path(folder, DATABASE)
        subprocess.run(
            [sys.executable, "-c", SERVER, database, str(COMMITTED), str(BACKED_UP)], check=False
        )
        return Files({path.name: path.read_bytes() for path in database.parent.iterdir()})


def index_found(files: Files) -> int | None:
    """The index at which a server would continue, or None if it finds the database invalid."""
    with TemporaryDirectory() as folder:
        for name, data in files.items():
            Path(folder, name).write_bytes(data)
        before = contents(Path(folder))
        try:
            with closing(SqliteStore(Path(folder, DATABASE))) as store:
                return store.read()
        except DatabaseInvalidError:
            assert contents(Path(folder)) == before
            return None


class Mishap(NamedTuple):
    """Damage to a file."""

    file: str
    what: Literal["flip", "cut", "blank", "overwrite", "append", "lose", "replace", "swap"]
    at: int = 0
    data: bytes = b""
    other: str = ""
    bit: int = 0

    def befall(self, files: Files) -> Files:
        """Return the files after it; the position is taken modulo the size of the file."""
        data = bytearray(files[self.file])
        at = self.at % max(1, len(data))
        match self.what:
            case "flip":
                data[at] ^= 1 << self.bit
            case "cut":
                del data[at:]
            case "blank":
                data[at : at + 512] = bytes(len(data[at : at + 512]))
            case "overwrite":
                data[at : at + len(self.data)] = self.data[: len(data) - at]
            case "append":
                data += self.data
            case "replace":
                data[:] = self.data
            case "swap":
                data[:] = files.get(self.other, b"")
            case "lose":
                return Files({name: kept for name, kept in files.items() if name != self.file})
        return Files(files | {self.file: bytes(data)})


BITS: Final = st.integers(0, 7)


def mishaps(*names: str) -> st.SearchStrategy[Mishap]:
    """Damage to one of the named files, mostly to used parts."""
    file = st.sampled_from(names)
    at = st.integers(0, 4500) | st.integers(0, 300_000)
    scrap = st.sampled_from([b"", ANOTHER_PROGRAM_S]) | st.binary(max_size=600)
    return st.one_of(
        st.builds(Mishap, file, st.just("flip"), at, bit=BITS),
        st.builds(Mishap, file, st.sampled_from(["cut", "blank", "lose"]), at),
        st.builds(Mishap, file, st.sampled_from(["overwrite", "append", "replace"]), at, scrap),
        st.builds(Mishap, file, st.just("swap"), other=st.sampled_from(ALL)),
    )


@pytest.mark.processes
@settings(max_examples=EXAMPLES)
@example(mishap=Mishap(DATABASE, "cut", 0))
@example(mishap=Mishap(DATABASE, "cut", 1))
@given(mishap=mishaps(*ALL))
def test_a_damaged_file_gives_the_index_or_an_invalid_database(left: Files, mishap: Mishap) -> None:
    assert index_found(mishap.befall(left)) in (COMMITTED, None)


@pytest.mark.processes
def test_undamaged_files_of_a_server_are_valid(left: Files) -> None:
    assert left.keys() == set(ALL)
    assert index_found(left) == COMMITTED


@pytest.mark.processes
def test_without_evidence_a_damaged_wal_would_lower_the_index(left: Files) -> None:
    alone = Files({name: data for name, data in left.items() if name not in (MARK, COPY)})

    def is_lower(mishap: Mishap) -> bool:
        index = index_found(mishap.befall(alone))
        return index is not None and index < COMMITTED

    found = find(mishaps(LOG), is_lower, settings=ANY)
    assert index_found(found.befall(left)) is None, "with its evidence it is invalid"


def test_without_its_digest_a_flipped_bit_would_change_the_index(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with TemporaryDirectory() as folder:
        database = Path(folder, DATABASE)
        sqlite_file.create(database, COMMITTED)
        alone = Files({DATABASE: database.read_bytes()})

    def read_index(connection: sqlite3.Connection, path: Path) -> int:  # noqa: ARG001
        ((index,),) = connection.execute("SELECT n FROM sequence").fetchall()
        assert isinstance(index, int)
        return index

    def is_another(mishap: Mishap) -> bool:
        return index_found(mishap.befall(alone)) not in (COMMITTED, None)

    with monkeypatch.context() as patched:
        patched.setattr(sqlite_file, "read_index", read_index)
        # The row is at the end of the second page, and ends with the data of keys.
        end = 2 * sqlite_file.PAGE_SIZE
        at = st.integers(end - 17, end - 6)
        flips = st.builds(Mishap, st.just(DATABASE), st.just("flip"), at, bit=BITS)
        found = find(flips, is_another, settings=ANY)
    assert index_found(found.befall(alone)) is None, "with its digest it is invalid"
