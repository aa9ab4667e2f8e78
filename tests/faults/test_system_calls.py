"""A commit is cut short at each of its system calls, one after the other.

What a server does for a few steps is written down by strace; then, for each call in that list,
the same is done again and the process dies as it enters that call, or the power is cut as it
leaves it. So no instant of a commit is left to chance.
"""

import http.client
import signal
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, NamedTuple

import gmpy2
import pytest

from tests.faults.conftest import Fault
from tests.faults.disks import Volume, volume
from tests.faults.history import PRIME, HistoryError, Operation, check
from tests.faults.servers import Servers
from tests.faults.tracing import strace
from tests.faults.unprotected import answers_before_the_commit, moves_its_log_often, without
from tests.support.supervised import PATIENCE, until

pytestmark = pytest.mark.long

STEPS: Final = 5
"""Enough for a server that does so often to move its log into the database and begin it anew."""

CHANGES: Final = ("fdatasync", "ftruncate", "pwrite64", "write")
"""Calls that change what is on the disk, or what others are told."""


class Point(NamedTuple):
    """A moment: when a thread of the server makes this call for the so-manieth time."""

    call: str
    number: int


class Client:
    """One client that steps and writes down what it is told."""

    def __init__(self, servers: Servers, history: list[Operation]) -> None:
        self._port = servers.port
        self._history = history

    def step(self) -> None:
        """Step ``STEPS`` times, on one connection, or until there is no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        with closing(connection), suppress(OSError, http.client.HTTPException):
            for _ in range(STEPS):
                self._step(connection)

    def _step(self, connection: http.client.HTTPConnection) -> None:
        start = time.monotonic()
        try:
            connection.request("POST", "/next")
            response = connection.getresponse()
            body = response.read()
        except BaseException:
            self._history.append(Operation("next", start))
            raise
        assert response.status == 200
        self._history.append(
            Operation(
                "next",
                start,
                time.monotonic(),
                int(response.headers["ETag"].strip('"')),
                int(gmpy2.mpz(body[len(b'{"next": ') : -1]) % PRIME),
            )
        )


def points_of(servers: Servers, client: Client) -> list[Point]:
    """All that there is to a few steps."""
    with strace(servers.server.pid) as trace:
        client.step()
    return [
        Point(call, number)
        for call, count in sorted(trace.calls().items())
        for number in range(1, count + 1)
    ]


# Killed


def kill_at(point: Point, servers: Servers, client: Client) -> bool:
    """Step, and have the server killed there; tell whether it came there."""
    server = servers.server
    with strace(server.pid, f"--inject={point.call}:signal=KILL:when={point.number}"):
        client.step()
    return server.process.poll() is not None


def test_a_server_killed_at_any_system_call_of_a_commit_loses_nothing(
    fault: Fault, tmp_path: Path
) -> None:
    history: list[Operation] = []
    command = without(moves_its_log_often)
    with Servers(tmp_path / "fibcore.db", tmp_path, standbys=2, command=command) as servers:
        client = Client(servers, history)
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
        assert kill_at(Point("pwrite64", 2), servers, Client(servers, history))
        last = servers.client.index
    with pytest.raises(HistoryError, match="lost"):
        check(history, first=0, last=last)


# Without power


def cut_power_at(point: Point, servers: Servers, client: Client, disk: Volume) -> bool:
    """Step, and cut the power there; tell whether the server came there."""
    server = servers.server
    threads = len(list(Path(f"/proc/{server.pid}/task").iterdir()))
    with strace(server.pid, f"--inject={point.call}:signal=STOP:when={point.number}") as trace:
        stepping = threading.Thread(target=client.step)
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
    points: list[Point] | None = None
    reached = 0
    with volume() as disk:
        state = disk.path / "fibcore.db"
        command = disk.there(without(moves_its_log_often))
        for at in fault.tries(short=0, long=1000, share=0.1):
            with Servers(state, tmp_path, command=command) as servers:
                client = Client(servers, history)
                if points is None:
                    points = [each for each in points_of(servers, client) if each.call in CHANGES]
                check(history, first=0, last=servers.client.index)
                if at == len(points):
                    break
                reached += cut_power_at(points[at], servers, client, disk)
    fault.saw(lost=0, note=f"{reached} calls that change something")
