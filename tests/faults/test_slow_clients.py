"""Clients that are slow, or that do nothing: they are closed in time, and nobody waits for them.

That one of them is closed at its deadline, or gives way to another, is shown in
``tests/server/test_server.py``. Here they are many, they keep at it, and others step meanwhile.
"""

import math
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from bench.checker import Operation, check
from fibcore.stores import sqlite_file
from tests.faults.conftest import Fault
from tests.faults.load import Load
from tests.faults.server_variants import evicts_nobody, keeps_no_deadlines, variant
from tests.faults.servers import Servers
from tests.support import requires
from tests.support.waiting import PATIENCE, until

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("descriptors")]

CLIENTS: Final = 8
"""The others: how many there are."""

MEGABYTE: Final = 2**20


def is_closed(connection: socket.socket) -> bool:
    """Whether the server has closed a connection on which it has answered nothing."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


# What drips


DRIPPING: Final = {
    "a head": (b"GET /next HTTP/1.1\r\nX: ", b"x"),
    "a body": (b"POST /next HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n", b"x"),
    "chunks": (
        b"POST /next HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\nx\r\n",
    ),
    "trailers": (
        b"POST /next HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"X: y\r\n",
    ),
}

DEADLINE: Final = {"FIB_RECEIVE_TIMEOUT": "1", "FIB_SEND_TIMEOUT": "1"}

NO_DEADLINE: Final = 3.0
"""Seconds after which it is plain that there is none."""


def drip(servers: Servers, seconds: float) -> int:
    """Send a little on each of many connections, again and again; return how many are left.

    That is none as soon as the server has closed them all.
    """
    with ExitStack() as stack:
        left: dict[socket.socket, bytes] = {}
        for begin, more in 5 * list(DRIPPING.values()):
            connection = stack.enter_context(servers.client.raw())
            connection.sendall(begin)
            left[connection] = more
        end = time.monotonic() + seconds
        while left and time.monotonic() < end:
            for connection in [each for each in left if is_closed(each)]:
                del left[connection]
            for connection, more in left.items():
                with suppress(ConnectionError):
                    connection.sendall(more)
            time.sleep(0.05)
        return len(left)


@pytest.mark.proves(
    "clients",
    "send a head, a body, chunks or trailers a byte at a time",
    "closed at the deadline; nothing steps, others are answered",
)
def test_what_drips_is_closed_at_the_deadline_and_nothing_steps(tmp_path: Path) -> None:
    with Servers(tmp_path / "fibcore.db", tmp_path, settings=DEADLINE) as servers:
        with Load(servers.port, clients=CLIENTS, rate=200) as load:
            assert drip(servers, PATIENCE) == 0
            load.wait_for_steps()
        load.check(first=0, last=servers.client.index)
        assert load.refused == load.unanswered == load.errors.total() == 0


@pytest.mark.proves("clients", "send a head, a body…", control="without deadlines they stay")
def test_what_drips_would_stay_without_deadlines(tmp_path: Path) -> None:
    command = variant(keeps_no_deadlines)
    with Servers(tmp_path / "a.db", tmp_path, settings=DEADLINE, command=command) as servers:
        assert drip(servers, NO_DEADLINE) == 5 * len(DRIPPING)


LONG_INDEX: Final = 5_000_000
"""Of a number of 1 MB."""


def read_slowly(servers: Servers, seconds: float) -> None:
    """Ask for 10 MB, and read a thousand bytes of it a second, until the server closes."""
    with servers.client.raw(receive_buffer=4096) as reader:
        reader.sendall(10 * b"GET /current HTTP/1.1\r\nHost: x\r\n\r\n")
        assert reader.recv(1)
        assert servers.connections == 1

        def read_a_little() -> bool:
            with suppress(ConnectionError):
                reader.recv(10)
            return servers.connections == 0

        until(read_a_little, "the server closes the connection", seconds)


@pytest.mark.proves("clients", "read a few bytes now and then", "closed at the deadline")
def test_a_reader_that_is_too_slow_is_closed_at_the_deadline(tmp_path: Path) -> None:
    sqlite_file.create(tmp_path / "fibcore.db", LONG_INDEX)
    with Servers(tmp_path / "fibcore.db", tmp_path, settings=DEADLINE) as servers:
        read_slowly(servers, PATIENCE)
        assert servers.client.index == LONG_INDEX


@pytest.mark.proves("clients", "read a few bytes now…", control="without deadlines they stay")
def test_a_reader_that_is_too_slow_would_stay_without_deadlines(tmp_path: Path) -> None:
    sqlite_file.create(tmp_path / "a.db", LONG_INDEX)
    command = variant(keeps_no_deadlines)
    with (
        Servers(tmp_path / "a.db", tmp_path, settings=DEADLINE, command=command) as servers,
        pytest.raises(AssertionError, match="not within 3 s"),
    ):
        read_slowly(servers, NO_DEADLINE)


# What is idle

IDLE: Final = 1000

IDLERS: Final = {"FIB_MAX_CONNECTIONS": str(IDLE), "FIB_RECEIVE_TIMEOUT": "60"}


@pytest.mark.proves(
    "clients",
    "do nothing, on 1,000 connections",
    "nobody is disturbed, memory is bounded; past the bound the longest idle give way",
)
@pytest.mark.proves("pairs", "a crowd", "few connections")
def test_a_thousand_idle_connections_disturb_nobody(tmp_path: Path) -> None:
    """They make room for new ones."""
    with (
        Servers(tmp_path / "fibcore.db", tmp_path, settings=IDLERS) as servers,
        ExitStack() as stack,
    ):
        before = servers.memory
        idle = [stack.enter_context(servers.client.raw()) for _ in range(IDLE)]
        with Load(servers.port, clients=CLIENTS, rate=400) as load:
            load.wait_for_steps(100)
        load.check(first=0, last=servers.client.index)
        assert load.refused == load.unanswered == load.errors.total() == 0

        new = [stack.enter_context(servers.client.raw()) for _ in range(100)]
        closed = 0

        def enough_are_closed() -> bool:
            nonlocal closed
            closed = sum(map(is_closed, idle))
            return closed >= len(new)

        until(enough_are_closed, "there is room for the new ones")
        assert closed <= len(new) + CLIENTS
        assert all(map(is_closed, idle[:closed])), "those that were idle for longest"
        assert not any(map(is_closed, new))
        assert servers.memory - before < 24 * MEGABYTE


@pytest.mark.proves(
    "clients",
    "do nothing, on 1,000 connections",
    control="kept their places: others are turned away",
)
def test_idle_connections_in_their_places_would_shut_out_all(tmp_path: Path) -> None:
    """There are a thousand of them."""
    command = variant(evicts_nobody)
    with (
        Servers(tmp_path / "fibcore.db", tmp_path, settings=IDLERS, command=command) as servers,
        ExitStack() as stack,
    ):
        for _ in range(IDLE):
            stack.enter_context(servers.client.raw())
        assert servers.client.get("/health").status == 503


# slowhttptest

ATTACKED: Final = {
    "FIB_MAX_CONNECTIONS": "500",
    "FIB_RECEIVE_TIMEOUT": "2",
    "FIB_SEND_TIMEOUT": "2",
}

SENDING: Final = {
    # How it calls them, and its options. It also asks for the target itself, once a second.
    "slow heads": ("/current", "-H", "-i", "1"),
    "slow bodies": ("/next", "-B", "-i", "1", "-s", "8192"),
}

GROWTH: Final = 6 * MEGABYTE
"""What as many connections as there may be, and the others, may take: 4 kB each, and as much again
for what is answered. (As many as come, 3,000, take twice that.)"""

ALL_CLOSED: Final = "No open connections left"
TIME_IS_UP: Final = "Hit test time limit"


@contextmanager
def slowhttptest(
    servers: Servers, target: str, *options: str, connections: int, rate: int, seconds: int
) -> Iterator[subprocess.Popen[str]]:
    """Attack for the block, or until all connections are closed or the seconds are over."""
    program = requires.program("slowhttptest")
    command = [program, *options, "-u", f"http://127.0.0.1:{servers.port}{target}"]
    for option, value in (("-c", connections), ("-r", rate), ("-l", seconds), ("-p", 1)):
        command += (option, str(value))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as attack:
        try:
            yield attack
        finally:
            attack.kill()


def outcome(attack: subprocess.Popen[str]) -> str:
    """Why the attack ended, waited for."""
    said, _ = attack.communicate(timeout=PATIENCE)
    _, found, reason = said.partition("Exit status:")
    assert found, said
    return reason


def slowest(load: Load) -> float:
    """The longest time to an answer, in seconds."""
    return max(each.end - each.start for each in load.history if each.index is not None)


def check_load(
    fault: Fault, servers: Servers, load: Load, *, first: int, growth: int, attack: list[Operation]
) -> None:
    """Fail unless all that was answered was right, and answered within a second.

    Args:
        first: the index before the load.
        growth: by how much the server has grown, in bytes.
        attack: the steps that the attacker may have made.
    """
    last = servers.client.index
    fault.saw(
        lost=load.lost(last),
        gap=load.longest_gap,
        note=f"of {len(load.history)} requests of others none took more than "
        f"{slowest(load) * 1000:.0f} ms; the server grew by {growth / MEGABYTE:.0f} MB",
    )
    assert load.refused == load.errors.total() == 0
    assert slowest(load) < 1
    check([*load.history, *attack], first=first, last=last)


@pytest.mark.proves(
    "clients",
    "send slowly, by the thousand, or read slowly (slowhttptest)",
    "others are answered within a second; memory is bounded; all are closed",
)
@pytest.mark.long
@pytest.mark.parametrize("kind", SENDING)
def test_others_are_answered_while_slowhttptest_sends(
    fault: Fault, tmp_path: Path, kind: str
) -> None:
    """They are answered within a second."""
    with Servers(tmp_path / "fibcore.db", tmp_path, settings=ATTACKED) as servers:
        before = servers.memory
        growth = 0
        for _ in fault.tries(short=1, long=1, share=0):
            with (
                slowhttptest(
                    servers, *SENDING[kind], connections=3000, rate=300, seconds=30
                ) as attack,
                Load(servers.port, clients=CLIENTS, rate=200) as load,
            ):
                begin = time.monotonic()
                while attack.poll() is None:
                    growth = max(growth, servers.memory - before)
                    load.wait_for_steps()
                assert ALL_CLOSED in outcome(attack)
        # A slow body is no step, but slowhttptest asks for some itself, to see how the server does.
        probes = [Operation("next", begin)] * math.ceil(time.monotonic() - begin)
        check_load(fault, servers, load, first=0, growth=growth, attack=probes)
        assert growth < GROWTH
        until(lambda: servers.connections == 0, "every connection is closed")


@pytest.mark.proves(
    "clients",
    "send slowly, by the thousand…",
    control="kept in their places: others are turned away",
)
@pytest.mark.long
@pytest.mark.parametrize("kind", SENDING)
def test_slow_clients_in_their_places_would_shut_out_all(tmp_path: Path, kind: str) -> None:
    command = variant(evicts_nobody)
    with (
        Servers(tmp_path / "a.db", tmp_path, settings=ATTACKED, command=command) as servers,
        slowhttptest(servers, *SENDING[kind], connections=3000, rate=1000, seconds=10),
        Load(servers.port, clients=CLIENTS, rate=200) as load,
    ):
        load.wait_for_errors()
    assert load.errors[503]


@pytest.mark.proves(
    "clients", "send slowly, by the thousand…", control="without deadlines they stay"
)
@pytest.mark.long
def test_slow_heads_would_keep_connections_without_deadlines(tmp_path: Path) -> None:
    command = variant(keeps_no_deadlines)
    with (
        Servers(tmp_path / "a.db", tmp_path, settings=ATTACKED, command=command) as servers,
        slowhttptest(
            servers, *SENDING["slow heads"], connections=100, rate=100, seconds=5
        ) as attack,
    ):
        assert TIME_IS_UP in outcome(attack)


@pytest.mark.proves(
    "clients", "send slowly, by the thousand…", control="unbounded, they fill the memory"
)
@pytest.mark.long
def test_slow_bodies_would_fill_the_memory_unbounded(tmp_path: Path) -> None:
    """They would if they were not closed, either."""
    command = variant(keeps_no_deadlines)
    settings = ATTACKED | {"FIB_MAX_CONNECTIONS": "4000"}
    with Servers(tmp_path / "a.db", tmp_path, settings=settings, command=command) as servers:
        before = servers.memory
        with slowhttptest(
            servers, *SENDING["slow bodies"], connections=3000, rate=1000, seconds=20
        ):
            until(lambda: servers.memory - before > GROWTH, "it takes more than it should")


READING: Final = ("/current", "-X", "-w", "512", "-y", "1024", "-n", "1", "-z", "32", "-k", "5")

READERS: Final = 40
"""So many numbers of 1 MB are within the bound on the answers in flight."""


@pytest.mark.proves("clients", "send slowly, by the thousand…")
@pytest.mark.long
def test_others_are_answered_while_slowhttptest_reads(fault: Fault, tmp_path: Path) -> None:
    """They are answered within a second."""
    sqlite_file.create(tmp_path / "fibcore.db", LONG_INDEX)
    with Servers(tmp_path / "fibcore.db", tmp_path, settings=ATTACKED) as servers:
        before = servers.memory
        most = growth = 0
        for _ in fault.tries(short=1, long=1, share=0):
            with (
                Load(servers.port, clients=2, rate=20) as load,
                slowhttptest(servers, *READING, connections=READERS, rate=20, seconds=20) as attack,
            ):

                def all_are_closed() -> bool:
                    nonlocal most, growth
                    open_now = servers.connections
                    most = max(most, open_now)
                    growth = max(growth, servers.memory - before)
                    return most >= READERS and open_now < READERS // 2

                until(all_are_closed, "the readers are there, and are closed")
                assert attack.poll() is None
                load.wait_for_steps(10)
        check_load(fault, servers, load, first=LONG_INDEX, growth=growth, attack=[])
        assert growth < 96 * MEGABYTE


@pytest.mark.proves(
    "clients", "send slowly, by the thousand…", control="without deadlines they stay"
)
@pytest.mark.long
def test_slow_readers_would_keep_connections_without_deadlines(tmp_path: Path) -> None:
    sqlite_file.create(tmp_path / "a.db", LONG_INDEX)
    command = variant(keeps_no_deadlines)
    with (
        Servers(tmp_path / "a.db", tmp_path, settings=ATTACKED, command=command) as servers,
        slowhttptest(servers, *READING, connections=READERS, rate=20, seconds=20) as attack,
    ):
        until(lambda: servers.connections >= READERS, "the readers are there")
        with pytest.raises(AssertionError, match="not within 4 s"):
            until(lambda: servers.connections < READERS, "one is closed", 4)
        assert attack.poll() is None
