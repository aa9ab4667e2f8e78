"""The watchdog without a supervisord: which processes it kills, and which it never kills.

Time is simulated: it passes as soon as the processes have reached the state.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from fibcore.appliance import takeover_history
from fibcore.appliance.heartbeat import Beat, beat_of
from fibcore.stores.files import lock_path
from supervise import watchdog
from supervise.liveness import (
    STOPPED_SECONDS,
    Liveness,
    Sample,
    is_idle,
    sample,
)
from supervise.watchdog import POLL_SECONDS, Watchdog, name_in
from tests.support.waiting import until

# The silence of a process.

SLEEPS: Final = Sample(started=7, state="S", used=1.0)


def looks(silence: Liveness, now: Sample, *, idle: bool, using: float = 0.0) -> int:
    """Poll without a beat until it must be killed; return how often, at most 1000 times."""
    for count in range(1, 1001):
        now = now._replace(used=now.used + using)
        silence.update(now, None, POLL_SECONDS, lambda: idle)
        if silence.reason:
            return count
    return 1000


def beaten(patience: float = 2.0) -> Liveness:
    silence = Liveness(SLEEPS)
    silence.update(SLEEPS, patience, POLL_SECONDS, lambda: True)
    assert silence.reason is None
    return silence


@pytest.mark.parametrize(
    ("state", "is_idle", "using", "silent"),
    [
        ("S", True, 0.0, 2.0 / POLL_SECONDS),
        # The silence of a running process is the processor time that it uses.
        ("R", False, POLL_SECONDS, 2.0 / POLL_SECONDS),
        ("R", False, POLL_SECONDS / 4, 4 * 2.0 / POLL_SECONDS),
        # A process that waits for the processor, the disk or a debugger is not silent.
        *((state, False, 0.0, 1000) for state in "RDt"),
    ],
)
def test_silence_is_measured_in_processor_time(
    state: str, is_idle: bool, using: float, silent: float
) -> None:
    assert looks(beaten(), SLEEPS._replace(state=state), idle=is_idle, using=using) == silent


def test_one_beat_ends_the_silence() -> None:
    silence = beaten()
    for _ in range(10):
        silence.update(SLEEPS, None, 1.9, lambda: True)
        assert silence.reason is None
        silence.update(SLEEPS, 2.0, 1.9, lambda: True)


def test_a_process_that_asked_for_more_time_has_it_until_a_beat() -> None:
    silence = beaten(30.0)
    assert looks(silence, SLEEPS, idle=True) == 30 / POLL_SECONDS
    silence.update(SLEEPS, 2.0, POLL_SECONDS, lambda: True)
    assert looks(silence, SLEEPS, idle=True) == 2 / POLL_SECONDS


def test_a_standby_may_be_silent() -> None:
    assert looks(Liveness(SLEEPS), SLEEPS, idle=True) == 1000


@pytest.mark.parametrize("silence", [Liveness(SLEEPS), beaten(30.0)], ids=["standby", "starting"])
def test_a_stopped_process_is_killed_whatever_it_was_doing(silence: Liveness) -> None:
    stopped = SLEEPS._replace(state="T")
    assert looks(silence, stopped, idle=True) == STOPPED_SECONDS / POLL_SECONDS
    assert silence.reason == "is stopped"


# Which processes it kills.

DEADLOCKED: Final = "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()"
LOOPS: Final = "while True: pass"
STARTS: Final = "import time\ntime.sleep(3600)"


class Pack:
    """Processes as supervisord would have started them, and a watchdog that looks at them."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "fibcore.db"
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.now = 0.0
        self.watchdog = self.another()

    def another(self) -> Watchdog:
        return Watchdog(
            ("web", "backup"),
            database=self.database,
            children=lambda: list(self.processes),
            clock=lambda: self.now,
        )

    def start(self, does: str, *, beats: float | None = 2.0, group: str = "web") -> int:
        """Start one that beats at most once, and then runs this code."""
        prepare = (
            f"from fibcore.appliance.heartbeat import Heartbeat\n"
            f"heartbeat = Heartbeat(lambda: {beats})\n"
            f"heartbeat.beat()\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", f"{prepare if beats else ''}print(flush=True)\n{does}"],
            env=os.environ
            | {
                "SUPERVISOR_GROUP_NAME": group,
                "SUPERVISOR_PROCESS_NAME": "web_0" if group == "web" else group,
            }
            | {"OPTIONS": "a=b=c"},
            stdout=subprocess.PIPE,
        )
        self.processes[process.pid] = process
        assert process.stdout is not None
        process.stdout.readline()
        return process.pid

    def look(self, passed: float = POLL_SECONDS) -> None:
        self.now += passed
        self.watchdog.poll()

    def is_killed(self, pid: int) -> bool:
        return self.processes[pid].poll() == -signal.SIGKILL

    def ends(self, pid: int) -> None:
        """Poll until it is killed."""

        def killed() -> bool:
            self.look()
            return self.is_killed(pid)

        until(killed, "it is ended")

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def pack(tmp_path: Path) -> Iterator[Pack]:
    with contextlib.closing(Pack(tmp_path)) as pack:
        yield pack


@pytest.mark.processes
@pytest.mark.parametrize("hangs", [DEADLOCKED, LOOPS], ids=["deadlock", "endless loop"])
def test_only_a_hanging_server_is_killed(
    pack: Pack, hangs: str, caplog: pytest.LogCaptureFixture
) -> None:
    server, standby = pack.start(hangs, beats=0.5), pack.start(STARTS, beats=None)
    until(lambda: is_idle(server) == (hangs is DEADLOCKED), "it hangs")
    pack.ends(server)
    assert not pack.is_killed(standby)
    assert takeover_history.record(pack.database, 0.1).after == "hung"
    assert f"web:web_0 (pid {server}), the server, hangs" in caplog.text
    assert "No acknowledged step is lost; the other process resumes" in caplog.text


@pytest.mark.processes
@pytest.mark.parametrize(
    ("beats", "group", "role"),
    [(2.0, "web", "server"), (None, "web", "standby"), (None, "backup", "backup")],
)
def test_a_stopped_process_is_killed(
    pack: Pack, beats: float | None, group: str, role: str, caplog: pytest.LogCaptureFixture
) -> None:
    pid = pack.start(STARTS, beats=beats, group=group)
    pack.look()
    os.kill(pid, signal.SIGSTOP)
    until(lambda: (now := sample(pid)) is not None and now.state == "T", "it is stopped")
    pack.ends(pid)
    assert f"(pid {pid}), the {role}, is stopped and is killed" in caplog.text


@pytest.mark.processes
def test_a_new_watchdog_kills_a_server_that_hung_before(pack: Pack) -> None:
    """It sees the last beat, and its limit."""
    server, standby = pack.start(DEADLOCKED), pack.start(STARTS, beats=None)
    until(lambda: is_idle(server), "it hangs")
    pack.watchdog = pack.another()
    for _ in range(int(2.0 / POLL_SECONDS)):
        pack.look()
    assert not pack.is_killed(server)
    pack.ends(server)
    assert not pack.is_killed(standby)


# How it samples processes.


@pytest.mark.processes
def test_a_process_has_the_name_that_supervisord_gave_it(pack: Pack) -> None:
    pid = pack.start(STARTS, beats=None)
    assert name_in({"other", "web"}, pid) == "web:web_0"
    assert name_in({"we"}, pid) is None
    pack.processes[pid].kill()
    pack.processes[pid].wait()
    assert name_in({"web"}, pid) is None
    assert sample(pid) is None


def test_a_process_is_busy_if_one_of_its_threads_is() -> None:
    ready, done = threading.Event(), threading.Event()

    def loop() -> None:
        ready.set()
        while not done.is_set():
            pass

    thread = threading.Thread(target=loop)
    thread.start()
    ready.wait()
    try:
        until(lambda: not is_idle(os.getpid()), "a thread of it runs")
    finally:
        done.set()
        thread.join()


# The whole program.


def test_it_polls_and_beats_twice_a_second(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = tmp_path / "fibcore.db"
    monkeypatch.setenv("FIB_STATE", str(database))
    slept: list[float] = []
    beats: list[Beat | None] = []

    class EnoughError(Exception):
        pass

    def poll(self: Watchdog) -> None:
        assert (self._groups, self._database) == (["web", "backup"], database)
        beats.append(beat_of(os.getpid()))
        if len(beats) == 3:
            raise EnoughError

    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(Watchdog, "poll", poll)
    caplog.set_level(logging.INFO, "watchdog")
    with pytest.raises(EnoughError):
        watchdog.main(["web", "backup"])
    assert slept == [POLL_SECONDS] * 3
    assert beats == [Beat(number, watchdog.SILENCE_SECONDS) for number in (1, 2, 3)]
    assert beat_of(os.getpid()) is None
    assert "watching the processes of web and backup" in caplog.text
    assert not lock_path(database).exists()
