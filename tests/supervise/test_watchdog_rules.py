"""The watchdog without processes: what it samples, and what it would kill."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fibcore.appliance.heartbeat import STARTING_SECONDS, Beat
from supervise import liveness, watchdog
from supervise.liveness import Liveness, Sample, is_idle, sample
from supervise.watchdog import POLL_SECONDS, Watchdog

# What it samples of a process.


def test_processor_time_includes_user_and_system() -> None:
    while (times := os.times()).system < 0.1 or times.user < times.system + 0.1:
        if times.system < 0.1:
            os.urandom(100_000)
    seen = sample(os.getpid())
    assert seen is not None
    assert seen.used == pytest.approx(times.user + times.system, abs=0.05)
    assert seen.state == "R"


@pytest.mark.processes
def test_a_process_is_identified_by_its_start_time() -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        seen = sample(process.pid)
        after = time.clock_gettime(time.CLOCK_BOOTTIME)
        assert seen is not None
        assert before - 1 / ticks <= seen.started / ticks <= after


@pytest.mark.parametrize("error", [FileNotFoundError, ProcessLookupError])
def test_a_process_that_exits_while_sampled_has_exited(
    error: type[OSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: Path) -> str:
        raise error

    monkeypatch.setattr(Path, "read_text", gone)
    assert sample(os.getpid()) is None
    assert is_idle(os.getpid())


def test_a_thread_that_ends_during_a_sample_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = 0

    def first_is_gone(_: Path) -> str:
        nonlocal seen
        seen += 1
        if seen == 1:
            raise ProcessLookupError
        return "7 (web) R 1"

    monkeypatch.setattr(Path, "read_text", first_is_gone)
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert not is_idle(os.getpid())
    finally:
        done.set()
        thread.join()


def test_a_process_stopped_again_counts_from_then() -> None:
    sleeps, stopped = Sample(7, "S", 1.0), Sample(7, "T", 1.0)
    silence = Liveness(sleeps)
    silence.update(stopped, None, 1.9, lambda: True)
    silence.update(sleeps, None, 1.9, lambda: True)
    silence.update(stopped, None, 1.9, lambda: True)
    assert silence.reason is None
    silence.update(stopped, None, 0.1, lambda: True)
    assert silence.reason == "is stopped"


# Which processes it kills.


class World:
    """Processes that look alike, and hang."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.children = [os.getpid()]
        self.sees: Callable[[int], Sample | None] = lambda _: Sample(7, "S", 1.0)
        self.beats: dict[int, float] = {}
        self.heard: dict[int, Beat] = {}
        self.now = 0.0
        self.killed: list[signal.Signals] = []
        self.noted: list[tuple[Path, str, float]] = []
        self.opened: list[int] = []
        self._pidfd_open = os.pidfd_open
        for module in (liveness, watchdog):
            monkeypatch.setattr(module, "sample", lambda pid: self.sees(pid))
        monkeypatch.setattr(liveness, "beat_of", self._beat_of)
        monkeypatch.setattr(liveness, "is_idle", lambda _: True)
        monkeypatch.setattr(watchdog, "name_in", lambda *_: "web:web_0")
        monkeypatch.setattr(watchdog, "note_ending", lambda *what: self.noted.append(what))
        monkeypatch.setattr(os, "pidfd_open", self._open)
        monkeypatch.setattr(
            signal, "pidfd_send_signal", lambda _, number: self.killed.append(number)
        )

    def _open(self, pid: int) -> int:
        self.opened.append(self._pidfd_open(pid))
        return self.opened[-1]

    def _beat_of(self, pid: int) -> Beat | None:
        if pid in self.beats:
            number = self.heard[pid].number + 1 if pid in self.heard else 1
            self.heard[pid] = Beat(number, self.beats.pop(pid))
        return self.heard.get(pid)

    def watchdog(self, database: Path | None = None) -> Watchdog:
        return Watchdog(
            ("web",),
            database=database,
            children=lambda: self.children,
            clock=lambda: self.now,
        )

    def look(self, by: Watchdog, times: int = 1) -> None:
        for _ in range(times):
            self.now += POLL_SECONDS
            by.poll()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


DATABASE = Path("fibcore.db")


@pytest.mark.parametrize("database", [DATABASE, None], ids=["file", "engine"])
def test_the_reason_for_a_kill_is_recorded_beside_the_database(
    world: World, database: Path | None
) -> None:
    world.beats = {os.getpid(): 2.0}
    world.look(dog := world.watchdog(database), times=4)
    assert world.killed == []
    world.look(dog)
    assert world.killed == [signal.SIGKILL]
    assert world.noted == ([(database, "hung", 4 * POLL_SECONDS)] if database else [])
    assert len(world.opened) == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(world.opened[0])


def test_the_kill_of_a_standby_is_not_recorded(world: World) -> None:
    world.sees = lambda _: Sample(7, "T", 1.0)
    world.look(dog := world.watchdog(DATABASE), times=4)
    assert world.killed == [signal.SIGKILL]
    assert world.noted == []
    world.children = []
    world.look(dog)
    assert dog._watch.known == {}, "it is forgotten"


def test_a_reused_process_id_is_another_process(world: World) -> None:
    world.beats = {os.getpid(): 2.0}
    world.look(dog := world.watchdog(), times=4)
    world.sees = lambda _: Sample(8, "S", 1.0)
    world.heard.clear()
    world.look(dog, times=100)
    assert world.killed == []


@pytest.mark.parametrize("again", [Sample(8, "S", 1.0), None], ids=["another's", "nobody's"])
def test_a_process_with_a_reused_id_is_not_killed(world: World, again: Sample | None) -> None:
    world.beats = {os.getpid(): 2.0}
    world.look(dog := world.watchdog(), times=4)
    seen = iter([Sample(7, "S", 1.0), again])
    world.sees = lambda _: next(seen)
    world.look(dog)
    assert world.killed == []


def test_an_exited_process_hides_no_other(world: World) -> None:
    world.children = [-1, os.getpid()]
    world.sees = lambda pid: None if pid < 0 else Sample(7, "S", 1.0)
    world.beats = {os.getpid(): 2.0}
    world.look(world.watchdog(), times=5)
    assert world.killed == [signal.SIGKILL]


def test_time_without_polls_does_not_count(world: World) -> None:
    world.beats = {os.getpid(): 2.0}
    world.look(dog := world.watchdog(), times=1)
    world.now += 3600.0  # for example after a suspend: a beat may be on its way
    world.look(dog)
    assert world.killed == []
    world.look(dog, times=2)
    assert world.killed == [signal.SIGKILL]


def test_the_watchdog_logs_once_who_serves_and_its_limit(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing about a process that is starting, or stands by."""
    caplog.set_level(logging.INFO, "watchdog")
    dog = world.watchdog()
    for patience in (None, STARTING_SECONDS, 2.0, None, 2.0):
        world.beats = {} if patience is None else {os.getpid(): patience}
        world.look(dog)
    said = f"web:web_0 (pid {os.getpid()}) serves; it may be silent for up to 2 s"
    assert caplog.messages == [said]
