"""The appliance under a real supervisord: takeovers, hangs, the socket, the backup, stops.

Whatever happens to a process, connections wait until the next one serves, and none is refused.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.supervise.clients import Clients
from tests.support.invalid_databases import change
from tests.support.raw_clients import LONG_INDEX, slow_reader
from tests.support.supervised import Supervised
from tests.support.waiting import until, until_ended

pytestmark = pytest.mark.processes

HANGS_AT_A_SIGNAL: Final = """
import runpy, signal

def hang(*_):
    while True:
        pass

signal.signal(signal.SIGRTMIN, hang)
runpy.run_module("web", run_name="__main__", alter_sys=True)
"""
"""The server, whose event loop hangs when it gets this signal."""


@pytest.fixture(scope="module")
def shared_appliance() -> Iterator[Supervised]:
    with Supervised(command=[sys.executable, "-c", HANGS_AT_A_SIGNAL]) as appliance:
        yield appliance


@pytest.fixture
def appliance(shared_appliance: Supervised) -> Iterator[Supervised]:
    """A shared appliance, which must survive the test."""
    shared_appliance.wait_until_all_run()
    yield shared_appliance
    print(shared_appliance.report())  # pytest shows it if the test fails


def fibcore(appliance: Supervised, *arguments: str) -> str:
    """The output of the command for the database."""
    return subprocess.run(
        [sys.executable, "-m", "fibcore", *arguments, "--database", appliance.database],
        cwd=appliance.folder,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def test_the_standby_takes_over_from_a_killed_server_which_is_restarted(
    appliance: Supervised,
) -> None:
    with Clients(appliance.client) as clients:
        for _ in range(2):
            server, standby = appliance.server, appliance.standby
            clients.wait_for_steps()
            os.kill(server, signal.SIGKILL)
            clients.wait_for_steps()
            assert appliance.server == standby
            assert appliance.standby not in (server, standby)
    clients.check()


def test_connections_wait_while_no_process_runs(appliance: Supervised) -> None:
    """supervisord notices the end of all its processes before it can restart one."""
    with Clients(appliance.client) as clients:
        clients.wait_for_steps()
        os.kill(appliance.pid, signal.SIGSTOP)
        children = appliance.children()
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        until_ended(*children)
        os.kill(appliance.pid, signal.SIGCONT)
        clients.wait_for_steps()
    clients.check()
    assert not set(children) & {each.pid for each in appliance.processes().values()}


@pytest.mark.parametrize("way", [signal.SIGRTMIN, signal.SIGSTOP], ids=["hangs", "is stopped"])
def test_the_next_server_serves_when_one_hangs_or_is_stopped(
    appliance: Supervised, way: signal.Signals
) -> None:
    with Clients(appliance.client) as clients:
        server = appliance.server
        appliance.standby  # noqa: B018  It is waited for.
        clients.wait_for_steps()
        # Until the watchdog has had its first beat the server has two minutes to start.
        appliance.log("watchdog").expect(rf"pid {server}\) serves")
        os.kill(server, way)
        clients.wait_for_steps()
        assert appliance.server != server
    clients.check()


@pytest.mark.parametrize("name", ["standby", "backup", "watchdog"])
def test_a_process_beside_the_server_that_is_stopped_runs_again(
    appliance: Supervised, name: str
) -> None:
    """It is continued or replaced, and the server goes on."""
    server, standby = appliance.server, appliance.standby
    stopped = standby if name == "standby" else appliance.processes()[name].pid
    os.kill(stopped, signal.SIGSTOP)

    def is_continued_or_gone() -> bool:
        with contextlib.suppress(FileNotFoundError):
            state = Path(f"/proc/{stopped}/stat").read_text().rpartition(")")[2].split()[0]
            return state not in "Tt"
        return True

    until(is_continued_or_gone, f"the {name} is not stopped any more")
    appliance.wait_until_all_run()
    assert appliance.server == server
    assert appliance.standby != 0


def test_restarts_one_after_the_other_refuse_no_connection(appliance: Supervised) -> None:
    """``supervisorctl restart`` of each server in turn, once the other is ready."""
    with Clients(appliance.client) as clients:
        for name in ("web:web_0", "web:web_1"):
            appliance.standby  # noqa: B018  It is waited for.
            clients.wait_for_steps()
            assert f"{name}: started" in appliance.supervisorctl("restart", name)
        clients.wait_for_steps()
    clients.check()


def test_a_stop_of_both_closes_the_socket_and_a_start_opens_it(appliance: Supervised) -> None:
    before = appliance.processes()
    index = appliance.client.get("/next").index
    appliance.supervisorctl("stop", "web:*")
    with pytest.raises(ConnectionRefusedError):
        appliance.get("/current")
    appliance.supervisorctl("start", "web:*")
    assert appliance.client.get("/next").index == index + 1
    after = appliance.processes()
    assert before["backup"] == after["backup"]
    assert before["web:web_0"].pid != after["web:web_0"].pid


def test_a_stop_ends_in_time_beside_a_client_that_does_not_read() -> None:
    """The server has 5 s by default, and supervisord would kill it after 10 s."""
    appliance = Supervised()
    fibcore(appliance, "set-index", str(LONG_INDEX))
    with appliance:
        with slow_reader(appliance.client):
            began = time.monotonic()
            assert appliance.stop(signal.SIGINT) == 0
            assert time.monotonic() - began < 10
        assert "killing" not in appliance.log("supervisord").text
        with pytest.raises(ConnectionRefusedError):
            appliance.get("/current")
        appliance.start()
        assert appliance.index == LONG_INDEX


def test_the_backup_copy_follows_the_database_and_is_verified(appliance: Supervised) -> None:
    copy = Path(f"{appliance.database}.backup")

    def facts() -> object:
        return json.loads(fibcore(appliance, "verify", "--json"))["backup_copy"]

    for _ in range(2):
        index = appliance.client.get("/next").index
        until(lambda: facts() == {"good": True, "index": str(index)}, "it follows", 60)  # noqa: B023
    assert copy.stat().st_mode & 0o777 == 0o600
    assert f"index            {index}\n" in fibcore(appliance, "show")


def open_files(pid: int) -> set[str]:
    """The targets of its descriptors, except those that it closes meanwhile."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(str(descriptor.readlink()))
    return found


def test_only_the_server_is_on_the_network(appliance: Supervised) -> None:
    appliance.get("/health")
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
            _, local, _, state, *_, inode = line.split()[:10]
            if inode in inodes and state != "01":
                ports.add(int(local.rpartition(":")[2], 16))
    assert ports == {appliance.port}


def test_supervisorctl_tail_shows_the_log_of_each_process(appliance: Supervised) -> None:
    for name, text in (("backup", "is copied every"), ("web:web_0", ""), ("web:web_1", "")):
        assert text in appliance.supervisorctl("tail", name)
    assert "serving from index" in "".join(
        appliance.supervisorctl("tail", f"web:web_{number}") for number in range(2)
    )


def test_an_invalid_database_is_reported_by_supervisorctl_and_not_copied() -> None:
    appliance = Supervised()
    fibcore(appliance, "set-index", "5")
    change(appliance.database, "UPDATE sequence SET n = 7")
    damaged = appliance.database.read_bytes()
    with appliance:
        for _ in range(2):
            appliance.log("supervisord").expect(r"exited: web_. \(exit status 65; expected\)")
        status = appliance.supervisorctl("status")
        for name in ("web_0", "web_1"):
            assert re.search(rf"^web:{name} +EXITED ", status, re.MULTILINE)
            told = appliance.supervisorctl("tail", f"web:{name}")
            assert f"The database {appliance.database} is invalid: its index does not" in told
        with pytest.raises(ConnectionRefusedError):
            appliance.get("/current")
        appliance.log("backup").expect("was not refreshed. The database .* is invalid")
        assert not Path(f"{appliance.database}.backup").exists()
        assert appliance.database.read_bytes() == damaged


def test_an_invalid_setting_is_reported_by_supervisorctl() -> None:
    with Supervised({"FIB_MAX_INDEX": "many"}) as appliance:
        for name in ("web_0", "web_1", "backup"):
            appliance.log(name).expect("FIB_MAX_INDEX is .many.; it must be")
        for _ in range(2):
            appliance.log("supervisord").expect(r"exited: web_. \(exit status 78; expected\)")
        states = {name: each.state for name, each in appliance.processes().items()}
        assert states["web:web_0"] == states["web:web_1"] == "EXITED"


def test_a_second_supervisord_on_a_database_logs_why_it_does_not_serve() -> None:
    """When the first has exited, its clients get answers that continue from there."""
    with Supervised() as first:
        server = first.server
        with Supervised({"FIB_STATE": str(first.database)}) as second:
            for name in ("web_0", "web_1"):
                second.log(name).expect(f"Process {server} listens elsewhere: another appliance")
            assert first.get("/next") == '{"next": 1}'
            assert first.stop() == 0
            assert second.get("/next") == '{"next": 1}'
            assert second.get("/next") == '{"next": 2}'


def test_systemd_is_notified_once_clients_can_connect() -> None:
    appliance = Supervised()
    path = appliance.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        systemd.settimeout(30)
        appliance.set("NOTIFY_SOCKET", str(path))
        with appliance:
            assert systemd.recv(100) == b"READY=1"
            assert appliance.get("/next") == '{"next": 1}'
            appliance.wait_until_all_run()
            systemd.setblocking(False)
            with pytest.raises(BlockingIOError):
                systemd.recv(100)
