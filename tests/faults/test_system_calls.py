"""A commit is cut short at each of its system calls, one after the other.

What a server does for a few steps is written down by strace; then the same is done again for each
moment in that list, and the process dies as it enters that call, or the power is cut as it leaves
it. What strace writes down then tells that it came to be there and nowhere else, so that no
instant of a commit is left to chance, or out.

Two kinds of calls are no moments of their own. Those without a descriptor (futex, restart_syscall,
getpid) leave every file and connection as it was: to die there is to die at the next call in the
list, or at what the other thread does meanwhile. So it is with those on an event queue (epoll,
io_uring), which wait; how many there are of either is up to the scheduler.
"""

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import pytest

from tests.faults.conftest import Fault
from tests.faults.disks import Volume, volume
from tests.faults.history import HistoryError, Operation, check
from tests.faults.load import SequentialClient
from tests.faults.servers import Servers, is_frozen
from tests.faults.tracing import Call, Point, strace
from tests.faults.unprotected import answers_before_the_commit, moves_its_log_often, without
from tests.support.supervised import until

pytestmark = pytest.mark.long

STEPS: Final = 5
"""Enough for a server that does so often to move its log into the database and begin it anew."""

TRIES: Final = 5
"""How often it is tried to come to a moment, which a thread that is quicker than usual may miss."""

WAITS: Final = ("", "anon_inode:[eventpoll]", "anon_inode:[io_uring]")
"""The files of calls that are no moments of their own."""

CHANGES: Final = ("fdatasync", "ftruncate", "pwrite64", "write", "writev", "sendto", "sendmsg")
"""Calls that change what is on the disk, or what others are told."""

Passed: TypeAlias = tuple[str, ...]
"""The calls of a step, from the first to the one that is meant."""


class Moment(NamedTuple):
    """When a thread of the server makes a system call of a step."""

    thread: str
    passed: Passed

    @property
    def changes(self) -> bool:
        return self.passed[-1].split()[0] in CHANGES


def of_commits(calls: Iterable[Call]) -> list[tuple[Passed, Point]]:
    """What the thread that commits does: from whatever is first to telling the event loop."""
    found = []
    passed: Passed = ()
    for call in calls:
        if call.file not in WAITS:
            passed = (*passed, str(call))
            found.append((passed, call.point))
            if call.file == "anon_inode:[eventfd]":
                passed = ()
    return found


def of_answers(calls: Iterable[Call]) -> list[tuple[Passed, Point]]:
    """What the event loop does: from hearing that a step is committed to its answer."""
    found = []
    passed: Passed = ()
    for call in calls:
        if call.file == "anon_inode:[eventfd]":
            passed = (str(call),)
        elif passed and call.file == "socket:":
            passed = (*passed, str(call))
        else:
            continue
        found.append((passed, call.point))
        if call.file == "socket:":
            passed = ()
    return found


THREADS: Final[dict[str, Callable[[Iterable[Call]], list[tuple[Passed, Point]]]]] = {
    "the commit": of_commits,
    "the event loop": of_answers,
}


def thread_of(servers: Servers, name: str) -> int:
    return servers.commit_thread if name == "the commit" else servers.server.pid


def moments_of(servers: Servers, client: SequentialClient) -> dict[Moment, Point]:
    """All that there are in a few steps, and how to come there."""
    found: dict[Moment, Point] = {}
    for name, of_steps in THREADS.items():
        with strace(thread_of(servers, name), "-y", threads=False) as trace:
            client.step(STEPS)
        for passed, point in of_steps(trace.calls):
            found.setdefault(Moment(name, passed), point)
        # The next thread's steps are again the first of a server.
        begin_anew(servers)
    return found


def begin_anew(servers: Servers) -> None:
    """Have another server begin."""
    server = servers.server
    server.process.kill()
    server.wait()
    servers.fill_up()


def at_each(
    moments: dict[Moment, Point], fault: Fault, cut: Callable[[str, Point], Moment | None]
) -> None:
    """Cut a step short at each moment, and see to it that it was there.

    Args:
        cut: does it in a thread, and tells where that was.
    """
    missed = dict(moments)
    for _ in range(TRIES):
        for moment, point in list(missed.items()):
            fault.tried += 1
            reached = cut(moment.thread, point)
            if reached is not None:
                missed.pop(reached, None)
    assert not missed, f"never cut short there: {missed}"


# Killed


def kill_at(thread: str, point: Point, servers: Servers, client: SequentialClient) -> Moment | None:
    """Step, and have the server killed there; tell where that was."""
    server = servers.server.process
    with strace(
        thread_of(servers, thread), "-y", point.inject("signal=KILL"), threads=False
    ) as trace:
        client.step(STEPS)
    killed = server.poll() is not None
    if not killed:
        begin_anew(servers)
    servers.fill_up()
    return Moment(thread, THREADS[thread](trace.calls)[-1][0]) if killed else None


def test_a_server_killed_at_any_system_call_of_a_commit_loses_nothing(
    fault: Fault, tmp_path: Path
) -> None:
    history: list[Operation] = []
    command = without(moves_its_log_often)
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


def test_a_server_that_answered_before_the_commit_would_lose_what_a_kill_in_it_cuts_off(
    tmp_path: Path,
) -> None:
    history: list[Operation] = []
    command = without(answers_before_the_commit)
    with Servers(tmp_path / "fibcore.db", tmp_path, standbys=1, command=command) as servers:
        client = SequentialClient(servers.port, history)
        assert kill_at("the commit", Point("pwrite64", 2), servers, client)
        last = servers.client.index
    with pytest.raises(HistoryError, match="lost"):
        check(history, first=0, last=last)


# Without power


def cut_power_at(
    thread: str, point: Point, servers: Servers, client: SequentialClient, disk: Volume
) -> Moment | None:
    """Step, and cut the power when that call has returned; tell where that was."""
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
    return Moment(thread, THREADS[thread](trace.calls)[-1][0]) if reached else None


def test_a_power_cut_after_any_system_call_of_a_commit_loses_nothing(
    fault: Fault, tmp_path: Path
) -> None:
    history: list[Operation] = []
    with volume() as disk:
        state = disk.path / "fibcore.db"
        command = disk.there(without(moves_its_log_often))
        with Servers(state, tmp_path, command=command) as servers:
            found = moments_of(servers, SequentialClient(servers.port, history))
        moments = {moment: point for moment, point in found.items() if moment.changes}

        def cut(thread: str, point: Point) -> Moment | None:
            with Servers(state, tmp_path, command=command) as servers:
                check(history, first=0, last=servers.client.index)
                client = SequentialClient(servers.port, history)
                return cut_power_at(thread, point, servers, client, disk)

        at_each(moments, fault, cut)
        with Servers(state, tmp_path, command=command) as servers:
            check(history, first=0, last=servers.client.index)
    fault.saw(lost=0, note=f"cut after each of {len(moments)} calls that change something")


def test_without_syncs_a_power_cut_after_the_answer_would_lose_the_step(tmp_path: Path) -> None:
    history: list[Operation] = []
    with volume() as disk:
        state = disk.path / "fibcore.db"
        settings = {"FIB_SYNCHRONOUS": "off"}
        command = disk.there(without(moves_its_log_often))
        with Servers(state, tmp_path, settings=settings, command=command) as servers:
            client = SequentialClient(servers.port, history)
            moments = moments_of(servers, client)
            (answer,) = (
                moment for moment in moments if moment.thread != "the commit" and moment.changes
            )
            assert cut_power_at(answer.thread, moments[answer], servers, client, disk) == answer
        with Servers(state, tmp_path, command=command) as servers:
            last = servers.client.index
    with pytest.raises(HistoryError, match="lost"):
        check(history, first=0, last=last)
