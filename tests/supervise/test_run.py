"""``make run``: its messages, and the instance that it starts."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from fibcore import Client
from fibcore.client import LargestIndexError
from fibcore.stores.lock import server_of
from fibcore.stores.sqlite import SqliteStore
from supervise.control import CONTROL, connected
from supervise.restart import servers
from supervise.run import MAX_SOCKET_PATH
from tests.support import requires
from tests.support.checkout import (
    checkout,
    command,
    ended,
    environment,
    restart,
    run,
    running,
    said,
)
from tests.support.load import Load
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.processes


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkout(tmp_path_factory.mktemp("run"))


def step(port: int) -> int:
    """Return the index after it."""
    with Client(f"http://127.0.0.1:{port}") as client:
        return client.next().index


def test_a_command_rejects_a_store_other_than_that_of_its_server(
    home: Path, tmp_path: Path
) -> None:
    database = tmp_path / "data" / "fib.db"
    with running(home, FIB_STATE=str(database)) as port:
        step(port)
        served = f"a server of this folder, uses the store {database}, but this command would use"
        for asked in (["show"], ["set-index", "5"]):
            refused = ended(home, f"{sys.prefix}/bin/fibcore", *asked)
            assert (refused.returncode, refused.stdout) == (os.EX_CONFIG, "")
            assert served in refused.stderr
            assert f"{home}/var/fibcore.db (FIB_STORE: default). Nothing has" in refused.stderr
        assert not (home / "var" / "fibcore.db").exists()
        shown = command(home, "fibcore", "show", "--database", str(database))
        assert "index            1\n" in shown
        assert f"127.0.0.1:{port}, process" in command(home, "fibcore", "status")
        assert "web:web_0" in command(home, "supervisorctl", "status")
        assert f"{database} is a new database, at index 0\n" in said(home)
        assert f"serving from index 0; synchronous=full, integers=exact, {database}\n" in said(home)
        until(lambda: f"listening at http://127.0.0.1:{port}\n" in said(home), "it says where")
        assert "CRIT" not in said(home)

        again = run(home, FIB_PORT=str(free_port()))
        assert again.returncode == os.EX_TEMPFAIL
        assert "The appliance of this folder is already running: its supervisord is process" in (
            again.stderr
        )
    assert (
        f"no database {home}/var/fibcore.db"
        in ended(home, f"{sys.prefix}/bin/fibcore", "show").stderr
    )


def test_ctrl_c_shows_the_last_lines_of_the_log(home: Path) -> None:
    """A terminal interrupts the whole process group, including what shows the log."""
    with home.joinpath("terminal").open("w") as terminal:
        process = subprocess.Popen(
            [sys.executable, "-m", "supervise.run"],
            cwd=home,
            env=environment({"FIB_PORT": str(free_port())}),
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
    try:
        until(lambda: "serving from" in said(home) or process.poll() is not None, "it serves")
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
    assert "stopped at index 0\n" in said(home)


def test_a_folder_may_have_any_name(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Odd characters and the greatest length; the build of a running server is not cleaned up."""
    parent = tmp_path_factory.mktemp("run")
    longest = MAX_SOCKET_PATH - len(os.fsencode(CONTROL)) - 1
    folder = parent / "it's; #1".ljust(longest - len(os.fsencode(parent)) - 1, "x")
    folder.mkdir()
    home = checkout(folder)
    conf = home / "fibcore.conf"
    conf.write_text(conf.read_text().replace("#FIB_MAX_INDEX=", "FIB_MAX_INDEX=1"))
    make = requires.program("make")
    with running(home) as port:
        step(port)
        with pytest.raises(LargestIndexError, match="FIB_MAX_INDEX"):
            step(port)
        done = ended(home, make, "clean")
        assert done.returncode != 0
        assert "Nothing has been removed. Stop it first: .venv/bin/supervisorctl" in done.stderr
        assert home.joinpath(".venv").exists()
    assert ended(home, make, "clean").returncode == 0
    assert not home.joinpath(".venv").exists()
    assert home.joinpath("var", "fibcore.db").exists()


@pytest.mark.parametrize("made", [("python",), ("python", "pip")], ids=["without pip", "finished"])
def test_an_unfinished_environment_is_built_again(home: Path, made: tuple[str, ...]) -> None:
    """As after an interrupt, or on a full disk: it has a Python, but nothing can be installed."""
    home.joinpath(".venv").unlink()
    sources = ("pyproject.toml", "setup.py", "requirements/run.txt")
    compiled = ("fibcore/idempotency_key", "web/http/answers", "web/http/heads", "web/http/parser")
    for name in (
        *sources,
        *(f"{each}{suffix}" for each in compiled for suffix in (".py", ".pxd")),
        *(f".venv/bin/{each}" for each in made),
    ):
        home.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        home.joinpath(name).touch()
    planned = ended(home, requires.program("make"), "--dry-run", ".venv/.run")
    assert (planned.returncode, planned.stderr) == (0, "")
    assert ("-m venv .venv" in planned.stdout) == ("pip" not in made)


def test_an_environment_that_cannot_be_built_is_removed(home: Path, tmp_path: Path) -> None:
    """As on a full disk, where even pip itself is incomplete."""
    home.joinpath(".venv").unlink()
    python = tmp_path / "python"
    python.write_text(
        f"""#!/bin/sh
[ "$2" = venv ] || exec {sys.executable} "$@"
mkdir -p "$3/bin" && touch "$3/bin/pip" && exit 1
"""
    )
    python.chmod(0o755)
    made = ended(home, requires.program("make"), f"PYTHON={python}", ".venv/bin/pip")
    assert made.returncode != 0
    assert "Making .venv" in made.stderr
    assert not home.joinpath(".venv").exists()


def test_the_command_in_the_message_repairs_a_truncated_database(home: Path) -> None:
    database = home / "var" / "fibcore.db"
    database.parent.mkdir()
    with closing(SqliteStore(database)) as store:
        store.advance(3)
    os.truncate(database, database.stat().st_size // 2)
    done = run(home, FIB_PORT=str(free_port()))
    assert done.returncode == os.EX_DATAERR
    way_out = re.search(r"with no step lost: (.*fibcore set-index 3)\.", done.stderr)
    assert way_out, done.stderr
    subprocess.run(
        ["sh", "-c", way_out[1]], cwd=home, env=environment({}), timeout=PATIENCE, check=True
    )
    with closing(SqliteStore(database)) as store:
        assert store.advance(1) == 4


def test_processes_are_restarted_one_after_the_other(home: Path) -> None:
    """If nothing runs, that is reported."""
    with running(home) as port:
        with Load(port) as load:
            load.wait_for_steps(50)
            done = restart(home)
            load.wait_for_steps(50)
        with Client(f"http://127.0.0.1:{port}") as client:
            load.check(first=0, last=client.current().index)
        assert (load.refused, load.errors.total()) == (0, 0)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count(" restarted") == 4
        until(lambda: said(home).count("serving from") == 2, "the standby has taken over")
        assert "taking over" in said(home)
        # Removing the socket ends no process.
        (home / CONTROL).unlink()
        done = restart(home)
        assert done.returncode == os.EX_TEMPFAIL
        assert f"If {CONTROL} was removed" in done.stderr
        assert "make run runs here" in ended(home, requires.program("make"), "clean").stderr
        assert home.joinpath(".venv").exists()
        pid = re.search(r"kill (\d+) stops supervisord", done.stderr)
        assert pid is not None
        assert f"supervisord is process {pid[1]}" in run(home).stderr
        assert b"supervisord" in Path(f"/proc/{pid[1]}/cmdline").read_bytes()
    done = restart(home)
    assert done.returncode == os.EX_TEMPFAIL
    assert "No server that this user may restart runs in this folder." in done.stderr


def test_an_interrupted_restart_leaves_no_process_stopped(home: Path) -> None:
    """It is interrupted while the frozen standby has not exited."""
    with running(home) as port:
        step(port)
        with connected(home) as supervisord:
            until(lambda: len(servers(supervisord)) == 2, "both run")
            server = server_of(home / "var" / "fibcore.db")
            ((name, standby),) = (
                each for each in servers(supervisord).items() if each[1] != server
            )
            os.kill(standby, signal.SIGSTOP)
            with subprocess.Popen(
                [sys.executable, "-m", "supervise.restart"],
                cwd=home,
                env=environment({}),
                stderr=subprocess.PIPE,
            ) as process:
                until(lambda: not lives(standby) or ends(standby), "it has been told to end")
                process.send_signal(signal.SIGINT)
                complaint = process.communicate(timeout=PATIENCE)[1]
            until(lambda: servers(supervisord).get(name, standby) != standby, "another stands by")
    assert complaint == b""


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def ends(pid: int) -> bool:
    """Whether a frozen process has a SIGTERM pending."""
    pending = re.search(r"ShdPnd:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return pending is not None and bool(int(pending[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_make_run_prints_only_the_json_log(home: Path) -> None:
    """So that ``FIB_LOG_FORMAT=json make run | jq`` works."""
    settings = environment({"FIB_PORT": str(free_port()), "FIB_LOG_FORMAT": "json"})
    run = [sys.executable, "-m", "supervise.run"]
    with subprocess.Popen(
        run, cwd=home, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            events = (json.loads(line)["event"] for line in process.stdout)
            assert "listening" in events
        finally:
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            assert b"Ctrl-C stops it" in process.stderr.read()
