"""``fibcore check`` and ``fibcore config``: problems before a start, and sources of settings."""

import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from fibcore import MAX_EXACT_INDEX
from fibcore.appliance.settings import FILE, Settings
from fibcore.stores import DurabilityWarning, Risk, file_system
from fibcore.stores.files import lock_path
from tests.command.conftest import Fibcore, make
from tests.support.ports import free_port
from tests.support.servers import ServerProcess


@pytest.fixture
def port(tmp_path: Path) -> int:
    """The configured port, which is free."""
    port = free_port()
    (tmp_path / FILE).write_text(f"FIB_PORT={port}\n")
    return port


@pytest.fixture(autouse=True)
def on_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Databases of tests may be in memory, which causes a warning."""
    monkeypatch.setattr(file_system, "warning_at", lambda _: None)


@pytest.mark.usefixtures("port")
def test_check_warns_of_a_database_in_memory(
    fibcore: Fibcore, monkeypatch: pytest.MonkeyPatch
) -> None:
    risk = DurabilityWarning("the file system tmpfs", Risk.REBOOT)
    monkeypatch.setattr(file_system, "warning_at", lambda _: risk)
    status, output, _ = fibcore("check")
    assert status == 0
    assert (
        "warning: The database is less durable than this server promises: with the file" in output
    )


def edit(folder: Path, line: str) -> None:
    with (folder / FILE).open("a") as file:
        file.write(f"{line}\n")


def test_check_names_the_address_and_the_store(fibcore: Fibcore, port: int, tmp_path: Path) -> None:
    good = f"A server can start at 127.0.0.1, port {port}: {tmp_path}/var/fibcore.db\n"
    assert fibcore("check") == (0, good, "")
    assert not (tmp_path / "var").exists()
    make(tmp_path / "x.db", 5)
    edit(tmp_path, "FIB_STATE=x.db")
    assert fibcore("check")[0] == 0
    assert json.loads(fibcore("check", "--json")[1]) == {"good": True, "problems": []}


def test_check_has_a_line_for_each_invalid_setting(
    fibcore: Fibcore, port: int, tmp_path: Path
) -> None:
    edit(tmp_path, f"FIB_PROT={port}")
    edit(tmp_path, "FIB_SYNCHRONOUS=fast # indeed")
    status, output, complaints = fibcore("check")
    assert (status, output) == (os.EX_CONFIG, "")
    at, end = f"fibcore: {tmp_path}/{FILE}, line", "Nothing has been started or changed."
    assert complaints.splitlines() == [
        f"{at} 2: FIB_PROT is not a setting. Did you mean FIB_PORT? {end}",
        f"{at} 3: FIB_SYNCHRONOUS is 'fast'; it must be one of full, normal, off. {end}",
    ]


def test_check_has_a_line_for_port_permissions_and_store(
    fibcore: Fibcore, port: int, tmp_path: Path
) -> None:
    (tmp_path / "x.db").write_text("damaged")
    (tmp_path / "file").touch()
    edit(tmp_path, "FIB_STATE=x.db")
    with socket.create_server(("127.0.0.1", port)):
        status, _, complaints = fibcore("check")
    assert status == os.EX_CONFIG
    in_use, invalid = complaints.splitlines()
    assert f"FIB_PORT={port} at 127.0.0.1 is in use by another program" in in_use
    assert f"{tmp_path}/x.db is invalid: file is not a database" in invalid
    edit(tmp_path, "FIB_STATE=file/x.db")
    status, _, complaints = fibcore("check")
    assert status == os.EX_CONFIG
    assert f"{tmp_path}/file/x.db can't be used: {tmp_path}/file is not a folder" in complaints


def test_check_names_a_file_that_this_user_may_not_use(
    fibcore: Fibcore, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert port
    make(tmp_path / "x.db", 5)
    edit(tmp_path, "FIB_STATE=x.db")
    refused = [str(lock_path(tmp_path / "x.db"))]
    lock_path(tmp_path / "x.db").touch()
    # root may use any
    monkeypatch.setattr(os, "access", lambda path, _: str(path) not in refused)
    status, _, complaints = fibcore("check")
    assert (status, complaints.count("\n")) == (os.EX_CONFIG, 1)
    assert f"{refused[0]}" in complaints
    assert "This user may not use" in complaints
    problem = json.loads(fibcore("check", "--json")[1])["problems"][0]
    assert complaints == f"fibcore: {problem}\n"
    refused[:] = [str(tmp_path)]
    status, _, complaints = fibcore("check")
    assert (status, complaints.count("\n")) == (os.EX_CONFIG, 1)
    assert f"This user may not use {tmp_path}: permission denied" in complaints


def test_check_rejects_an_index_past_the_largest(
    fibcore: Fibcore, port: int, tmp_path: Path
) -> None:
    assert port
    make(tmp_path / "x.db", 7)
    edit(tmp_path, "FIB_STATE=x.db\nFIB_MAX_INDEX=6")
    status, _, complaints = fibcore("check")
    assert status == os.EX_CONFIG
    assert "x.db is at index 7, past FIB_MAX_INDEX=6" in complaints
    edit(tmp_path, "FIB_MAX_INDEX=7")
    assert fibcore("check")[0] == 0
    make(tmp_path / "x.db", MAX_EXACT_INDEX + 1)
    status, _, complaints = fibcore("check")
    assert status == os.EX_CONFIG
    assert "the largest in exact arithmetic" in complaints


def test_check_only_warns_about_an_engine_that_is_unavailable(
    fibcore: Fibcore, port: int, tmp_path: Path
) -> None:
    """A service starts even if its engine is not running yet."""
    assert port
    edit(tmp_path, f"FIB_STORE=etcd://127.0.0.1:{free_port()}")
    status, output, complaint = fibcore("check")
    assert (status, output.count("\n"), complaint.count("\n")) == (0, 1, 1)
    assert "is unavailable" in complaint


@pytest.mark.processes
def test_check_passes_beside_its_own_server(fibcore: Fibcore, port: int, tmp_path: Path) -> None:
    serve = (sys.executable, "-m", "fibcore", "serve")
    with subprocess.Popen(serve, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as server:
        try:
            assert server.stderr is not None
            assert any(b"listening at" in line for line in server.stderr)
            assert fibcore("check")[0] == 0
            # The control: a server of another folder.
            (tmp_path / "other").mkdir()
            os.chdir(tmp_path / "other")
            (tmp_path / "other" / FILE).write_text(f"FIB_PORT={port}\n")
            assert fibcore("check")[0] == os.EX_CONFIG
        finally:
            server.kill()


@pytest.mark.processes
def test_a_server_reads_the_file_of_its_folder(port: int, tmp_path: Path) -> None:
    """No command has to load it first."""
    edit(tmp_path, "FIB_LOG_FORMAT=json")
    with ServerProcess(tmp_path / "x.db") as server:
        server.log.expect(f'"listening".*:{port}')


def test_config_shows_the_source_of_each_setting(
    fibcore: Fibcore, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIB_HOST", "0.0.0.0")
    edit(tmp_path, "FIB_STORE=redis://:Zebra9@host/0")
    status, output, complaints = fibcore("config")
    assert (status, complaints) == (0, "")
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in output.splitlines()}
    assert set(rows) == {each.metadata["variable"] for each in fields(Settings)}
    assert rows["FIB_HOST"].split(maxsplit=1) == ["0.0.0.0", "environment"]
    assert rows["FIB_PORT"].split(maxsplit=1) == [str(port), f"{tmp_path}/{FILE}, line 1"]
    assert rows["FIB_STORE"].split(maxsplit=1) == ["redis://host/0", f"{tmp_path}/{FILE}, line 2"]
    assert rows["FIB_MAX_INDEX"].split(maxsplit=1) == ["10000000", "default"]
    assert rows["FIB_SYNCHRONOUS"].split(maxsplit=1) == ["full", "default"]
    facts = json.loads(fibcore("config", "--json")[1])
    assert facts["FIB_HOST"] == {"value": "0.0.0.0", "source": "environment"}


def test_config_prints_invalid_settings_as_well(
    fibcore: Fibcore, port: int, tmp_path: Path
) -> None:
    edit(tmp_path, "FIB_PORT=abc")
    status, output, complaints = fibcore("config")
    assert status == os.EX_CONFIG
    assert re.search(rf"FIB_PORT +abc +{tmp_path}/{FILE}, line 2", output)
    assert complaints.startswith(f"fibcore: {tmp_path}/{FILE}, line 2: FIB_PORT is 'abc'; ")
    assert str(port) not in output
