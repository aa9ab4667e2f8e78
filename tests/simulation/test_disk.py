"""The simulated disk, and SQLite on it: what survives a kill, a failed sync and a power cut."""

import gc
import logging
import os
import random
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from fibcore.stores import sqlite_file
from fibcore.stores.sqlite import SqliteStore
from tests.simulation.disk import PAGE, Disk, Inode
from tests.simulation.install import installed
from tests.simulation.sqlite_wal import committed_index
from tests.simulation.system import FOLDER, MachineProcess, SimulatedPath
from tests.simulation.world import World

DATABASE = SimulatedPath(f"{FOLDER}/fibcore.db")
WORLDS: list[World] = []


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable()
    gc.disable()
    yield
    for world in WORLDS:
        world.close()
    WORLDS.clear()
    gc.enable()
    gc.collect()
    logging.disable(logging.NOTSET)


# The disk.


def disk_of_a_machine() -> Disk:
    WORLDS.append(World(1))
    return Disk(WORLDS[-1], "machine")


def on(disk: Disk, work: Callable[[], object], boot: int = 1) -> object:
    """Call ``work`` in a process of the machine; return its result."""
    process = MachineProcess(disk, "program", boot, 2)
    results: list[object] = []
    process.spawn(lambda: results.append(work()))
    with installed():
        disk.world.run(disk.world.now + 60)
    assert disk.world.violation is None
    process.kill()
    return results[0] if results else None


def written(disk: Disk, *, synced: bool) -> Callable[[], None]:
    def work() -> None:
        file = disk.open("file", os.O_CREAT)
        disk.write(file, b"older", 0)
        disk.sync(file)
        disk.write(file, b"newer", 0)
        if synced:
            disk.sync(file)

    return work


def test_synced_data_survives_a_power_cut() -> None:
    disk = disk_of_a_machine()
    on(disk, written(disk, synced=True))
    disk.cut_power()
    assert disk.snapshot() == {"file": b"newer"}


def test_unsynced_data_may_be_lost_in_a_power_cut() -> None:
    found = set()
    for _ in range(20):
        disk = disk_of_a_machine()
        disk.world.random = random.Random(len(WORLDS))
        on(disk, written(disk, synced=False))
        disk.cut_power()
        found.add(disk.snapshot()["file"])
    assert found == {b"older", b"newer"}


def test_a_truncated_database_is_at_index_0() -> None:
    assert [committed_index(file_of(size), None) for size in (0, PAGE)] == [0, 0]


def file_of(size: int) -> Inode:
    inode = Inode(1)
    inode.write(bytes(size), 0)
    return inode


def test_a_sync_after_a_failed_sync_may_write_nothing() -> None:
    found = set()
    for seed in range(9):
        disk = disk_of_a_machine()
        disk.world.random = random.Random(seed)
        errors: list[OSError] = []

        def work(disk: Disk = disk, errors: list[OSError] = errors) -> None:
            file = disk.open("file", os.O_CREAT)
            disk.write(file, b"older", 0)
            disk.sync(file)
            disk.write(file, b"newer", 0)
            disk.failing_next_syncs = 1
            try:
                disk.sync(file)
            except OSError as error:
                errors.append(error)
            disk.sync(file)

        on(disk, work)
        assert errors
        assert disk.snapshot() == {"file": b"newer"}
        disk.cut_power()
        found.add(disk.snapshot()["file"])
    assert found == {b"older", b"newer"}


# SQLite.


def stepped(database: Path) -> list[object]:
    """Step a store; return what it and a concurrent reader see."""
    seen: list[object] = []
    with closing(SqliteStore(database)) as store:
        for index in (1, 2, 3, 7):
            store.commit(index)
            seen.append(sqlite_file.verify_file(database))
        with closing(sqlite_file.connect(database)) as reader:
            reader.execute("BEGIN")
            seen.append(sqlite_file.verify(reader, database))
            seen.append(store.advance(2, 7))
            seen.append(sqlite_file.verify(reader, database))
            reader.execute("COMMIT")
            seen.append(sqlite_file.verify(reader, database))
    with closing(SqliteStore(database)) as store:
        seen.append(store.read())
    return seen


def test_the_simulated_sqlite_behaves_like_sqlite(tmp_path: Path) -> None:
    disk = disk_of_a_machine()
    simulated = on(disk, lambda: stepped(cast("Path", DATABASE)))
    assert simulated == stepped(tmp_path / "fibcore.db") == [1, 2, 3, 7, 7, 9, 7, 9, 9]


def test_commits_of_a_killed_process_are_read() -> None:
    disk = disk_of_a_machine()

    def work() -> None:
        store = SqliteStore(cast("Path", DATABASE))
        store.commit(5)
        store._connection.execute("BEGIN IMMEDIATE")

    on(disk, work)
    assert on(disk, lambda: SqliteStore(cast("Path", DATABASE)).read()) == 5
    disk.cut_power()
    assert on(disk, lambda: SqliteStore(cast("Path", DATABASE)).read(), boot=2) == 5
