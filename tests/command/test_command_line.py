"""Arguments, output and exit status, whatever the command."""

import contextlib
import errno
import importlib
import os
import pty
import shlex
import signal
import subprocess
import tomllib
from pathlib import Path

import pytest

from fibcore.appliance.settings import Settings
from fibcore.command import cli
from fibcore.problems import (
    CommitFailedError,
    NoRightError,
    StoreUnavailableError,
    explain,
    typed,
)
from fibcore.stores import sqlite_opener
from supervise.backup import BackupCopy
from tests.command.conftest import Fibcore, command, make, rows
from tests.support.reference import digits_of
from tests.support.servers import listening_socket
from web import __main__ as web_main
from web import server

# The command line


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StoreUnavailableError("fibcore.db", "full"), 75),
        (NoRightError("fibcore.db", "permission denied"), 77),
        (CommitFailedError("fibcore.db", 1, "broken"), 74),
        (PermissionError("denied"), 74),
    ],
)
def test_each_problem_has_an_exit_status_and_a_message(
    fibcore: Fibcore, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def trouble(_: Path) -> int:
        raise error

    monkeypatch.setattr(sqlite_opener, "verified_index", trouble)
    assert fibcore("show") == (status, "", f"fibcore: {explain(error, '')}\n")


@pytest.mark.parametrize("arguments", [(), ("dance",), ("backup",), ("show", "--database", "")])
def test_an_invalid_command_line_has_status_2(fibcore: Fibcore, arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit, match="2"):
        fibcore(*arguments)


def test_the_command_and_the_server_use_the_same_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fibcore: Fibcore
) -> None:
    monkeypatch.delenv("FIB_STATE", raising=False)
    monkeypatch.chdir(tmp_path)
    taken = Settings.from_environ({}).database
    assert taken is not None
    for path in (taken, tmp_path / "other.db"):
        path.parent.mkdir(exist_ok=True)
        make(path, 3)
    assert rows(fibcore("show")[1])["database"] == str(tmp_path / "var" / "fibcore.db")
    assert rows(fibcore("show", "--database", "other.db")[1])["database"] == str(
        tmp_path / "other.db"
    )
    monkeypatch.setenv("FIB_STATE", "other.db")
    assert rows(fibcore("show")[1])["database"] == str(tmp_path / "other.db")


def test_the_console_script_is_this_command() -> None:
    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())
    module, _, name = project["project"]["scripts"]["fibcore"].partition(":")
    assert getattr(importlib.import_module(module), name) is cli.main


@pytest.mark.processes
def test_a_closed_pipe_is_not_an_error(database: Path) -> None:
    make(database, 1_000_000)
    with subprocess.Popen(
        command("show", "--digits"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(5) == digits_of(1_000_000)[:5]
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def all_of(terminal: int) -> bytes:
    """Everything that exited programs wrote to the terminal."""
    found = b""
    with os.fdopen(terminal, "rb", buffering=0) as reader, contextlib.suppress(OSError):
        # Linux reports the end as EIO: pty(7).
        while piece := reader.read(65536):
            found += piece
    return found


@pytest.mark.processes
def test_show_draws_a_progress_bar_on_a_terminal(database: Path, tmp_path: Path) -> None:
    """The bar is erased at the end."""
    make(database, 6_000_000)
    terminal, seen_by_it = pty.openpty()
    with tmp_path.joinpath("digits").open("wb") as output:
        subprocess.run(command("show", "--digits"), stdout=output, stderr=seen_by_it, check=True)
    os.close(seen_by_it)
    drawn = all_of(terminal).decode()
    assert drawn.startswith("\r[" + 40 * " " + "]   0%")
    assert "\r[" + 40 * "#" + "] 100%" in drawn
    assert drawn.endswith("\r\x1b[K")
    assert tmp_path.joinpath("digits").read_bytes() == digits_of(6_000_000) + b"\n"


def test_a_truncated_database_is_reported_with_the_remedy(database: Path, fibcore: Fibcore) -> None:
    """The remedy loses nothing."""
    make(database, 1000)
    BackupCopy(database).refresh()
    make(database, 1009)
    os.truncate(database, database.stat().st_size // 2)
    for asked in ("show", "verify"):
        status, _, complaint = fibcore(asked)
        assert status == os.EX_DATAERR
        way_out = typed(f"fibcore set-index 1009 --database {database}")
        assert f"with no step lost: {way_out}." in complaint
        assert "restore" not in complaint
    assert fibcore("set-index", 1009)[0] == 0
    assert sqlite_opener.verified_index(database) == 1009


def test_a_missing_file_is_not_reported_as_damaged(
    database: Path, fibcore: Fibcore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _, complaint = fibcore("show")
    assert status == os.EX_NOINPUT
    assert complaint.startswith(f"fibcore: There is no database {database}.")
    make(database, 5)
    status, _, complaint = fibcore("restore", tmp_path / "nosuch.bak")
    assert status == os.EX_NOINPUT
    assert f"{tmp_path / 'nosuch.bak'} can't be restored: there is no such file." in complaint
    status, _, complaint = fibcore("backup", tmp_path / "nofolder" / "x")
    assert status == os.EX_CANTCREAT
    assert f"there is no folder {tmp_path / 'nofolder'}" in complaint
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    status, _, complaint = fibcore("backup", tmp_path / "x")
    assert status == os.EX_CANTCREAT
    assert f"this user may not write to {tmp_path}. The database is unchanged." in complaint


def test_with_an_invalid_setting_the_command_does_not_guess(
    fibcore: Fibcore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIB_INTEGERS", "float")
    status, _, complaint = fibcore("show")
    assert status == os.EX_CONFIG
    assert "FIB_INTEGERS is 'float'; it must be one of exact, uint64." in complaint


@pytest.mark.processes
@pytest.mark.parametrize("arguments", [("current",), ("next",), ("status",)])
def test_an_interrupt_ends_a_command_without_a_traceback(arguments: tuple[str, ...]) -> None:
    """By the signal, so that a shell's loop ends, too."""
    with listening_socket() as listener:
        listener.settimeout(60)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with (
            subprocess.Popen(
                command(*arguments, "--url", url), stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ) as process,
            listener.accept()[0],
        ):
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == -signal.SIGINT


@pytest.mark.processes
def test_a_file_name_may_be_any_bytes_and_is_printed_unchanged(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff.db"
    make(Path(os.fsdecode(name)), 5)
    done = subprocess.run(
        [*map(os.fsencode, command("backup", "--database")), name, name + b".copy"],
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == name + b".copy: a verified copy at index 5\n"


@pytest.mark.parametrize("arguments", [("show", "--database", "/"), ("backup", "/")])
def test_a_path_without_a_file_name_is_a_usage_error(
    fibcore: Fibcore, database: Path, arguments: tuple[str, ...]
) -> None:
    make(database, 5)
    with pytest.raises(SystemExit) as ended:
        fibcore(*arguments)
    assert ended.value.code == 2


@pytest.mark.processes
@pytest.mark.parametrize(
    ("redirection", "status"),
    [(">/dev/full", 74), (">/dev/full 2>&1", 74), (">&-", 0), (">&- 2>&-", 0)],
)
def test_unwritable_output_is_reported_without_a_traceback(
    database: Path, redirection: str, status: int
) -> None:
    make(database, 5)
    typed_line = shlex.join(command("show"))
    ended = subprocess.run(
        ["/bin/sh", "-c", f"{typed_line} {redirection}"], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, "Traceback" in ended.stderr) == (status, False), ended.stderr
    assert ended.stderr.count("\n") == (redirection == ">/dev/full")


SHORTAGES = (
    MemoryError(),
    RuntimeError("can't start new thread"),
    ImportError("libsqlite3.so.0: failed to map segment from shared object"),
    OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    LookupError("unknown encoding: idna"),
)


@pytest.mark.parametrize("error", SHORTAGES, ids=lambda error: type(error).__name__)
def test_a_server_without_memory_reports_it_in_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    def end(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr(server, "main", fail)
    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(SystemExit, match=str(os.EX_OSERR)):
        web_main.run()
    said = capfd.readouterr().err
    assert said.startswith(f"Out of memory ({error}): the server can't serve. ")
    assert said.count("\n") == 1


def test_another_error_is_not_mistaken_for_a_lack_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise RuntimeError("nobody has foreseen this")

    monkeypatch.setattr(server, "main", fail)
    with pytest.raises(RuntimeError, match="foreseen"):
        web_main.run()
