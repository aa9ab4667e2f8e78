"""The part inside supervisord: it holds the socket, and kills a hanging watchdog."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from supervisor import events
from supervisor.states import ProcessStates

from fibcore.appliance.heartbeat import beat_of
from supervise.extension import Extension
from supervise.liveness import is_idle
from tests.faults.server_variants import leaves_its_socket_to_a_child, variant
from tests.support.supervised import Supervised
from tests.support.waiting import states, until, until_ended


def kill_all_at_one_moment(appliance: Supervised) -> None:
    """supervisord notices the end of all its processes before it can restart one."""
    os.kill(appliance.pid, signal.SIGSTOP)
    children = appliance.children()
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    until_ended(*children)
    os.kill(appliance.pid, signal.SIGCONT)


@pytest.mark.processes
def test_the_socket_stays_open_while_no_process_runs() -> None:
    """supervisord can't bind the address again: a child of a killed server has the socket."""
    with Supervised(command=variant(leaves_its_socket_to_a_child)) as appliance:
        appliance.wait_until_all_run()
        assert appliance.client.get("/next").index == 1
        closed = appliance.log("supervisord").text.count("Closing socket")
        kill_all_at_one_moment(appliance)
        assert appliance.client.get("/next").index == 2
        appliance.wait_until_all_run()
        assert appliance.log("supervisord").text.count("Closing socket") == closed


@pytest.mark.processes
def test_without_the_extension_supervisord_would_end() -> None:
    appliance = Supervised(command=variant(leaves_its_socket_to_a_child))
    appliance.take_away_the_extension()
    with appliance:
        appliance.wait_until_all_run()
        assert appliance.client.get("/next").index == 1
        kill_all_at_one_moment(appliance)
        until(appliance.has_ended, "supervisord ends")
        assert "Address already in use" in (appliance.folder / "terminal").read_text()


@pytest.mark.processes
def test_stopping_both_closes_the_socket_and_a_start_opens_it() -> None:
    with Supervised() as appliance:
        appliance.wait_until_all_run()
        appliance.supervisorctl("stop", "web:*")
        with pytest.raises(ConnectionRefusedError):
            appliance.get("/current")
        appliance.supervisorctl("start", "web:*")
        assert appliance.get("/next") == '{"next": 1}'
        # All processes again, on the same address.
        appliance.log("supervisord").skip()
        appliance.supervisorctl("reload")
        appliance.log("supervisord").expect("spawned: 'web_1'")
        assert appliance.get("/next") == '{"next": 1}'


class Loaded:
    """The extension in a fake supervisord, with simulated time."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.now = 0.0
        self.groups: dict[str, Any] = {}
        logger = SimpleNamespace(critical=self.said.append)
        options = SimpleNamespace(logger=logger)
        supervisord = SimpleNamespace(options=options, process_groups=self.groups)
        self.extension = Extension(supervisord, clock=lambda: self.now)

    def watch(self, pid: int) -> None:
        process = SimpleNamespace(pid=pid)
        self.groups["watchdog"] = SimpleNamespace(processes={"watchdog": process})

    def tick(self, passed: float = 5.0) -> None:
        self.now += passed
        events.notify(events.Tick5Event(0, None))


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Loaded:
    monkeypatch.setattr(events, "callbacks", [])
    return Loaded()


def test_systemd_is_notified_once_that_clients_can_connect(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    group = SimpleNamespace(
        config=SimpleNamespace(name="web"),
        socket_manager=SimpleNamespace(get_socket=object),
        processes={"web_0": SimpleNamespace(state=ProcessStates.STARTING)},
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        for _ in range(2):
            process = SimpleNamespace(group=group, backoff=0)
            events.notify(events.ProcessStateStartingEvent(process, ProcessStates.STOPPED))
        assert systemd.recv(100) == b"READY=1"
        with pytest.raises(BlockingIOError):
            systemd.recv(100)
    assert not loaded.said


BEATS = "for _ in sys.stdin:\n  heartbeat.beat()"


@contextmanager
def watchdog(does: str) -> Iterator[subprocess.Popen[bytes]]:
    begin = (
        "import sys; from fibcore.appliance.heartbeat import Heartbeat\n"
        "heartbeat = Heartbeat(lambda: 2.0)"
    )
    program = f"{begin}\n{does}\ninput()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.processes
def test_a_stopped_watchdog_is_killed_at_the_second_tick(loaded: Loaded) -> None:
    with watchdog(BEATS) as process:
        os.kill(process.pid, signal.SIGSTOP)
        until(lambda: states(process.pid) == {"T"}, "it is stopped")
        loaded.watch(process.pid)
        for _ in range(2):
            assert process.poll() is None
            loaded.tick()
        assert process.wait() == -signal.SIGKILL
        assert f"fibcore: the watchdog (pid {process.pid}) is stopped and is" in loaded.said[0]
        loaded.tick()
        assert len(loaded.said) == 1


@pytest.mark.processes
def test_only_a_hanging_watchdog_is_killed(loaded: Loaded) -> None:
    with watchdog(BEATS) as process:
        loaded.watch(process.pid)
        for _ in range(20):
            before = beat_of(process.pid)
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
            until(lambda: beat_of(process.pid) != before, "it beats")  # noqa: B023
            loaded.tick()
        assert loaded.said == []
        until(lambda: is_idle(process.pid), "it waits, as if in a deadlock")
        loaded.tick(3600.0)  # For example after a suspend: a beat may be on its way.
        assert process.poll() is None
        loaded.tick()
        assert process.wait() == -signal.SIGKILL
        assert "hangs and is killed" in loaded.said[0]


class Group:
    """A group of supervisord's with a socket that counts its references."""

    def __init__(self) -> None:
        self.config = SimpleNamespace(name="web")
        self.references: list[object] = []
        self.socket_manager = SimpleNamespace(get_socket=self._get_socket)
        self.processes = {number: self._process() for number in range(2)}

    def _process(self) -> Any:
        config = SimpleNamespace(exitcodes=[65, 78])
        return SimpleNamespace(
            group=self, config=config, state=ProcessStates.STOPPED, exitstatus=None
        )

    def _get_socket(self) -> object:
        self.references.append(object())
        return self.references[-1]

    def turn(self, number: int, state: int, exitstatus: int | None = None) -> None:
        process = self.processes[number]
        process.state, process.exitstatus = state, exitstatus
        events.notify(events.ProcessStateEvent(process, ProcessStates.STOPPED))


@pytest.mark.parametrize(
    ("state", "exitstatus", "is_held"),
    [
        (ProcessStates.STARTING, None, True),
        (ProcessStates.RUNNING, None, True),
        (ProcessStates.BACKOFF, None, True),
        (ProcessStates.STOPPING, None, True),
        (ProcessStates.EXITED, -1, True),
        (ProcessStates.EXITED, 0, True),
        (ProcessStates.EXITED, 65, False),
        (ProcessStates.STOPPED, None, False),
        (ProcessStates.FATAL, None, False),
    ],
)
def test_the_socket_is_held_unless_all_have_exited_for_good(
    loaded: Loaded, state: int, exitstatus: int | None, is_held: bool
) -> None:
    extension = loaded.extension
    group = Group()
    group.turn(0, ProcessStates.STARTING)
    assert len(extension._sockets) == 1
    group.turn(0, state, exitstatus)
    group.turn(1, ProcessStates.EXITED, 78)
    assert bool(extension._sockets) == is_held
    assert (len(group.references), loaded.said) == (1, [])


def test_removing_the_group_or_stopping_supervisord_closes_the_socket(loaded: Loaded) -> None:
    extension = loaded.extension
    group = Group()
    group.turn(0, ProcessStates.RUNNING)
    events.notify(events.ProcessGroupRemovedEvent("other"))
    assert extension._sockets
    events.notify(events.ProcessGroupRemovedEvent("web"))
    assert not extension._sockets
    group.turn(0, ProcessStates.RUNNING)
    assert extension._sockets
    events.notify(events.SupervisorStoppingEvent())
    group.turn(0, ProcessStates.STOPPING)
    assert not extension._sockets


def test_an_error_in_the_extension_is_only_logged(loaded: Loaded) -> None:
    group = Group()
    group.socket_manager = SimpleNamespace()
    group.turn(0, ProcessStates.RUNNING)
    assert "AttributeError" in loaded.said[0]
