"""The moments of a commit: every system call that a server makes for a few steps.

A moment is identified by the calls of its thread for that step so far, so that another run can
reach it again. strace counts the calls, and its output tells where a run was cut short.

Two kinds of calls are not moments. Calls without a descriptor (futex, restart_syscall, getpid)
change no file and no connection: dying there is the same as dying at the next call, or at a call of
the other thread. The same holds for waiting on an event queue (epoll, io_uring). How many of these
there are depends on the scheduler.
"""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeAlias

from tests.faults.conftest import Fault
from tests.faults.servers import Servers
from tests.faults.tracing import Call, Point, Trace, strace
from tests.support.load import SequentialClient

STEPS: Final = 5
"""Enough for a server that checkpoints often to move its WAL into the database and restart it."""

TRIES: Final = 5
"""Attempts to reach a moment: a thread that is quicker than usual may miss it."""

WAITS: Final = ("", "anon_inode:[eventpoll]", "anon_inode:[io_uring]")
"""The files of calls that are not moments."""

CHANGES: Final = ("fdatasync", "ftruncate", "pwrite64", "write", "writev", "sendto", "sendmsg")
"""Calls that change the disk, or that others can see."""

Passed: TypeAlias = tuple[str, ...]
"""The calls of a step, up to the moment."""


class Moment(NamedTuple):
    """A thread of the server makes a system call of a step."""

    thread: str
    passed: Passed

    @property
    def changes(self) -> bool:
        return self.passed[-1].split()[0] in CHANGES


def of_commits(calls: Iterable[Call]) -> list[tuple[Passed, Point]]:
    """The commit thread: up to its notification of the event loop."""
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
    """The event loop: from that notification to the answer."""
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
    """All moments of a few steps, each with how to reach it."""
    found: dict[Moment, Point] = {}
    for name, of_steps in THREADS.items():
        with strace(thread_of(servers, name), "-y", threads=False) as trace:
            client.step(STEPS)
        for passed, point in of_steps(trace.calls):
            found.setdefault(Moment(name, passed), point)
        # The next thread, too, is traced in the first steps of a server.
        begin_anew(servers)
    return found


def begin_anew(servers: Servers) -> None:
    """Start a new server."""
    server = servers.server
    server.process.kill()
    server.wait()
    servers.fill_up()


def at_each(
    moments: dict[Moment, Point], fault: Fault, cut: Callable[[str, Point], Moment | None]
) -> None:
    """Cut a step short at each moment; fail if a moment was never reached.

    Args:
        cut: does so in a thread, and returns the moment that was reached.
    """
    missed = dict(moments)
    for _ in range(TRIES):
        for moment, point in list(missed.items()):
            fault.tried += 1
            reached = cut(moment.thread, point)
            if reached is not None:
                missed.pop(reached, None)
    assert not missed, f"never cut short there: {missed}"


def last_moment(thread: str, trace: Trace) -> Moment:
    """The moment at which a thread was cut short, or its call failed."""
    calls = trace.calls
    failed = [number for number, call in enumerate(calls) if call.injected]
    found = THREADS[thread](calls[: failed[0] + 1] if failed else calls)
    assert found, f"{thread} has done nothing: {trace.text}"
    passed, _ = found[-1]
    return Moment(thread, passed)
