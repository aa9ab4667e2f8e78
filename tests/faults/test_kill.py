"""Processes are killed under load: the server, both servers, supervisord.

The kernel keeps what a killed process has written, so nothing here depends on the disk. The tests
show that answers follow commits, one process at a time writes, and another takes over before any
connection is refused.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.conftest import Fault
from tests.support.load import Load
from tests.support.supervised import Supervised
from tests.support.waiting import PATIENCE, is_alive, until, until_ended

pytestmark = pytest.mark.processes

CHOICE = random.Random(0)


def holder(appliance: Supervised) -> int:
    """The server, or the last one."""
    return int(Path(f"{appliance.database}.lock").read_text())


def standbys(appliance: Supervised) -> int:
    """The number of times that a process became the standby."""
    return sum(appliance.log(name).text.count("standing by") for name in ("web_0", "web_1"))


def kill_the_server(appliance: Supervised, load: Load) -> None:
    """Kill it at a random moment; return when there is a standby again."""
    load.wait_for_steps(CHOICE.randint(1, 40))
    before = standbys(appliance)
    os.kill(holder(appliance), signal.SIGKILL)
    until(lambda: standbys(appliance) > before, "another one stands by")


# The server


def test_a_server_killed_under_load_loses_nothing(fault: Fault) -> None:
    with Supervised() as appliance:
        assert appliance.standby
        with Load(appliance.port) as load:
            for _ in fault.tries(short=3, long=20, share=0.03):
                kill_the_server(appliance, load)
            load.wait_for_steps()
        fault.check(load, last=appliance.index)
    assert load.refused == 0
    assert load.errors.total() == 0


@pytest.mark.long
def test_without_standby_and_extension_the_same_kill_refuses_connections(fault: Fault) -> None:
    appliance = Supervised()
    appliance.take_away_the_extension()
    with appliance:
        server = next(
            name for name, each in appliance.processes().items() if each.pid == appliance.server
        )
        appliance.supervisorctl("stop", "web:web_1" if server == "web:web_0" else "web:web_0")
        with Load(appliance.port) as load:
            for _ in fault.tries(short=1, long=1, share=0):
                load.wait_for_steps(10)
                os.kill(holder(appliance), signal.SIGKILL)
                until(lambda: load.refused > 0, "a connection is refused")
                load.wait_for_steps(10)
        fault.check(load, last=appliance.index)


# All at once


@pytest.mark.long
def test_the_server_recovers_when_all_processes_are_killed_at_once(fault: Fault) -> None:
    with Supervised() as appliance:
        with Load(appliance.port) as load:
            for _ in fault.tries(short=3, long=10, share=0.03):
                appliance.wait_until_all_run()
                load.wait_for_steps(CHOICE.randint(1, 40))
                for pid in appliance.children():
                    os.kill(pid, signal.SIGKILL)
                load.wait_for_steps()
            assert not appliance.has_ended()
        fault.check(load, last=appliance.index)
    assert load.refused == 0


# supervisord


def kill_supervisord_and_start_another(appliance: Supervised) -> None:
    """Kill it at any moment, even when it has just started a server."""
    if CHOICE.random() < 0.5:
        os.kill(holder(appliance), signal.SIGKILL)
        appliance.log("supervisord").skip()
        appliance.log("supervisord").expect("spawned: 'web_")
        time.sleep(CHOICE.uniform(0, 0.5))
    with supervisord_killed(appliance) as left:
        until_ended(*left)
    appliance.start()


@contextmanager
def supervisord_killed(appliance: Supervised) -> Iterator[list[int]]:
    """Kill it; yield the processes that it ran, which are killed at the end in any case."""
    left = [
        int(child)
        for child in Path(f"/proc/{appliance.pid}/task/{appliance.pid}/children")
        .read_text()
        .split()
    ]
    appliance.stop(signal.SIGKILL)
    try:
        yield left
    finally:
        for pid in filter(is_alive, left):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.long
def test_when_supervisord_is_killed_all_processes_exit(fault: Fault) -> None:
    with Supervised() as appliance:
        with Load(appliance.port) as load:
            for _ in fault.tries(short=1, long=10, share=0.03):
                load.wait_for_steps(CHOICE.randint(1, 40))
                kill_supervisord_and_start_another(appliance)
                load.wait_for_steps()
        fault.check(load, last=appliance.index)


def test_a_server_started_under_a_dead_supervisord_exits_at_once(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    database = tmp_path / "fibcore.db"
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "web"],
            env=os.environ | {"SUPERVISOR_ENABLED": "1", "FIB_STATE": str(database)},
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            timeout=PATIENCE,
            check=False,
        )
    finally:
        os.close(writer)
    assert ended.returncode == 0
    assert not database.exists()
