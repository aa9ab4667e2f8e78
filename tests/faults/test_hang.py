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
from pathlib import Path
from typing import Final

import pytest

from tests.faults.conftest import Fault
from tests.support.load import Load
from tests.support.supervised import Supervised
from tests.support.waiting import until

pytestmark = [pytest.mark.long, pytest.mark.processes]


def check_load(fault: Fault, appliance: Supervised, load: Load) -> None:
    fault.check(load, last=appliance.index)
    assert load.refused == 0
    assert load.errors.total() == 0


def test_a_server_that_hangs_is_replaced_by_the_standby(fault: Fault) -> None:
    with Supervised() as appliance:
        with Load(appliance.port) as load:
            for _ in fault.tries(short=2, long=10, share=0.1):
                server, standby = appliance.server, appliance.standby
                load.wait_for_steps(50)
                # Until the watchdog has had its first beat the server has two minutes to start.
                appliance.log("watchdog").expect(rf"pid {server}\) serves")
                os.kill(server, signal.SIGSTOP)
                appliance.log("watchdog").expect(rf"pid {server}\), the server, is stopped")
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
STARVED_SECONDS: Final = 10.0
"""Several times the limit of silence."""


def starve(pid: int, stack: contextlib.ExitStack) -> None:
    """Leave to a process what four programs on its core leave to the idle class."""
    core = min(os.sched_getaffinity(0))
    burn = [sys.executable, "-c", f"import os; os.sched_setaffinity(0, [{core}])\nwhile 1: pass"]
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), [core])
        os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))
    for _ in range(BURNERS):
        burner = subprocess.Popen(burn)
        stack.callback(burner.wait)
        stack.callback(burner.kill)


def test_a_starved_server_that_makes_progress_is_not_killed(fault: Fault) -> None:
    """Its silence is measured in its own processor time."""
    with Supervised() as appliance:
        server = appliance.server
        appliance.log("watchdog").expect(rf"pid {server}\) serves")
        with Load(appliance.port, rate=None) as load:
            load.wait_for_steps(50)
            with contextlib.ExitStack() as stack:
                starve(server, stack)
                begun = time.monotonic()
                until(lambda: time.monotonic() - begun > STARVED_SECONDS, "it has been starved")
                load.wait_for_steps(1)
        fault.saw(note=f"no answer for up to {load.longest_gap:.1f} s")
        assert appliance.server == server
        check_load(fault, appliance, load)
