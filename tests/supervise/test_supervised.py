"""The appliance under a real supervisord: takeover, hangs, crashes, invalid settings, stops."""

import contextlib
import os
import re
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fibcore.stores import files
from tests.support.supervised import Supervised
from tests.support.waiting import until

pytestmark = pytest.mark.processes


@pytest.fixture
def own_appliance() -> Iterator[Supervised]:
    """A new appliance, which may be left in any state."""
    with Supervised() as appliance:
        yield appliance
        print(appliance.report())  # pytest shows it if the test fails


@pytest.fixture(scope="module")
def shared_appliance() -> Iterator[Supervised]:
    with Supervised() as appliance:
        yield appliance


@pytest.fixture
def appliance(shared_appliance: Supervised) -> Iterator[Supervised]:
    """A shared appliance, which must survive the test."""
    yield shared_appliance
    print(shared_appliance.report())


def test_a_watchdog_that_exits_is_restarted(appliance: Supervised) -> None:
    appliance.wait_until_all_run()
    watchdog = appliance.processes()["watchdog"].pid
    os.kill(watchdog, signal.SIGKILL)
    until(lambda: appliance.processes()["watchdog"].pid not in (0, watchdog), "there is another")
    index = appliance.client.get("/next").index
    server, standby = appliance.server, appliance.standby
    assert "elsewhere" not in appliance.log("web_0").text + appliance.log("web_1").text
    os.kill(server, signal.SIGSTOP)
    appliance.log("watchdog").expect(rf"web:web_. \(pid {server}\), the server, .*killed")
    assert appliance.index == index
    assert appliance.server == standby
    assert appliance.standby not in (server, standby)


def test_an_invalid_database_is_reported_by_supervisorctl() -> None:
    damaged = b"not a database, but something of value"
    appliance = Supervised()
    appliance.database.write_bytes(damaged)
    with appliance:
        for _ in range(2):
            appliance.log("supervisord").expect(r"exited: web_. \(exit status 65; expected\)")
        status = appliance.supervisorctl("status")
        for name in ("web_0", "web_1"):
            appliance.log(name).expect(rf"The database {appliance.database} is invalid")
            assert re.search(rf"^web:{name} +EXITED ", status, re.MULTILINE)
            assert "is invalid" in appliance.supervisorctl("tail", f"web:{name}")
        with pytest.raises(ConnectionRefusedError):
            appliance.get("/current")
        assert appliance.database.read_bytes() == damaged


def test_an_invalid_setting_is_reported_by_supervisorctl() -> None:
    with Supervised({"FIB_MAX_INDEX": "many"}) as appliance:
        for name in ("web_0", "web_1", "watchdog", "backup"):
            appliance.log(name).expect("FIB_MAX_INDEX is .many.; it must be")
        appliance.log("supervisord").expect(r"exited: web_. \(exit status 78; expected\)")
        appliance.log("supervisord").expect(r"exited: web_. \(exit status 78; expected\)")
        states = {name: each.state for name, each in appliance.processes().items()}
        assert states["web:web_0"] == states["web:web_1"] == "EXITED"


def test_a_second_supervisord_logs_why_it_does_not_serve(own_appliance: Supervised) -> None:
    """Its clients get no answer, as another one serves the database."""
    server = own_appliance.server
    with Supervised({"FIB_STATE": str(own_appliance.database)}) as second:
        for name in ("web_0", "web_1"):
            second.log(name).expect(
                rf"Process {server} listens elsewhere: another appliance serves this database, and "
                rf"until it stops, the clients of this one get no answers"
            )
        assert own_appliance.get("/next") == '{"next": 1}'
        # When the other has exited, its clients get answers that continue from there.
        assert own_appliance.stop() == 0
        assert second.get("/next") == '{"next": 1}'
        assert second.get("/next") == '{"next": 2}'


def test_after_ctrl_c_it_continues_from_the_same_index(appliance: Supervised) -> None:
    index = appliance.client.get("/next").index
    assert appliance.stop(signal.SIGINT) == 0
    with pytest.raises(ConnectionRefusedError):
        appliance.get("/current")
    appliance.start()
    assert appliance.index == index


def test_supervisorctl_needs_no_options_in_the_folder(appliance: Supervised) -> None:
    index = appliance.client.get("/next").index
    appliance.wait_until_all_run()
    before = appliance.processes()
    assert list(before) == ["backup", "watchdog", "web:web_0", "web:web_1"]
    assert "web:web_1: started" in appliance.supervisorctl("restart", "web:*")
    assert appliance.client.get("/next").index == index + 1
    after = appliance.processes()
    assert before["watchdog"] == after["watchdog"]
    assert before["web:web_0"].pid != after["web:web_0"].pid


def open_files(pid: int) -> set[str]:
    """The targets of its descriptors, except those that it closes meanwhile."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(str(descriptor.readlink()))
    return found


def test_only_the_server_is_on_the_network(appliance: Supervised) -> None:
    appliance.get("/health")
    appliance.wait_until_all_run()
    socket_mode = (appliance.folder / "var" / "supervisor.sock").stat().st_mode
    assert socket_mode & 0o777 == 0o700
    for path in (appliance.database, Path(f"{appliance.database}.lock")):
        assert path.stat().st_mode & 0o777 == 0o600
    pids = [appliance.pid, *(process.pid for process in appliance.processes().values())]
    inodes = {
        match[1]
        for pid in pids
        for each in open_files(pid)
        if (match := re.match(r"socket:\[(\d+)\]", each))
    }
    ports = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, database, *_, inode = line.split()[:10]
            if inode in inodes and database != "01":
                ports.add(int(local.rpartition(":")[2], 16))
    assert ports == {appliance.port}


def test_a_backup_copy_follows_the_database(appliance: Supervised) -> None:
    backup_copy = files.backup_copy_path(appliance.database)
    for _ in range(2):
        index = appliance.client.get("/next").index
        until(lambda: _index_of(backup_copy) == index, f"the backup copy stands at {index}")  # noqa: B023
    assert backup_copy.stat().st_mode & 0o777 == 0o600


def _index_of(path: Path) -> int | None:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            (index,) = connection.execute("SELECT n FROM sequence").fetchone()
    except sqlite3.OperationalError:
        return None
    assert isinstance(index, int)
    return index


def test_supervisorctl_tail_shows_the_log_of_each_process(appliance: Supervised) -> None:
    for name, text in (
        ("backup", "is copied every"),
        ("watchdog", "watching the processes of"),
        ("web:web_0", "starting: "),
        ("web:web_1", "starting: "),
    ):
        until(lambda: text in appliance.supervisorctl("tail", name), f"{name} says so")  # noqa: B023
