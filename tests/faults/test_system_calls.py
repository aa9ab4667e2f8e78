"""A commit is cut short at each of its system calls, one after the other.

What a server does for a few steps is written down by strace; then, for each call in that list,
the same is done again and the process dies as it enters that call, or the power is cut as it
leaves it. So no instant of a commit is left to chance.
"""

import threading
from pathlib import Path
from typing import Final

import pytest

from tests.faults.conftest import Fault
from tests.faults.disks import Volume, volume
from tests.faults.history import HistoryError, Operation, check
from tests.faults.load import SequentialClient
from tests.faults.servers import Servers
from tests.faults.tracing import Point, strace
from tests.faults.unprotected import answers_before_the_commit, moves_its_log_often, without
from tests.support.supervised import until

pytestmark = pytest.mark.long

STEPS: Final = 5
"""Enough for a server that does so often to move its log into the database and begin it anew."""

CHANGES: Final = ("fdatasync", "ftruncate", "pwrite64", "write")
"""Calls that change what is on the disk, or what others are told."""


def points_of(servers: Servers, client: SequentialClient) -> list[Point]:
    """All that there is to a few steps, first what changes something."""
    with strace(servers.server.pid) as trace:
        client.step(STEPS)
    return sorted(trace.points, key=lambda point: point.call not in CHANGES)


# Killed


def kill_at(point: Point, servers: Servers, client: SequentialClient) -> bool:
    """Step, and have the server killed there; tell whether it came there."""
    server = servers.server
    with strace(server.pid, point.inject("signal=KILL")):
        client.step(STEPS)
    return server.process.poll() is not None


def test_a_server_killed_at_any_system_call_of_a_commit_loses_nothing(
    fault: Fault, tmp_path: Path
) -> None:
    history: list[Operation] = []
    command = without(moves_its_log_often)
    with Servers(tmp_path / "fibcore.db", tmp_path, standbys=2, command=command) as servers:
        client = SequentialClient(servers.port, history)
        points = points_of(servers, client)
        killed = 0
        for at in fault.tries(short=0, long=len(points), share=0.1):
            killed += kill_at(points[at], servers, client)
            servers.fill_up()
        last = servers.client.index
    assert killed > fault.tried / 2, "the calls of one run are not those of another"
    summary = check(history, first=0, last=last)
    fault.saw(
        lost=0,
        note=f"{len(points)} calls; killed at {killed}, and {summary.taken} steps were committed "
        f"that had no answer",
    )


def test_a_server_that_answered_before_the_commit_would_lose_what_a_kill_in_it_cuts_off(
    tmp_path: Path,
) -> None:
    history: list[Operation] = []
    command = without(answers_before_the_commit)
    with Servers(tmp_path / "fibcore.db", tmp_path, standbys=1, command=command) as servers:
        assert kill_at(Point("pwrite64", 2), servers, SequentialClient(servers.port, history))
        last = servers.client.index
    with pytest.raises(HistoryError, match="lost"):
        check(history, first=0, last=last)


# Without power


def cut_power_at(point: Point, servers: Servers, client: SequentialClient, disk: Volume) -> bool:
    """Step, and cut the power there; tell whether the server came there."""
    server = servers.server
    threads = len(list(Path(f"/proc/{server.pid}/task").iterdir()))
    with strace(server.pid, point.inject("signal=STOP")) as trace:
        stepping = threading.Thread(target=client.step, args=(STEPS,))
        stepping.start()
        until(
            lambda: trace.stopped == threads or not stepping.is_alive(),
            "the server is stopped, or has passed",
        )
        servers.freeze()
        disk.cut_power()
        servers.kill()
        stepping.join()
    disk.restore_power()
    return trace.stopped == threads


def test_a_power_cut_after_any_system_call_of_a_commit_loses_nothing(
    fault: Fault, tmp_path: Path
) -> None:
    history: list[Operation] = []
    reached = 0
    with volume() as disk:
        state = disk.path / "fibcore.db"
        command = disk.there(without(moves_its_log_often))
        with Servers(state, tmp_path, command=command) as servers:
            all_points = points_of(servers, SequentialClient(servers.port, history))
        points = [point for point in all_points if point.call in CHANGES]
        for at in fault.tries(short=0, long=len(points), share=0.1):
            with Servers(state, tmp_path, command=command) as servers:
                check(history, first=0, last=servers.client.index)
                client = SequentialClient(servers.port, history)
                reached += cut_power_at(points[at], servers, client, disk)
        with Servers(state, tmp_path, command=command) as servers:
            check(history, first=0, last=servers.client.index)
    assert reached > fault.tried / 2, "the calls of one run are not those of another"
    fault.saw(lost=0, note=f"{len(points)} calls that change something; cut after {reached}")
