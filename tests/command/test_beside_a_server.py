"""The command beside a server that runs."""

import os
import signal
from pathlib import Path

import pytest

from fibcore.problems import typed
from fibcore.stores import files, sqlite_file
from tests.command.conftest import Fibcore, rows
from tests.support.servers import ServerProcess, listening_socket
from tests.support.supervised import Supervised
from tests.support.waiting import until

# Beside a server


@pytest.mark.proves(
    "person",
    "beside a server, `show`, `verify` and `backup` work, `restore` and `set-index` change nothing",
)
@pytest.mark.processes
def test_a_database_that_is_served_is_shown_verified_and_copied(
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


@pytest.mark.proves("person", "beside a server, `show`, `verify`…")
@pytest.mark.proves("start", "`set-index`", "a server that serves")
@pytest.mark.processes
def test_a_database_that_is_served_is_not_set_nor_restored(
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


@pytest.mark.processes
def test_a_standby_that_has_taken_over_is_respected_too(database: Path, fibcore: Fibcore) -> None:
    with listening_socket() as listener:
        first = ServerProcess(database, listener).wait_until_it_serves()
        with ServerProcess(database, listener, name="second") as second:
            second.wait_until_it_stands_by()
            first.process.kill()
            first.wait()
            second.wait_until_it_serves()
            assert fibcore("set-index", 9)[0] == os.EX_TEMPFAIL
            assert second.client.get("/next").index == 1


@pytest.mark.processes
def test_without_its_wal_it_goes_on_where_it_stood_by_a_command(fibcore: Fibcore) -> None:
    """It is invalid until then."""
    with Supervised() as appliance:
        for _ in range(5):
            appliance.get("/next")
        both = appliance.server, appliance.standby
        # So that no other server is started until the WAL is gone.
        os.kill(appliance.pid, signal.SIGSTOP)
        for pid in reversed(both):
            os.kill(pid, signal.SIGKILL)
        files.wal_path(appliance.database).unlink()
        os.kill(appliance.pid, signal.SIGCONT)
        for name in ("web_0", "web_1"):
            appliance.log(name).expect("shows that index 5 was committed.*fibcore set-index 5")
        until(lambda: _states(appliance) == {"EXITED"}, "both have ended for good")
        status, _, complaint = fibcore("verify", "--database", appliance.database)
        assert status == os.EX_DATAERR
        way_out = typed(f"fibcore set-index 5 --database {appliance.database}")
        assert f"with no step lost: {way_out}." in complaint
        assert fibcore("set-index", "--database", appliance.database, 5)[0] == 0
        appliance.supervisorctl("start", "web:*")
        assert appliance.client.get("/next").headers["ETag"] == '"6"'


def _states(appliance: Supervised) -> set[str]:
    return {
        process.state for name, process in appliance.processes().items() if name.startswith("web:")
    }
