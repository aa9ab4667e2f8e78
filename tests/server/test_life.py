"""The life of a server: it exits through one call, with a status that tells why."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from fibcore.appliance.ending import (
    EXIT_COMMIT_FAILED,
    EXIT_DATABASE_INVALID,
    EXIT_FAILED,
    EXIT_SETTINGS_INVALID,
)
from fibcore.appliance.settings import Settings
from fibcore.problems import (
    CommitFailedError,
    DatabaseInvalidError,
    SettingsError,
    StoreUnavailableError,
)
from fibcore.stores.files import takeovers_path
from fibcore.stores.sqlite import SqliteStore
from fibcore.stores.sqlite_opener import SqliteOpener
from tests.support.waiting import PATIENCE
from web import service
from web.life import Life


class EndedError(BaseException):
    """The process has ended."""

    def __init__(self, status: int) -> None:
        self.status = status


def end(status: int) -> NoReturn:
    raise EndedError(status)


def status_of(ending: Callable[[], None]) -> int:
    with pytest.raises(EndedError) as ended:
        ending()
    return ended.value.status


def life_with(database: Path) -> Life:
    settings = Settings.from_environ({"FIB_STORE": f"sqlite:{database}"})
    return Life(settings, SqliteOpener(database), end)


def ending_of(database: Path) -> str | None:
    return json.loads(takeovers_path(database).read_text())["ending"]  # type: ignore[no-any-return]


def raising(error: BaseException) -> Callable[[], NoReturn]:
    def work() -> NoReturn:
        raise error

    return work


@pytest.mark.parametrize("is_writer", [True, False])
def test_a_stop_has_status_0_and_only_the_lock_holder_records_it(
    database: Path, monkeypatch: pytest.MonkeyPatch, is_writer: bool
) -> None:
    """Without the lock it can only have answered 503, and another process is the server."""
    if not is_writer:
        full = StoreUnavailableError("x.db", "full")
        monkeypatch.setattr(SqliteOpener, "stand_by", lambda *_: raising(full)())
    it = life_with(database)
    assert status_of(lambda: it.live(lambda: asyncio.run(it.stand_by()))) == 0
    assert takeovers_path(database).exists() == is_writer
    assert not is_writer or ending_of(database) == "stopped"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DatabaseInvalidError("x.db", "it is empty"), EXIT_DATABASE_INVALID),
        (SettingsError("FIB_PORT=80 is in use"), EXIT_SETTINGS_INVALID),
        (RuntimeError("nobody has foreseen this"), EXIT_FAILED),
    ],
    ids=lambda each: type(each).__name__,
)
def test_the_exit_status_tells_why_a_server_ended(
    database: Path, error: BaseException, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert status_of(lambda: life_with(database).live(raising(error))) == status
    assert (error.reason if isinstance(error, DatabaseInvalidError) else str(error)) in caplog.text
    assert not takeovers_path(database).exists()


@pytest.mark.parametrize(
    ("status", "environ", "way"),
    [
        (EXIT_DATABASE_INVALID, {}, "Then start it again."),
        (EXIT_DATABASE_INVALID, {"SUPERVISOR_ENABLED": "1"}, "supervisorctl start 'web:*'."),
        (EXIT_SETTINGS_INVALID, {"SUPERVISOR_ENABLED": "1"}, "Then: Ctrl-C, and make run."),
        (
            EXIT_SETTINGS_INVALID,
            {"SUPERVISOR_ENABLED": "1", "SYSTEMD_EXEC_PID": str(os.getppid())},
            "Then: sudo systemctl restart fibcore.",
        ),
    ],
    ids=["fibcore serve", "database", "make run", "service"],
)
def test_a_permanent_exit_logs_how_to_start_the_server_again(
    database: Path,
    status: int,
    environ: dict[str, str],
    way: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("SUPERVISOR_ENABLED", "SYSTEMD_EXEC_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    invalid = DatabaseInvalidError("x.db", "it is empty")
    error = invalid if status == EXIT_DATABASE_INVALID else SettingsError("It is wrong.")
    assert status_of(lambda: life_with(database).live(raising(error))) == status
    assert caplog.messages[-1].endswith(way)


def test_a_failed_commit_ends_the_server_and_is_recorded(database: Path) -> None:
    error = CommitFailedError(database, 1, "the disk says no")
    fail_stop = life_with(database).service._fail_stop
    assert status_of(lambda: fail_stop(error)) == EXIT_COMMIT_FAILED
    assert ending_of(database) == "failed"


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("threading.Thread.start", RuntimeError("can't start new thread")),
        ("fibcore.appliance.takeover_history.time.monotonic", MemoryError()),
        ("fibcore.appliance.ending.logger.critical", MemoryError()),
        ("fibcore.appliance.ending.explain", MemoryError()),
    ],
)
def test_a_failed_commit_ends_the_server_whatever_else_fails(
    database: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    fail_stop = life_with(database).service._fail_stop
    with monkeypatch.context() as patch:
        patch.setattr(where, fail)
        status = status_of(lambda: fail_stop(CommitFailedError(database, 1, "no")))
    assert status == EXIT_COMMIT_FAILED


@pytest.mark.processes
def test_exiting_does_not_depend_on_the_log() -> None:
    program = """
import logging
from fibcore.appliance.ending import end_at_once
logging.shutdown = None
end_at_once(74)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 74


def test_a_server_stands_by_serves_and_drains(database: Path) -> None:
    lived: list[object] = []

    async def serve(it: Life) -> None:
        await it.stand_by()
        async with it.serving(lambda: lived.append("stopped")):
            assert it.service.stepper is not None
            it.service.stepper.submit(lambda snapshot, *_: lived.append(snapshot.index))
        lived.append("drained")

    def work() -> None:
        asyncio.run(serve(it))

    it = life_with(database)
    assert status_of(lambda: it.live(work)) == 0
    assert lived == [1, "drained"]


def test_a_database_found_invalid_later_stops_the_server(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was unavailable at first, and opening was retried."""
    problems = [StoreUnavailableError("x.db", "full"), DatabaseInvalidError("x.db", "it is empty")]

    def open_store(_: SqliteOpener) -> SqliteStore:
        raise problems.pop(0)

    async def serve(it: Life) -> None:
        stopped = asyncio.Event()
        async with it.serving(stopped.set):
            await asyncio.wait_for(stopped.wait(), PATIENCE)

    monkeypatch.setattr(SqliteOpener, "open", open_store)
    monkeypatch.setattr(service, "RETRY_SECONDS", 0)
    it = life_with(database)
    status = status_of(lambda: it.live(lambda: asyncio.run(serve(it))))
    assert status == EXIT_DATABASE_INVALID


def test_standing_by_retries_while_the_lock_is_unavailable(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = [StoreUnavailableError("x.db", "no descriptor")] * 2

    def stand_by(_: SqliteOpener, report: Callable[[int | None], None]) -> None:
        if problems:
            raise problems.pop()
        report(None)

    monkeypatch.setattr(SqliteOpener, "stand_by", stand_by)
    monkeypatch.setattr(service, "RETRY_SECONDS", 0)
    settings = Settings.from_environ({"FIB_STORE": f"sqlite:{database}"})
    it = Life(settings, SqliteOpener(database), end, another_serves=lambda _: True)
    asyncio.run(it.stand_by())
    assert it._acquired is not None
    it.service._near()  # which ends the thread that follows
