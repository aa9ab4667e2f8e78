"""A commit is cut short at each of its system calls, one after the other.

strace records what a server does for a few steps. Then the same steps are repeated for each
recorded moment: the process dies as it enters that call, or the power is cut as it leaves it.
strace's output confirms the moment, so no instant of a commit is missed.
"""

import threading
from pathlib import Path

import pytest

from tests.faults.conftest import Fault
from tests.faults.disks import Volume, volume
from tests.faults.moments import (
    STEPS,
    Moment,
    at_each,
    begin_anew,
    last_moment,
    moments_of,
    thread_of,
)
from tests.faults.server_variants import answers_before_the_commit, checkpoints_often, variant
from tests.faults.servers import Servers, is_frozen
from tests.faults.tracing import Point, strace
from tests.support.checker import Operation, WrongAnswer, check
from tests.support.load import SequentialClient
from tests.support.waiting import PATIENCE, until

pytestmark = [pytest.mark.long, pytest.mark.processes]


# Killed


def kill_at(thread: str, point: Point, servers: Servers, client: SequentialClient) -> Moment | None:
    """Step, and kill the server there; return the moment."""
    server = servers.server.process
    with strace(
        thread_of(servers, thread), "-y", point.inject("signal=KILL"), threads=False
    ) as trace:
        client.step(STEPS)
    killed = trace.ends_with_the_thread
    if killed:
        server.wait(PATIENCE)
    else:
        begin_anew(servers)
    servers.fill_up()
    return last_moment(thread, trace) if killed else None


def test_a_kill_at_any_system_call_of_a_commit_loses_nothing(fault: Fault, tmp_path: Path) -> None:
    history: list[Operation] = []
    command = variant(checkpoints_often)
    with Servers(tmp_path / "fibcore.db", tmp_path, standbys=2, command=command) as servers:
        client = SequentialClient(servers.port, history)
        moments = moments_of(servers, client)
        at_each(moments, fault, lambda thread, point: kill_at(thread, point, servers, client))
        last = servers.client.index
    summary = check(history, first=0, last=last)
    assert summary.taken > 0, "it was never killed between a commit and its answer"
    fault.saw(
        lost=0,
        note=f"killed at each of {len(moments)} calls, and {summary.taken} steps were committed "
        f"that had no answer",
    )


def test_a_kill_would_lose_a_step_answered_before_its_commit(tmp_path: Path) -> None:
    history: list[Operation] = []
    command = variant(answers_before_the_commit)
    with Servers(tmp_path / "fibcore.db", tmp_path, standbys=1, command=command) as servers:
        client = SequentialClient(servers.port, history)
        assert kill_at("the commit", Point("pwrite64", 2), servers, client)
        last = servers.client.index
    with pytest.raises(WrongAnswer, match="lost"):
        check(history, first=0, last=last)


# Without power


def cut_power_at(
    thread: str, point: Point, servers: Servers, client: SequentialClient, disk: Volume
) -> Moment | None:
    """Step, and cut the power when that call has returned; return the moment."""
    server = servers.server
    with strace(
        thread_of(servers, thread), "-y", point.inject("signal=STOP"), threads=False
    ) as trace:
        stepping = threading.Thread(target=client.step, args=(STEPS,))
        stepping.start()
        until(
            lambda: is_frozen(server.pid) or not stepping.is_alive(),
            "the server is stopped, or has passed",
        )
        reached = stepping.is_alive() or is_frozen(server.pid)
        servers.freeze()
        disk.cut_power()
        servers.kill()
        stepping.join()
    disk.restore_power()
    return last_moment(thread, trace) if reached else None


def test_a_power_cut_after_any_system_call_loses_nothing(fault: Fault, tmp_path: Path) -> None:
    history: list[Operation] = []
    with volume() as disk:
        database = disk.path / "fibcore.db"
        command = disk.there(variant(checkpoints_often))
        with Servers(database, tmp_path, command=command) as servers:
            found = moments_of(servers, SequentialClient(servers.port, history))
        moments = {moment: point for moment, point in found.items() if moment.changes}

        def cut(thread: str, point: Point) -> Moment | None:
            with Servers(database, tmp_path, command=command) as servers:
                check(history, first=0, last=servers.client.index)
                client = SequentialClient(servers.port, history)
                return cut_power_at(thread, point, servers, client, disk)

        at_each(moments, fault, cut)
        with Servers(database, tmp_path, command=command) as servers:
            check(history, first=0, last=servers.client.index)
    fault.saw(lost=0, note=f"cut after each of {len(moments)} calls that change something")


def test_without_syncs_a_power_cut_would_lose_an_acknowledged_step(tmp_path: Path) -> None:
    history: list[Operation] = []
    with volume() as disk:
        database = disk.path / "fibcore.db"
        settings = {"FIB_SYNCHRONOUS": "off"}
        command = disk.there(variant(checkpoints_often))
        with Servers(database, tmp_path, settings=settings, command=command) as servers:
            client = SequentialClient(servers.port, history)
            moments = moments_of(servers, client)
            (answer,) = (
                moment for moment in moments if moment.thread != "the commit" and moment.changes
            )
            assert cut_power_at(answer.thread, moments[answer], servers, client, disk) == answer
        with Servers(database, tmp_path, command=command) as servers:
            last = servers.client.index
    with pytest.raises(WrongAnswer, match="lost"):
        check(history, first=0, last=last)
