"""The command beside a running server."""

import os
from pathlib import Path

import pytest

from fibcore.problems import typed
from fibcore.stores import sqlite_file
from tests.command.conftest import Fibcore, rows
from tests.support.servers import ServerProcess

# Beside a server


@pytest.mark.processes
def test_a_served_database_can_be_shown_verified_and_copied(
    server: ServerProcess, fibcore: Fibcore, tmp_path: Path
) -> None:
    for index in range(1, 6):
        assert server.client.get("/next").index == index
        status, output, _ = fibcore("show")
        assert status == 0
        assert rows(output)["index"] == str(index)
        assert rows(output)["served by"] == f"process {server.pid}"
        assert fibcore("verify")[0] == 0
        assert fibcore("backup", tmp_path / "backup.db")[0] == 0
        assert sqlite_file.verify_file(tmp_path / "backup.db") == index


@pytest.mark.processes
def test_a_served_database_cannot_be_set_or_restored(
    server: ServerProcess, fibcore: Fibcore, tmp_path: Path
) -> None:
    sqlite_file.create(tmp_path / "backup.db", 50)
    assert server.client.get("/next").index == 1
    for arguments in (("set-index", 9), ("restore", tmp_path / "backup.db")):
        status, output, complaint = fibcore(*arguments)
        assert (status, output) == (os.EX_TEMPFAIL, "")
        assert f"in use by process {server.pid}. Nothing has been changed." in complaint
        assert f"{typed('supervisorctl stop')} 'web:*'" in complaint
    assert server.client.get("/next").index == 2
