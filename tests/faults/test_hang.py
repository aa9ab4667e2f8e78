"""A process hangs: the server, the standby or the watchdog, under load.

The turns of the event loop cause heartbeats. The watchdog kills a process that has been silent for
too long, measured in its processor time.
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

from fibcore.appliance.heartbeat import Beat, beat_of
from supervise import liveness
from supervise.watchdog import POLL_SECONDS, Watchdog
from tests.faults.conftest import Fault
from tests.support.load import Load
from tests.faults.server_variants import WAYS_TO_HANG, hangs_at_a_signal, variant
from tests.support import waiting
from tests.support.servers import ServerProcess, listening_socket
from tests.support.supervised import Supervised
from tests.support.waiting import until

pytestmark = [pytest.mark.long, pytest.mark.processes]


def check_load(fault: Fault, appliance: Supervised, load: Load) -> None:
    fault.check(load, last=appliance.index)
    assert load.refused == 0
    assert load.errors.total() == 0


def test_a_server_that_hangs_in_any_way_is_replaced_by_the_standby(fault: Fault) -> None:
    ways: list[tuple[int, str]] = [(signal.SIGSTOP, "is stopped")]
    ways += [(signal.SIGRTMIN + number, "hangs") for number in range(len(WAYS_TO_HANG))]
    with Supervised(command=variant(hangs_at_a_signal)) as appliance:
        with Load(appliance.port) as load:
            for number in fault.tries(short=len(ways), long=4 * len(ways), share=0.1):
                way, reason = ways[number % len(ways)]
                server, standby = appliance.server, appliance.standby
                load.wait_for_steps(50)
                # Until the watchdog has had its first beat the server has two minutes to start.
                appliance.log("watchdog").expect(rf"pid {server}\) serves")
                os.kill(server, way)
                appliance.log("watchdog").expect(rf"pid {server}\), the server, {reason}")
                load.wait_for_steps(50)
                assert appliance.server == standby
        check_load(fault, appliance, load)


def test_a_stopped_watchdog_is_replaced_and_then_kills_a_stopped_server(fault: Fault) -> None:
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


def test_without_the_extension_a_stopped_watchdog_would_stay(fault: Fault) -> None:
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


def test_a_standby_that_hangs_or_exits_is_replaced(fault: Fault) -> None:
    with Supervised() as appliance:
        server = appliance.server
        with Load(appliance.port) as load:
            for number in fault.tries(short=2, long=20, share=0.01):
                standby = appliance.standby
                load.wait_for_steps(50)
                os.kill(standby, (signal.SIGSTOP, signal.SIGKILL)[number % 2])
                assert appliance.standby_after(standby) != server
        assert appliance.server == server
        check_load(fault, appliance, load)
    assert load.unanswered == 0


# A server that gets next to no processor time.

BURNERS: Final = 4

PATIENCE: Final = 0.5
"""The limit of silence here, in seconds.

A server that is not starved beats within half of it; a starved one repeatedly waits longer for the
processor, whatever the scheduler does.
"""


class Timed:
    """Reads the beats of one process, with a lower limit, and records the gaps by the clock."""

    def __init__(self) -> None:
        self.gaps: list[float] = []
        self._last: Beat | None = None
        self._beaten_at = time.monotonic()

    def __call__(self, pid: int) -> Beat | None:
        found = beat_of(pid)
        if found is None:
            return None
        if found != self._last:
            self._last, now = found, time.monotonic()
            self.gaps.append(now - self._beaten_at)
            self._beaten_at = now
        return found._replace(patience=PATIENCE)


@contextlib.contextmanager
def starved(folder: Path) -> Iterator[tuple[ServerProcess, Timed]]:
    """A busy server that gets what four programs on its core leave to the idle class."""
    core = min(os.sched_getaffinity(0))
    environment = {"SUPERVISOR_GROUP_NAME": "web", "SUPERVISOR_PROCESS_NAME": "web_0"}
    burn = [sys.executable, "-c", f"import os; os.sched_setaffinity(0, [{core}])\nwhile 1: pass"]
    with contextlib.ExitStack() as stack:
        beats = Timed()
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(liveness, "beat_of", beats)
        listener = stack.enter_context(listening_socket())
        server = ServerProcess(folder / "fibcore.db", listener, environment)
        stack.callback(server.wait)
        stack.callback(server.process.kill)
        server.wait_until_it_serves()
        stack.enter_context(Load(server.client.port, rate=None))
        until(lambda: server.client.index > 100, "it steps")
        until(lambda: beats(server.pid) is not None, "it beats")
        for thread in Path(f"/proc/{server.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), [core])
            os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))
        for _ in range(BURNERS):
            burner = subprocess.Popen(burn)
            stack.callback(burner.wait)
            stack.callback(burner.kill)
        yield server, beats
        # Before the end of the load, which waits for its answers.
        server.process.kill()
        listener.close()


def watch(server: ServerProcess, enough: Callable[[], bool]) -> None:
    """Let a watchdog poll until the condition holds."""
    dog = Watchdog(("web",), children=lambda: [server.pid])

    def poll() -> bool:
        time.sleep(POLL_SECONDS)  # as the watchdog does between two polls
        dog.poll()
        return enough()

    until(poll, "it has been silent for long enough", 3 * waiting.PATIENCE)


def test_a_starved_server_that_makes_progress_is_not_killed(fault: Fault, tmp_path: Path) -> None:
    with starved(tmp_path) as (server, beats):
        for _ in fault.tries(short=1, long=10, share=0.05):
            # By the clock it has repeatedly been silent for too long.
            seen = len(beats.gaps) + 1
            watch(server, lambda: sum(gap > 2 * PATIENCE for gap in beats.gaps[seen:]) >= 3)  # noqa: B023
            assert server.process.poll() is None
        fault.saw(note=f"silent for up to {max(beats.gaps[1:]):.1f} s by the clock")


def test_a_watchdog_using_the_clock_would_kill_a_starved_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "is_idle", lambda _: True)
    with starved(tmp_path) as (server, _):
        watch(server, lambda: server.process.poll() == -signal.SIGKILL)
