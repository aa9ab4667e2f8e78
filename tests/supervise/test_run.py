"""``make run`` and ``make restart``: their checks and messages, and the instance that they run."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from fibcore import problems
from tests.supervise.clients import Clients
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
from tests.support.ports import free_port
from tests.support.servers import Client, ServerProcess
from tests.support.supervised import ROOT
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.processes

FIBCORE: Final = f"{sys.prefix}/bin/fibcore"


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkout(tmp_path_factory.mktemp("run"))


def rejected(home: Path, status: int, **settings: str) -> str:
    """The only line that ``make run`` prints, which starts nothing."""
    done = run(home, **{"FIB_PORT": str(free_port()), **settings})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (status, "", 1)
    assert done.stderr.startswith("fibcore: ")
    return done.stderr.removeprefix("fibcore: ")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("FIB_PORT", "0", "FIB_PORT is '0'; it must be a whole number from 1 to 65535."),
        ("FIB_HOST", "no.such.host.invalid", "FIB_HOST=no.such.host.invalid can't be resolved: "),
        ("FIB_HOST", "::", "FIB_HOST is ::, an IPv6 address"),
        ("FIB_HOST", "192.0.2.1", "FIB_HOST=192.0.2.1 is not an address of this machine"),
        ("FIB_STORE", "mysql://host/x", "FIB_STORE is 'mysql://host/x'; it must be sqlite:"),
        ("FIB_SYNCRONOUS", "off", "FIB_SYNCRONOUS is not a setting"),
    ],
)
def test_make_run_reports_an_invalid_setting(home: Path, name: str, value: str, words: str) -> None:
    line = rejected(home, os.EX_CONFIG, **{name: value})
    assert line.startswith(words)
    assert re.search("Nothing has been started or changed|database is untouched", line)
    assert not (home / "var").exists()


def test_make_run_reports_what_is_in_its_way(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = rejected(home, os.EX_CONFIG, FIB_PORT=str(port))
        assert f"FIB_PORT={port} at 127.0.0.1 is in use by another program" in line
    home.joinpath("file").touch()
    line = rejected(home, os.EX_CANTCREAT, FIB_STATE="file/fibcore.db")
    assert f"{home}/file/fibcore.db can't be used: {home}/file is not a folder" in line
    with ServerProcess(home / "fibcore.db", settings={"FIB_PORT": str(free_port())}) as server:
        server.wait_until_it_serves()
        line = rejected(home, os.EX_TEMPFAIL, FIB_STATE="fibcore.db")
        assert f"is already served by process {server.pid}" in line
    log = home / "var" / "log" / "web_1.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.symlink_to("missing/file")
    assert rejected(home, os.EX_CANTCREAT).startswith(f"{log} can't be used: ")
    home.joinpath("fibcore.conf").write_text("FIB_PORT 9000\n")
    assert "line 1 is not FIB_NAME=value" in rejected(home, os.EX_CONFIG)


@pytest.mark.parametrize("name", ["50%", "x" * 200], ids=["percent sign", "long name"])
def test_make_run_reports_a_folder_unusable_for_supervisord(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    line = rejected(checkout(folder), os.EX_CANTCREAT)
    assert f"supervisord can't run in the folder {folder}" in line
    assert not (folder / "var").exists()


def test_the_command_in_the_message_repairs_a_truncated_database(home: Path) -> None:
    database = home / "var" / "fibcore.db"
    for arguments in (["init"], ["set-index", "3"]):
        assert ended(home, FIBCORE, *arguments).returncode == 0
    os.truncate(database, database.stat().st_size // 2)
    line = rejected(home, os.EX_DATAERR)
    way_out = re.search(r"with no step lost: (.*fibcore set-index 3)\.", line)
    assert way_out, line
    assert ended(home, "sh", "-c", way_out[1]).returncode == 0
    assert "index            3\n" in command(home, "fibcore", "show")


def test_systemd_does_not_retry_a_start_that_needs_an_operator() -> None:
    """Every status of ``make run`` for a permanent problem, such as a missing sequence."""
    unit = ROOT.joinpath("deploy", "debian", "fibcore.service").read_text()
    prevented = re.search(r"(?m)^RestartPreventExitStatus=(.*)$", unit)
    assert prevented is not None
    kinds: list[type[problems.Problem]] = [
        *(problems.SettingsError, problems.StoreSettingError, problems.CantListenError),
        *(problems.DatabaseInvalidError, problems.NoRightError, problems.IndexPastLimitError),
    ]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert {each.status for each in kinds} <= set(map(int, prevented[1].split()))


def test_commands_in_the_folder_reject_another_store_than_that_of_the_server(
    home: Path, tmp_path: Path
) -> None:
    database = tmp_path / "data" / "fib.db"
    with running(home, FIB_STATE=str(database)) as port:
        assert Client(f"http://127.0.0.1:{port}").get("/next").index == 1
        served = f"a server of this folder, uses the store {database}, but this command would use"
        for asked in (["show"], ["set-index", "5"]):
            refused = ended(home, FIBCORE, *asked)
            assert (refused.returncode, refused.stdout) == (os.EX_CONFIG, "")
            assert served in refused.stderr
            assert f"{home}/var/fibcore.db (FIB_STORE: default). Nothing has" in refused.stderr
        assert not (home / "var" / "fibcore.db").exists()
        shown = command(home, "fibcore", "show", "--database", str(database))
        assert "index            1\n" in shown
        assert f"127.0.0.1:{port}, process" in command(home, "fibcore", "status")
        assert "web:web_0" in command(home, "supervisorctl", "status")
        assert f"{database} is a new database, at index 0\n" in said(home)
        until(lambda: f"listening at http://127.0.0.1:{port}\n" in said(home), "it says where")
        assert "CRIT" not in said(home)
        again = run(home, FIB_PORT=str(free_port()))
        assert again.returncode == os.EX_TEMPFAIL
        running_here = "The appliance of this folder is already running: its supervisord is process"
        assert running_here in again.stderr


def test_ctrl_c_shows_the_last_lines_of_the_log(home: Path) -> None:
    """A terminal interrupts the whole process group, including what shows the log."""
    with home.joinpath("terminal").open("w") as terminal:
        process = subprocess.Popen(
            [sys.executable, "-m", "supervise.run"],
            cwd=home,
            env=environment({"FIB_PORT": str(free_port()), "FIB_LOG_FORMAT": "json"}),
            stdout=terminal,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    try:
        until(lambda: "serving" in said(home) or process.poll() is not None, "it serves")
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
    finally:
        process.kill()
    # Standard output has only the log: FIB_LOG_FORMAT=json make run | jq works.
    assert b"Ctrl-C stops it" in told
    assert "stopped" in [json.loads(line)["event"] for line in said(home).splitlines()]


def test_a_folder_may_have_an_odd_name_and_is_not_cleaned_while_it_serves(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("run") / "it's; #1"
    folder.mkdir()
    home = checkout(folder)
    make = requires.program("make")
    with running(home) as port:
        assert Client(f"http://127.0.0.1:{port}").get("/next").index == 1
        done = ended(home, make, "clean")
        assert done.returncode != 0
        assert "Nothing has been removed. Stop it first: .venv/bin/supervisorctl" in done.stderr
        assert home.joinpath(".venv").exists()
    assert ended(home, make, "clean").returncode == 0
    assert not home.joinpath(".venv").exists()
    assert home.joinpath("var", "fibcore.db").exists()


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


def test_make_restart_refuses_no_connection(home: Path) -> None:
    """If nothing runs, that is reported."""
    with running(home) as port:
        with Clients(Client(f"http://127.0.0.1:{port}")) as clients:
            clients.wait_for_steps()
            done = restart(home)
            clients.wait_for_steps()
        clients.check()
        assert (done.returncode, done.stderr) == (0, "")
        assert not clients.unanswered
        until(lambda: said(home).count("serving from") >= 2, "the standby has taken over")
    done = restart(home)
    assert done.returncode != 0
    assert "No server that this user may restart runs in this folder." in done.stderr
