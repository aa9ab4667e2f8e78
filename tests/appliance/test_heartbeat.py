"""Heartbeats: a process writes them to its own memory, and a watcher reads them."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fibcore.appliance import heartbeat as heartbeat_module
from fibcore.appliance.heartbeat import (
    BEAT_SECONDS,
    Beat,
    Heartbeat,
    beat_of,
    longest_turn,
)
from supervise.liveness import STOPPED_SECONDS, Liveness, Sample
from supervise.watchdog import POLL_SECONDS

STARTED = Sample(7, "S", 1.0)


class Pulse(Heartbeat):
    """A heartbeat, and the limit of silence for each beat."""

    def __init__(self) -> None:
        super().__init__(lambda: self.patience)

    def beat_within(self, patience: float) -> None:
        self.patience = patience
        self.beat()


@pytest.fixture
def pulse() -> Iterator[Pulse]:
    with contextlib.closing(Pulse()) as pulse:
        yield pulse


def test_a_beat_has_a_number_and_a_time_for_which_it_is_valid(pulse: Pulse) -> None:
    assert beat_of(os.getpid()) is None
    pulse.beat_within(120.0)
    assert beat_of(os.getpid()) == Beat(1, 120.0)
    pulse.beat_within(2.5)
    assert beat_of(os.getpid()) == Beat(2, 2.5)


def test_a_watcher_gets_each_beat_once_and_the_last_earlier_one(pulse: Pulse) -> None:
    pid = os.getpid()
    watched = Liveness(STARTED)
    assert watched.receive(beat_of(pid)) is None
    pulse.beat_within(2.5)
    assert [watched.receive(beat_of(pid)) for _ in range(2)] == [2.5, None]
    for _ in range(10_000):  # No unread queue grows.
        pulse.beat_within(3.5)
    assert [watched.receive(beat_of(pid)) for _ in range(2)] == [3.5, None]
    assert Liveness(STARTED).receive(beat_of(pid)) == 3.5


@pytest.mark.processes
def test_each_process_has_its_own_beats(pulse: Pulse) -> None:
    pulse.beat_within(1.0)
    program = (
        "from fibcore.appliance.heartbeat import Heartbeat; heartbeat = Heartbeat(lambda: 2.5)\n"
        "heartbeat.beat(); print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert beat_of(other.pid) == Beat(1, 2.5)
        other.communicate(b"\n")
    assert beat_of(other.pid) is None


def test_a_reader_without_access_assumes_that_those_it_knows_are_alive(
    pulse: Pulse, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulse.beat_within(2.5)
    server, standby = Liveness(STARTED), Liveness(STARTED)
    assert server.receive(beat_of(os.getpid())) == 2.5
    monkeypatch.setattr(heartbeat_module, "LINK", "/memfd:nothing of the kind")
    assert [server.receive(beat_of(os.getpid())) for _ in range(2)] == [2.5, 2.5]
    assert standby.receive(beat_of(os.getppid())) is None


def test_a_closed_heartbeat_or_one_without_memory_does_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> int:
        raise OSError

    heartbeat = Heartbeat(lambda: 2.0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        heartbeat.beat()
    for _ in range(2):
        heartbeat.close()
    heartbeat.beat()
    assert beat_of(os.getpid()) is None


def test_by_default_a_server_that_hangs_is_killed_within_three_seconds() -> None:
    assert BEAT_SECONDS + longest_turn(2000, 1500) + POLL_SECONDS < 3
    assert STOPPED_SECONDS + POLL_SECONDS < 3


def test_higher_bounds_allow_a_longer_turn() -> None:
    assert longest_turn(2000, 1500) == 2.0
    assert longest_turn(1_000_000, 1500) > 100
