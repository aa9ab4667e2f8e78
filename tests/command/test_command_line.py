"""Arguments, output and exit status, whatever the command."""

import contextlib
import os
import pty
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from tests.command.conftest import Fibcore, command, rows
from tests.support.reference import digits_of
from tests.support.servers import listening_socket
from tests.support.waiting import PATIENCE


@pytest.mark.parametrize(
    "arguments",
    [
        *("", "dance", "backup", "backup /", "show --database /", "show --integers float"),
        *("next --url 8080", "next --key 7", "next --timeout 0", "next --timeout x"),
        *("number x", f"number {2**63}"),
    ],
)
def test_an_invalid_command_line_is_a_usage_error(fibcore: Fibcore, arguments: str) -> None:
    status, output, problem = fibcore(*arguments.split())
    assert (status, output) == (2, "")
    assert problem.startswith("usage: fibcore")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--version", ["fibcore 1."]),
        ("--help", ["fibcore backup /backups", "serve", "status", "set-index"]),
        *((f"--print-completion {shell}", ["serve", "lower"]) for shell in ("bash", "zsh", "fish")),
    ],
)
def test_version_help_and_completion_are_printed(
    fibcore: Fibcore, arguments: str, words: list[str]
) -> None:
    status, output, problem = fibcore(*arguments.split())
    assert (status, problem) == (0, "")
    assert all(each in output for each in words)


def test_the_database_is_that_of_the_command_line_the_environment_or_the_folder(
    fibcore: Fibcore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, default = tmp_path / "other.db", tmp_path / "var" / "fibcore.db"
    fibcore("init")
    fibcore("init", "--database", other)
    assert rows(fibcore("show")[1])["database"] == str(default)
    assert rows(fibcore("show", "--database", "other.db")[1])["database"] == str(other)
    monkeypatch.setenv("FIB_STATE", "other.db")
    assert rows(fibcore("show")[1])["database"] == str(other)


def test_with_an_invalid_setting_the_command_does_not_guess(
    fibcore: Fibcore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting that does not matter to it is not checked."""
    monkeypatch.setenv("FIB_INTEGERS", "float")
    status, _, problem = fibcore("init")
    assert status == os.EX_CONFIG
    assert "FIB_INTEGERS is 'float'; it must be one of exact, uint64." in problem
    assert not (tmp_path / "var").exists()
    monkeypatch.delenv("FIB_INTEGERS")
    monkeypatch.setenv("FIB_MAX_KEYS", "many")
    assert fibcore("init")[0] == 0


@pytest.mark.processes
def test_the_installed_script_is_this_command(database: Path, fibcore: Fibcore) -> None:
    fibcore("init")
    script = Path(command()[0]).with_name("fibcore")
    done = subprocess.run([script, "show"], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, rows(done.stdout)["database"]) == (0, str(database))


@pytest.mark.processes
def test_a_closed_pipe_is_not_an_error(fibcore: Fibcore, database: Path) -> None:
    fibcore("set-index", 1_000_000, "--database", database)
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
def test_show_draws_a_progress_bar_on_a_terminal_and_erases_it(
    database: Path, fibcore: Fibcore, tmp_path: Path
) -> None:
    fibcore("set-index", 6_000_000, "--database", database)
    terminal, seen_by_it = pty.openpty()
    with tmp_path.joinpath("digits").open("wb") as output:
        subprocess.run(command("show", "--digits"), stdout=output, stderr=seen_by_it, check=True)
    os.close(seen_by_it)
    drawn = all_of(terminal).decode()
    assert drawn.startswith("\r[" + 40 * " " + "]   0%")
    assert "\r[" + 40 * "#" + "] 100%" in drawn
    assert drawn.endswith("\r\x1b[K")
    assert tmp_path.joinpath("digits").read_bytes() == digits_of(6_000_000) + b"\n"


@pytest.mark.processes
@pytest.mark.parametrize("name", ["current", "next", "status"])
def test_an_interrupt_ends_a_command_without_a_traceback(name: str) -> None:
    """By the signal, so that a shell's loop ends, too."""
    with listening_socket() as listener:
        listener.settimeout(PATIENCE)
        asks = command(name, "--url", f"http://127.0.0.1:{listener.getsockname()[1]}")
        with (
            subprocess.Popen(asks, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
            listener.accept()[0],
        ):
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=PATIENCE) == (b"", b"")
    assert process.returncode == -signal.SIGINT


@pytest.mark.processes
def test_a_file_name_may_be_any_bytes_and_is_printed_unchanged(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff.db"
    for arguments, printed in (
        ([b"set-index", b"5"], name + b" is at index 5\n"),
        ([b"backup", name + b".copy"], name + b".copy: a verified copy at index 5\n"),
    ):
        asked = [*map(os.fsencode, command()), *arguments, b"--database", name]
        done = subprocess.run(asked, capture_output=True, timeout=PATIENCE)
        assert (done.returncode, done.stdout, done.stderr) == (0, printed, b"")


@pytest.mark.processes
@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    ("redirection", "status"),
    [(">/dev/full", 74), (">/dev/full 2>&1", 74), (">&-", 0), (">&- 2>&-", 0)],
)
def test_unwritable_output_is_reported_without_a_traceback(
    fibcore: Fibcore, redirection: str, status: int
) -> None:
    fibcore("init")
    line = f"{shlex.join(command('show'))} {redirection}"
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr
    assert done.stderr.count("\n") == (redirection == ">/dev/full")
