"""Idempotency keys: the rule for keeping them, and the embedded store that keeps them."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fibcore.idempotency_key import Key
from fibcore.problems import KeysUnavailableError
from fibcore.stores import sqlite_file
from fibcore.stores.files import backup_copy_path, high_water_mark_path
from fibcore.stores.high_water_mark import HighWaterMark
from fibcore.stores.keys import KeptKeys, KeyConflictError, check, made_by
from fibcore.stores.sqlite import SqliteStore
from fibcore.stores.sqlite_opener import SqliteOpener
from tests.support.disks import SmallDisk, fill
from tests.support.keys import found, key, step

SMALL = 100
"""The minimum of ``FIB_MAX_KEYS``."""


# The rule


def test_keys_are_dropped_together_when_an_eighth_more_are_kept() -> None:
    kept = KeptKeys(0)
    for index in range(1, 64):
        kept.add(index, {b"%d" % index: index})
    assert kept.surplus(56) is None
    kept.add(64, {b"64": 64})
    assert kept.surplus(56) == 8


@given(
    batches=st.lists(st.lists(st.integers(0, 5), max_size=4), max_size=60),
    keep=st.integers(1, 20),
    asked=st.integers(0, 1_000),
)
def test_a_used_key_never_counts_as_new(batches: list[list[int]], keep: int, asked: int) -> None:
    """Each batch is the ages of the keys of its steps."""
    kept, index = KeptKeys(0), 0
    made: dict[Key, int] = {}
    for batch in batches:
        keys = {
            key(len(made) + place, max(0, index - age)): place for place, age in enumerate(batch, 1)
        }
        before = len(kept)
        # A key whose outcome is unknown is rejected, and not retried.
        keys = {each: place for each, place in keys.items() if each.since >= kept.dropped}
        if list(keys.values()) != list(range(1, len(keys) + 1)):
            continue
        check(keys, kept.made, index, kept.dropped)
        surplus = kept.surplus(keep)
        if surplus is not None:
            kept.drop(surplus)
            assert len(kept) >= min(keep, before)
        kept.add(index + len(keys), made_by(keys, index))
        made.update({each: index + place for each, place in keys.items()})
        index += len(keys)
        assert len(kept) <= keep + keep // 8 + 2 * 4
    for each, place in made.items():
        with pytest.raises(KeyConflictError) as conflict:
            check([each], kept.made, index, kept.dropped)
        assert conflict.value.found[each] in (place, None)
    # The control: the index in a key distinguishes old ones from new ones.
    forgotten = [each for each in made if each.digest not in kept.made]
    for each in forgotten[: asked or 1]:
        renewed: Any = SimpleNamespace(since=index, digest=each.digest)
        check([renewed], kept.made, index, kept.dropped)


# The embedded store


def test_a_key_is_committed_with_its_step(database: Path) -> None:
    with closing(SqliteStore(database)) as store:
        assert store.kept_keys is None
        assert store.advance(3, keys={key(1): 1, key(2): 3}) == 3
        assert found(store, key(2), key(3)) == {key(2): 3}
        assert store.read() == 3
        assert store.advance(0, keys={key(3): 0}) == 3
        assert store.kept_keys == 2
    with closing(SqliteStore(database)) as store:
        assert found(store, key(1), key(2)) == {key(1): 1, key(2): 3}
        assert step(store, key(3)) == 4


def test_a_key_kept_only_in_memory_would_step_again(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit_keys(store: SqliteStore, index: int, made: Mapping[bytes, int]) -> None:
        assert store._keys is not None
        store._move(index)
        store._keys.add(index, made)

    monkeypatch.setattr(SqliteStore, "_commit_keys", commit_keys)
    with closing(SqliteStore(database)) as store:
        assert step(store, key(1)) == 1
        assert found(store, key(1)) == {key(1): 1}
    with closing(SqliteStore(database)) as store:
        assert step(store, key(1)) == 2


def test_keys_ahead_of_the_sequence_are_not_new(database: Path) -> None:
    with closing(SqliteStore(database)) as store:
        store.advance(5)
        assert found(store, key(1, since=6)) == {key(1, since=6): None}
        assert step(store, key(1, since=5)) == 6


def test_the_last_keys_are_kept_and_older_ones_are_rejected(database: Path) -> None:
    with closing(SqliteStore(database, max_keys=SMALL)) as store:
        for number in range(3 * SMALL):
            assert step(store, key(number, since=number)) == number + 1
        assert store.kept_keys is not None
        assert SMALL <= store.kept_keys <= SMALL * 9 // 8 + 1
        size = database.stat().st_size
        for number in range(3 * SMALL, 9 * SMALL):
            step(store, key(number, since=number))
    with closing(SqliteStore(database, max_keys=SMALL)) as store:
        last = 9 * SMALL
        for number in range(last):
            each = key(number, since=number)
            assert found(store, each) in ({each: number + 1}, {each: None})
            if number >= last - SMALL:
                assert found(store, each) == {each: number + 1}
        assert found(store, key(0, since=0)) == {key(0, since=0): None}
        assert store.read() == last
    assert database.stat().st_size == size


def test_without_dropped_a_key_past_the_window_would_step_again(database: Path) -> None:
    with closing(SqliteStore(database, max_keys=SMALL)) as store:
        for number in range(3 * SMALL):
            step(store, key(number, since=number))
        store._dropped = 0
        assert step(store, key(0, since=0)) == 3 * SMALL + 1


def test_a_copy_has_the_keys_of_its_steps_without_reserved_space(database: Path) -> None:
    copy = backup_copy_path(database)
    with closing(SqliteStore(database)) as store:
        step(store, key(1), key(2))
        with closing(sqlite_file.connect(database, mode="ro")) as connection:
            assert sqlite_file.copy(connection, database, copy) == 2
        size = database.stat().st_size
        step(store, key(3))
    assert 100 * copy.stat().st_size < size
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
    # A restore:
    for each in (database, high_water_mark_path(database)):
        each.unlink()
    copy.rename(database)
    with closing(SqliteStore(database)) as store:
        assert found(store, key(1), key(2)) == {key(1): 1, key(2): 2}
        assert step(store, key(4)) == 3
        assert database.stat().st_size == size


@pytest.mark.parametrize("index", [7, 3, 1])
def test_setting_the_index_drops_all_keys(database: Path, index: int) -> None:
    with closing(SqliteStore(database)) as store:
        step(store, key(1), key(2))
    SqliteOpener(database).set_index(index, lower=True)
    with closing(SqliteStore(database)) as store:
        assert found(store, key(1), key(2)) == {key(1): None, key(2): None}
        assert step(store, key(3, since=index)) == index + 1


def test_setting_the_same_index_drops_no_key(database: Path) -> None:
    with closing(SqliteStore(database)) as store:
        step(store, key(1), key(2))
    SqliteOpener(database).set_index(2)
    with closing(SqliteStore(database)) as store:
        assert found(store, key(1), key(2)) == {key(1): 1, key(2): 2}
        assert step(store, key(3)) == 3


def test_continuing_from_the_backup_copy_drops_the_keys_between(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut under ``normal``: the database has lost steps, and the copy has not."""
    with closing(SqliteStore(database, "normal")) as store:
        step(store, key(1))
        lost = database.read_bytes(), database.with_name(f"{database.name}-wal").read_bytes()
        step(store, key(2, since=1), key(3, since=1))
        with closing(sqlite_file.connect(database, mode="ro")) as connection:
            sqlite_file.copy(connection, database, backup_copy_path(database))
    database.write_bytes(lost[0])
    database.with_name(f"{database.name}-wal").write_bytes(lost[1])
    monkeypatch.setattr("fibcore.stores.high_water_mark._boot", lambda: "another")
    with closing(SqliteStore(database, "normal")) as store:
        assert store.read() == 3
        assert found(store, key(1), key(2, since=1)) == {key(1): 1, key(2, since=1): None}
        assert step(store, key(4, since=3)) == 4


OLD_SCHEMA = """
CREATE TABLE sequence (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    n INTEGER NOT NULL CHECK (n >= 0),
    digest BLOB NOT NULL
) STRICT
"""


def step_as_before(database: Path, index: int) -> None:
    """As a version without keys does."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute(
            "UPDATE sequence SET n = ?, digest = ?", (index, sqlite_file.index_digest(index))
        )
    HighWaterMark(database, "full", index, lower=True).close()


def test_a_database_of_a_version_without_keys_gets_space_for_them(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sqlite_file, "SCHEMA", OLD_SCHEMA)
        patched.setattr(sqlite_file, "KEYS_SCHEMA", ())
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA application_id = {sqlite_file.APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {sqlite_file.FORMAT}")
            connection.execute(OLD_SCHEMA)
            row = (9, sqlite_file.index_digest(9))
            connection.execute("INSERT INTO sequence VALUES (1, ?, ?)", row)
    with closing(SqliteStore(database)) as store:
        assert store.read() == 9
        assert found(store, key(1, since=8)) == {key(1, since=8): None}
        assert step(store, key(1, since=9)) == 10
    with closing(SqliteStore(database)) as store:
        assert found(store, key(1, since=9)) == {key(1, since=9): 10}


@pytest.mark.parametrize("index", [5, 1])
def test_steps_of_a_version_without_keys_are_noticed(database: Path, index: int) -> None:
    """It does not know any keys, so no earlier one may count as new. It may lower the index."""
    with closing(SqliteStore(database)) as store:
        step(store, key(1), key(2))
    step_as_before(database, index)
    with closing(SqliteStore(database)) as store:
        assert found(store, key(1), key(3)) == {key(1): None, key(3): None}
        assert step(store, key(3, since=index), key(4, since=index)) == index + 2


def test_a_damaged_row_drops_the_keys_before(database: Path) -> None:
    with closing(SqliteStore(database)) as store:
        step(store, key(1))
        step(store, key(2, since=1))
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("UPDATE keys SET made = zeroblob(length(made)) WHERE n = 1")
    with closing(SqliteStore(database)) as store:
        assert found(store, key(1), key(2, since=1)) == {key(1): None, key(2, since=1): 2}
        assert step(store, key(3, since=2)) == 3


@pytest.mark.root
def test_on_a_full_disk_steps_continue_with_and_without_keys(
    small_disk: SmallDisk, tmp_path: Path
) -> None:
    with (
        small_disk(tmp_path / "disk", megabytes=2) as disk,
        closing(SqliteStore(disk / "fibcore.db", max_keys=SMALL)) as store,
    ):
        step(store, key(0))
        fill(disk)
        for number in range(1, 10 * SMALL):
            step(store, key(number, since=number))
        store.advance(600)


@pytest.mark.root
def test_without_space_for_keys_steps_without_one_continue(
    small_disk: SmallDisk, tmp_path: Path
) -> None:
    with (
        small_disk(tmp_path / "disk", megabytes=2) as disk,
        closing(SqliteStore(disk / "fibcore.db")) as store,
    ):
        store.advance(1)
        filler = fill(disk)
        with pytest.raises(KeysUnavailableError, match="No space left"):
            step(store, key(1))
        for _ in range(600):
            store.advance(1)
        filler.unlink()
        assert step(store, key(1)) == 602
