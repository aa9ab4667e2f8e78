"""``fibcore check`` and ``fibcore config``: problems before a start, and sources of settings.

tests/appliance has the values that each setting accepts.
"""

import json
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from fibcore import MAX_EXACT_INDEX
from tests.command.conftest import Fibcore, command, edit
from tests.support.disks import mounted
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE

END = "Nothing has been started or changed."


@pytest.fixture
def port(tmp_path: Path) -> int:
    """The configured port, which is free; line 1 of the settings."""
    return int((tmp_path / "fibcore.conf").read_text().partition("=")[2])


def put(fibcore: Fibcore, tmp_path: Path, index: int) -> Path:
    """Configure a database at ``index``."""
    database = tmp_path / "x.db"
    edit(tmp_path, "FIB_STATE=x.db")
    arguments = ("--integers", "uint64", "--database", database)
    assert fibcore("set-index", index, "--lower", *arguments)[0] == 0
    return database


def test_check_names_the_address_and_the_store(fibcore: Fibcore, port: int, tmp_path: Path) -> None:
    status, output, problem = fibcore("check")
    assert (status, problem) == (0, "")
    # A warning follows if the tests keep their files in memory.
    good = f"A server can start at 127.0.0.1, port {port}: {tmp_path}/var/fibcore.db\n"
    assert output.startswith(good)
    assert not (tmp_path / "var").exists()
    put(fibcore, tmp_path, 5)
    assert fibcore("check")[0] == 0
    assert json.loads(fibcore("check", "--json")[1]) == {"good": True, "problems": []}


@pytest.mark.processes
@pytest.mark.usefixtures("root")
def test_check_warns_of_a_database_in_memory(fibcore: Fibcore, tmp_path: Path) -> None:
    with mounted(tmp_path / "memory"):
        edit(tmp_path, "FIB_STATE=memory/x.db")
        status, output, _ = fibcore("check")
    assert status == 0
    assert "warning: The database is less durable than this server promises: with " in output
    assert "a restart of the machine loses all of it" in output


def test_check_has_a_line_for_each_invalid_setting(
    fibcore: Fibcore, port: int, tmp_path: Path
) -> None:
    edit(tmp_path, f"FIB_PROT={port}")
    edit(tmp_path, "FIB_SYNCHRONOUS=fast # indeed")
    status, output, problems = fibcore("check")
    assert (status, output) == (os.EX_CONFIG, "")
    file = f"fibcore: {tmp_path}/fibcore.conf, line"
    assert problems.splitlines() == [
        f"{file} 2: FIB_PROT is not a setting. Did you mean FIB_PORT? {END}",
        f"{file} 3: FIB_SYNCHRONOUS is 'fast'; it must be one of full, normal, off. {END}",
    ]


def test_check_has_a_line_for_the_port_and_one_for_the_store(
    fibcore: Fibcore, port: int, tmp_path: Path
) -> None:
    (tmp_path / "x.db").write_text("damaged")
    (tmp_path / "file").touch()
    edit(tmp_path, "FIB_STATE=x.db")
    with socket.create_server(("127.0.0.1", port)):
        status, _, problems = fibcore("check")
    assert status == os.EX_CONFIG
    in_use, invalid = problems.splitlines()
    assert f"FIB_PORT={port} at 127.0.0.1 is in use by another program" in in_use
    assert f"{tmp_path}/x.db is invalid: file is not a database" in invalid
    edit(tmp_path, "FIB_STATE=file/x.db")
    status, _, problems = fibcore("check")
    assert status == os.EX_CONFIG
    assert f"{tmp_path}/file/x.db can't be used: {tmp_path}/file is not a folder" in problems


def test_check_rejects_an_index_past_the_largest(fibcore: Fibcore, tmp_path: Path) -> None:
    put(fibcore, tmp_path, 7)
    edit(tmp_path, "FIB_MAX_INDEX=6")
    status, _, problem = fibcore("check")
    assert status == os.EX_CONFIG
    assert "x.db is at index 7, past FIB_MAX_INDEX=6" in problem
    edit(tmp_path, "FIB_MAX_INDEX=7")
    assert fibcore("check")[0] == 0
    put(fibcore, tmp_path, MAX_EXACT_INDEX + 1)
    status, _, problem = fibcore("check")
    assert status == os.EX_CONFIG
    assert "the largest in exact arithmetic" in problem


@pytest.mark.processes
@pytest.mark.parametrize("refused", ["x.db.lock", "."])
def test_check_names_a_file_that_this_user_may_not_use(
    fibcore: Fibcore, tmp_path: Path, refused: str
) -> None:
    put(fibcore, tmp_path, 5)
    path = tmp_path / refused
    (tmp_path / "x.db.lock").touch()
    mode = path.stat().st_mode & 0o777
    path.chmod(0o500 if path.is_dir() else 0)
    # root may use any file; without these capabilities permissions apply to it, too.
    limits = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
    asked = (*(limits if os.geteuid() == 0 else ()), *command("check"))
    done = subprocess.run(asked, capture_output=True, text=True, timeout=PATIENCE)
    path.chmod(mode)
    assert (done.returncode, done.stderr.count("\n")) == (os.EX_CONFIG, 1)
    assert f"This user may not use {path}: permission denied. Give this user" in done.stderr


def test_check_only_reports_an_engine_that_is_unavailable(fibcore: Fibcore, tmp_path: Path) -> None:
    """A service starts even if its engine is not running yet."""
    edit(tmp_path, f"FIB_STORE=etcd://127.0.0.1:{free_port()}")
    status, output, problem = fibcore("check")
    assert (status, output.count("\n"), problem.count("\n")) == (0, 1, 1)
    assert "is unavailable" in problem


@pytest.mark.processes
def test_check_passes_beside_the_server_of_its_own_folder(
    fibcore: Fibcore, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen(
        command("serve"), stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as server:
        try:
            assert server.stderr is not None
            assert any(b"listening at" in line for line in server.stderr)
            assert fibcore("check")[0] == 0
            (tmp_path / "other").mkdir()
            edit(tmp_path / "other", f"FIB_PORT={port}")
            monkeypatch.chdir(tmp_path / "other")
            assert fibcore("check")[0] == os.EX_CONFIG
        finally:
            server.kill()


def test_config_shows_the_value_and_the_source_of_each_setting(
    fibcore: Fibcore, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIB_HOST", "0.0.0.0")
    edit(tmp_path, "FIB_STORE=redis://:Zebra9@host/0")
    status, output, problem = fibcore("config")
    assert (status, problem) == (0, "")
    found = dict(line.split(maxsplit=1) for line in output.splitlines())
    assert found["FIB_HOST"].split(maxsplit=1) == ["0.0.0.0", "environment"]
    assert found["FIB_PORT"].split(maxsplit=1) == [str(port), f"{tmp_path}/fibcore.conf, line 1"]
    assert found["FIB_STORE"].split()[0] == "redis://host/0"
    assert found["FIB_MAX_INDEX"].split() == ["10000000", "default"]
    assert found["FIB_SYNCHRONOUS"].split() == ["full", "default"]
    facts = json.loads(fibcore("config", "--json")[1])
    assert set(facts) == set(found)
    assert facts["FIB_HOST"] == {"value": "0.0.0.0", "source": "environment"}


def test_config_prints_invalid_settings_as_well(fibcore: Fibcore, tmp_path: Path) -> None:
    edit(tmp_path, "FIB_PORT=abc")
    status, output, problem = fibcore("config")
    assert status == os.EX_CONFIG
    assert re.search(rf"FIB_PORT +abc +{tmp_path}/fibcore.conf, line 2", output)
    assert problem.startswith(f"fibcore: {tmp_path}/fibcore.conf, line 2: FIB_PORT is 'abc'; ")
