"""Opening the configured store: standing by for its lock, and its problems."""

import errno
import logging
import os
import threading
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import pytest

from fibcore.appliance.settings import Settings
from fibcore.problems import (
    DriverMissingError,
    FolderUnusableError,
    StoreUnavailableError,
    UrlInvalidError,
)
from fibcore.stores import files, opening
from fibcore.stores.lock import WriterLock
from fibcore.stores.sqlite import SqliteStore
from fibcore.stores.sqlite_opener import SqliteOpener
from tests.support.disks import SmallDisk
from tests.support.waiting import PATIENCE


def nobody_serves(pid: int | None) -> None:
    pytest.fail(f"it stands by for {pid}")


def test_the_store_is_opened_in_a_folder_created_for_it(tmp_path: Path) -> None:
    database = tmp_path / "new" / "folder" / "fibcore.db"
    settings = Settings.from_environ({"FIB_STORE": f"sqlite:{database}", "FIB_SYNCHRONOUS": "off"})
    opener = settings.opener()
    opener.stand_by(nobody_serves)
    with closing(opener.open()) as store:
        assert store.exclusive
        assert store.advance(5) == store.read() == 5
    assert database.exists()


def test_a_missing_driver_is_reported_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(opening.ENGINES, "etcd", ("etcd_without", "Engine"))
    with pytest.raises(DriverMissingError, match="the driver for etcd_without is not") as missing:
        Settings.from_environ({"FIB_STORE": "etcd://host/name"}).opener()
    assert missing.value.scheme == "etcd_without"


def test_a_start_logs_only_that_the_database_is_new(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(2):
        opener = SqliteOpener(database)
        assert opener.where == str(database)
        opener.stand_by(nobody_serves)
        with closing(opener.open()) as store:
            store.advance(1)
        assert opener._lock is not None
        opener._lock.release()
    assert [each.getMessage() for each in caplog.records] == [
        f"{database} is a new database, at index 0"
    ]


def test_an_invalid_url_of_a_store_is_reported_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def understand(_: str) -> NoReturn:
        raise ValueError("its port is no number")

    settings = Settings.from_environ({"FIB_STORE": "etcd://127.0.0.1:1"})
    monkeypatch.setattr(opening, "parse", understand)
    with pytest.raises(UrlInvalidError, match="etcd URL: its port is no number") as invalid:
        settings.opener()
    assert (invalid.value.scheme, invalid.value.reason) == ("etcd", "its port is no number")


def test_a_standby_logs_once_and_polls_until_its_turn(database: Path) -> None:
    serving = WriterLock(database)
    assert serving.acquire(wait=False)
    with closing(SqliteStore(database)) as store:
        store.advance(7)
        standby = SqliteOpener(database)
        reports: list[int | None] = []
        stands_by, serves = threading.Event(), threading.Event()

        def report(pid: int | None) -> None:
            reports.append(pid)
            stands_by.set()

        def stand_by() -> None:
            standby.stand_by(report)
            serves.set()

        thread = threading.Thread(target=stand_by)
        thread.start()
        assert stands_by.wait(PATIENCE)
        assert standby.peek() == 7
        store.advance(1)
        assert standby.peek() == 8
        assert not serves.is_set()
    serving.release()
    assert serves.wait(PATIENCE)
    thread.join()
    assert reports == [os.getpid()]
    with closing(standby.open()) as store:
        assert store.read() == 8


def test_a_database_that_never_existed_cannot_be_described(database: Path) -> None:
    assert SqliteOpener(database).peek() is None
    files.high_water_mark_path(database).mkdir()
    assert SqliteOpener(database).peek() is None


def test_a_lock_file_without_space_can_be_retried(tmp_path: Path, small_disk: SmallDisk) -> None:
    with small_disk(tmp_path / "disk", inodes=20) as disk:
        others = [disk / str(number) for number in range(19)]
        for each in others:
            each.touch()
        opener = SqliteOpener(disk / "fibcore.db")
        with pytest.raises(StoreUnavailableError, match="No space left on device"):
            opener.stand_by(nobody_serves)
        for each in others:
            each.unlink()
        opener.stand_by(nobody_serves)
        with closing(opener.open()) as store:
            assert store.read() == 0
        assert opener._lock is not None
        opener._lock.release()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.ENOLCK, errno.EMFILE])
@pytest.mark.parametrize("call", ["mkdir", "open", "flock", "fstat"])
def test_any_call_on_the_lock_file_may_fail_temporarily(
    database: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    owner = {"mkdir": "pathlib.Path", "open": "os", "flock": "fcntl", "fstat": "os"}[call]
    opener = SqliteOpener(database)
    with monkeypatch.context() as patched:
        patched.setattr(f"{owner}.{call}", fail)
        with pytest.raises(StoreUnavailableError, match=os.strerror(number)):
            opener.stand_by(nobody_serves)
    opener.stand_by(nobody_serves)
    late = WriterLock(database)
    assert not late.acquire(wait=False)
    late.release()


def test_a_path_that_is_not_a_folder_is_not_retried(tmp_path: Path) -> None:
    tmp_path.joinpath("file").touch()
    with pytest.raises(FolderUnusableError, match="File exists"):
        SqliteOpener(tmp_path / "file" / "fibcore.db").stand_by(nobody_serves)
