"""A process hangs: the server is stopped or its event loop blocked, the standby is stopped or dies.

The watchdog hears four times a second that the loop turns, and kills what has been silent for too
long by its own time.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from fibcore.appliance.heartbeat import HeartbeatReader
from fibcore.stores.files import lock_path
from supervise import liveness
from supervise.watchdog import POLL_SECONDS, Watchdog
from tests.faults.conftest import Fault
from tests.faults.load import Load
from tests.faults.server_variants import (
    blocks_at_a_signal,
    loops_at_a_signal,
    loops_in_a_request_after_a_signal,
    loops_with_the_gil_at_a_signal,
    loops_without_the_gil_at_a_signal,
    variant,
    waits_with_the_gil_at_a_signal,
)
from tests.support.servers import ServerProcess, listening_socket
from tests.support.supervised import Supervised
from tests.support.waiting import until

pytestmark = [pytest.mark.long, pytest.mark.processes]

FORMERLY: Final = 10.0
"""Seconds that it took at the least when the watchdog asked for ``/health`` at supervisord's ticks.
It takes two and a half; the rest is for a busy machine. One that loops is silent for two seconds of
its processor time, which are as long as the machine makes them."""


def check_load(fault: Fault, appliance: Supervised, load: Load) -> None:
    fault.check(load, last=appliance.index)
    assert load.refused == 0
    assert load.errors.total() == 0


def hang(fault: Fault, command: list[str] | None, number: signal.Signals, complaint: str) -> float:
    """Have a server hang at a signal, and see it replaced; return the longest gap, in seconds."""
    with Supervised(command=command) as appliance:
        with Load(appliance.port) as load:
            for _ in fault.tries(short=1, long=5, share=0.05):
                server, standby = appliance.server, appliance.standby
                load.wait_for_steps(50)
                # Of one that it has never heard it thinks that it is starting, for two minutes.
                appliance.log("watchdog").expect(rf"pid {server}\) serves")
                os.kill(server, number)
                appliance.log("watchdog").expect(rf"pid {server}\), the server, {complaint}")
                load.wait_for_steps(50)
                assert appliance.server == standby
        check_load(fault, appliance, load)
    return load.longest_gap


@pytest.mark.proves("processes", "the server hangs: stopped, deadlocked…")
def test_a_server_that_is_stopped_is_replaced_by_the_standby(fault: Fault) -> None:
    assert hang(fault, None, signal.SIGSTOP, "is stopped") < FORMERLY


@pytest.mark.proves("processes", "the server hangs: stopped, deadlocked…")
def test_a_server_with_a_blocked_event_loop_is_replaced(fault: Fault) -> None:
    """The standby takes its place."""
    assert hang(fault, variant(blocks_at_a_signal), signal.SIGUSR1, "hangs") < FORMERLY


@pytest.mark.proves("processes", "the server hangs: stopped, deadlocked…")
def test_a_server_in_an_endless_loop_is_replaced(fault: Fault) -> None:
    """The standby takes its place."""
    hang(fault, variant(loops_at_a_signal), signal.SIGUSR1, "hangs")


@pytest.mark.proves(
    "processes",
    "a request, or what is not Python, loops or waits, with the interpreter's lock or without",
    "no turn is made, and no beat: it is killed",
)
@pytest.mark.parametrize(
    "hangs",
    [
        waits_with_the_gil_at_a_signal,
        loops_with_the_gil_at_a_signal,
        loops_without_the_gil_at_a_signal,
        loops_in_a_request_after_a_signal,
    ],
    ids=lambda each: each.__name__,
)
def test_a_server_that_hangs_in_any_other_way_is_replaced(
    fault: Fault, hangs: Callable[[], None]
) -> None:
    """With the lock of the interpreter and without, in a request and outside."""
    hang(fault, variant(hangs), signal.SIGUSR1, "hangs")


@pytest.mark.proves(
    "processes",
    "the server hangs: stopped, deadlocked…",
    control="without the watchdog: it stays so",
)
def test_a_stopped_server_would_stay_so_without_the_watchdog(fault: Fault) -> None:
    with Supervised() as appliance:
        server = appliance.server
        assert appliance.standby
        appliance.supervisorctl("stop", "watchdog")
        with Load(appliance.port) as load:
            for _ in fault.tries(short=1, long=1, share=0):
                load.wait_for_steps(50)
                os.kill(server, signal.SIGSTOP)
                with pytest.raises(AssertionError, match="not within 25 s"):
                    load.wait_for_steps(50, seconds=25)
                os.kill(server, signal.SIGCONT)
                load.wait_for_steps(50)
        assert appliance.server == server
        check_load(fault, appliance, load)


@pytest.mark.proves(
    "processes",
    "the watchdog is stopped, or hangs, and then the server",
    "supervisord ends the watchdog within 10 s; the next one ends the server",
)
def test_a_stopped_watchdog_is_replaced_and_then_a_stopped_server(fault: Fault) -> None:
    with Supervised() as appliance:
        with Load(appliance.port) as load:
            for _ in fault.tries(short=1, long=3, share=0.05):
                appliance.wait_until_all_run()
                server, standby = appliance.server, appliance.standby
                load.wait_for_steps(50)
                watchdog = appliance.processes()["watchdog"].pid
                os.kill(watchdog, signal.SIGSTOP)
                os.kill(server, signal.SIGSTOP)
                load.wait_for_steps(50)
                appliance.log("supervisord").expect(rf"watchdog \(pid {watchdog}\) is stopped")
                assert appliance.server == standby
        check_load(fault, appliance, load)


@pytest.mark.proves(
    "processes", "the watchdog is stopped, or…", control="supervisord did not look: both stay so"
)
def test_a_stopped_watchdog_and_server_would_stay_so_without_the_extension(fault: Fault) -> None:
    appliance = Supervised()
    appliance.take_away_the_extension()
    with appliance:
        appliance.wait_until_all_run()
        server, watchdog = appliance.server, appliance.processes()["watchdog"].pid
        with Load(appliance.port) as load:
            for _ in fault.tries(short=1, long=1, share=0):
                load.wait_for_steps(50)
                for pid in (watchdog, server):
                    os.kill(pid, signal.SIGSTOP)
                with pytest.raises(AssertionError, match="not within 25 s"):
                    load.wait_for_steps(50, seconds=25)
                for pid in (watchdog, server):
                    os.kill(pid, signal.SIGCONT)
                load.wait_for_steps(50)
        check_load(fault, appliance, load)


@pytest.mark.proves("processes", "sockets in `var/` are removed")
def test_a_server_is_replaced_whatever_is_removed_from_its_folder(fault: Fault) -> None:
    """Its heartbeats stand in no file."""
    with Supervised() as appliance:
        appliance.wait_until_all_run()
        server, standby = appliance.server, appliance.standby
        with Load(appliance.port) as load:
            for _ in fault.tries(short=1, long=1, share=0):
                load.wait_for_steps(50)
                for each in appliance.folder.joinpath("var").iterdir():
                    if not each.name.startswith(appliance.database.name) and each.is_socket():
                        each.unlink()
                load.wait_for_steps(50)
                os.kill(server, signal.SIGSTOP)
                appliance.log("watchdog").expect(rf"pid {server}\), the server, is stopped")
                load.wait_for_steps(50)
                assert int(lock_path(appliance.database).read_text()) == standby
        fault.check(load, last=appliance.index)


@pytest.mark.proves(
    "processes", "the standby hangs, or ends", "it is replaced; the server is not touched"
)
def test_a_stopped_standby_is_replaced(fault: Fault) -> None:
    """The server is undisturbed."""
    with Supervised() as appliance:
        server, standby = appliance.server, appliance.standby
        with Load(appliance.port) as load:
            for _ in fault.tries(short=1, long=1, share=0):
                load.wait_for_steps(50)
                os.kill(standby, signal.SIGSTOP)
                appliance.log("watchdog").expect(rf"pid {standby}\), the standby, is stopped")
                load.wait_for_steps(50)
                assert appliance.standby_after(standby) != server
        assert appliance.server == server
        check_load(fault, appliance, load)
    assert load.unanswered == 0


@pytest.mark.proves("processes", "the standby hangs, or ends")
def test_a_standby_that_dies_is_replaced(fault: Fault) -> None:
    """The server is undisturbed."""
    with Supervised() as appliance:
        server = appliance.server
        with Load(appliance.port) as load:
            for _ in fault.tries(short=3, long=30, share=0.01):
                standby = appliance.standby
                load.wait_for_steps(50)
                os.kill(standby, signal.SIGKILL)
                assert appliance.standby_after(standby) != server
        assert appliance.server == server
        check_load(fault, appliance, load)
    assert load.unanswered == 0


# A server that gets next to nothing of the processor.

BURNERS: Final = 4

STARVING_SECONDS: Final = 180.0
"""In which a starved server has been silent for long enough, a few times."""


class Timed(HeartbeatReader):
    """Notes by the clock how long there was no beat."""

    def __init__(self) -> None:
        super().__init__()
        self.gaps: list[float] = []
        self._heard_at = time.monotonic()

    def poll(self, pid: int) -> float | None:
        found = super().poll(pid)
        if found:
            now = time.monotonic()
            self.gaps.append(now - self._heard_at)
            self._heard_at = now
        return found


@contextlib.contextmanager
def starved(folder: Path) -> Iterator[tuple[ServerProcess, Timed]]:
    """A server that is busy, and gets what four programs on its core leave to an idle class."""
    core = min(os.sched_getaffinity(0))
    environment = {"SUPERVISOR_GROUP_NAME": "web", "SUPERVISOR_PROCESS_NAME": "web_0"}
    burn = [sys.executable, "-c", f"import os; os.sched_setaffinity(0, [{core}])\nwhile 1: pass"]
    with contextlib.ExitStack() as stack:
        beats = Timed()
        listener = stack.enter_context(listening_socket())
        server = ServerProcess(folder / "fibcore.db", listener, environment)
        stack.callback(server.wait)
        stack.callback(server.process.kill)
        server.wait_until_it_serves()
        stack.enter_context(Load(server.client.port, rate=None))
        until(lambda: server.client.index > 100, "it steps")
        for thread in Path(f"/proc/{server.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), [core])
            os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))
        for _ in range(BURNERS):
            burner = subprocess.Popen(burn)
            stack.callback(burner.wait)
            stack.callback(burner.kill)
        yield server, beats
        # Before the load ends, which waits for its answers.
        server.process.kill()
        listener.close()


def look(server: ServerProcess, beats: HeartbeatReader, enough: Callable[[], bool]) -> None:
    """Have a watchdog look until it is enough."""
    dog = Watchdog(("web",), beats, children=lambda: [server.pid])

    def look_and_see() -> bool:
        time.sleep(POLL_SECONDS)  # as the watchdog does between two looks
        dog.poll()
        return enough()

    until(look_and_see, "it has looked long enough", STARVING_SECONDS)


@pytest.mark.proves(
    "processes", "the server turns, and gets next to nothing of the processor", "it is not killed"
)
@pytest.mark.proves("load", "the watchdog")
def test_a_server_that_is_starved_and_turns_is_not_killed(fault: Fault, tmp_path: Path) -> None:
    with starved(tmp_path) as (server, beats):
        for _ in fault.tries(short=1, long=10, share=0.05):
            # By the clock it has been silent for longer than it may be, again and again.
            enough = len(beats.gaps) + 1
            look(server, beats, lambda: sum(gap > 2.0 for gap in beats.gaps[enough:]) >= 3)  # noqa: B023
            assert server.process.poll() is None
        fault.saw(note=f"silent for up to {max(beats.gaps[1:]):.1f} s by the clock")


@pytest.mark.proves(
    "processes",
    "the server turns, and gets…",
    control="the watchdog went by the clock: it is killed",
)
def test_a_watchdog_by_the_clock_would_kill_a_starved_server(
    fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "is_idle", lambda _: True)
    with starved(tmp_path) as (server, beats):
        for _ in fault.tries(short=1, long=1, share=0):
            look(server, beats, lambda: server.process.poll() == -signal.SIGKILL)
