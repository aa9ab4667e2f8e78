"""How a server bounds its clients: their time, their number, and the memory that they take."""

import contextlib
import signal
import socket
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from fibcore.admission import SHED_AT_ONCE
from fibcore.stores import sqlite_file
from tests.support.kernel_sockets import ESTABLISHED, sockets_at
from tests.support.raw_clients import (
    LONG_INDEX,
    PIPELINED,
    locked,
    read_all,
    read_first,
    send_step,
    serving,
    slow_reader,
    take_all_answers,
    wait_until_all_is_read,
)
from tests.support.reference import digits_of
from tests.support.servers import Answer, Client
from tests.support.waiting import until

pytestmark = pytest.mark.processes


# How clients are bounded


@pytest.mark.proves("6", "the time of a head, of a body, of an answer")
def test_a_head_that_does_not_end_closes_its_connection_alone(
    database: Path, listener: socket.socket
) -> None:
    with serving(database, listener, FIB_RECEIVE_TIMEOUT="0.5") as server, ExitStack() as stack:
        slow, silent = (stack.enter_context(server.client.raw()) for _ in range(2))
        slow.sendall(b"GET /current HTTP/1.1\r\n")
        slow.settimeout(0.1)
        received = None
        for _ in range(600):
            assert server.client.get("/current").status == 200
            with contextlib.suppress(TimeoutError):
                # It sends something all the time, and is late all the same.
                slow.sendall(b"X-Y: z\r\n")
                received = read_first(slow)
                break
        assert received == b""
        assert read_all(silent) == b""


@pytest.mark.proves("6", "the time of a head…")
def test_a_body_that_does_not_end_closes_its_connection(
    database: Path, listener: socket.socket
) -> None:
    with serving(database, listener, FIB_RECEIVE_TIMEOUT="0.5") as server:
        with server.client.raw() as slow:
            slow.sendall(b"POST /next HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1234")
            received = read_all(slow)
        assert received == b""
        assert server.client.index == 0


@pytest.mark.proves("6", "the time of a head…")
def test_an_answer_that_nobody_takes_closes_its_connection(
    database: Path, listener: socket.socket
) -> None:
    sqlite_file.create(database, LONG_INDEX)
    with serving(database, listener, FIB_SEND_TIMEOUT="0.5") as server:
        with slow_reader(server.client) as slow:
            until(lambda: count_connections(server.client) == 0, "the connection is closed")
            assert len(read_all(slow)) < PIPELINED * len(digits_of(LONG_INDEX))
        assert server.client.get("/health").status == 200


def count_connections(client: Client) -> int:
    """How many connections the server holds open."""
    return sum(each.state == ESTABLISHED for each in sockets_at(client.port))


@pytest.mark.proves("6", "connections")
def test_past_the_bound_on_connections_the_longest_idle_goes(
    database: Path, listener: socket.socket
) -> None:
    with serving(database, listener, FIB_MAX_CONNECTIONS="3") as server, ExitStack() as stack:
        connections = []
        for _ in range(3):
            connections.append(stack.enter_context(closing(server.client.connect())))
            assert ask(server.client, connections[-1]).status == 200
        assert server.client.get("/health").status == 200
        assert connections[0].sock.recv(1) == b""
        for connection in connections[1:]:
            assert ask(server.client, connection).status == 200


def ask(client: Client, connection: object) -> Answer:
    return client.request_on(connection, "GET", "/current")  # type: ignore[arg-type]


@pytest.mark.proves("6", "connections")
def test_past_the_bound_on_busy_connections_a_new_one_gets_503(
    database: Path, listener: socket.socket
) -> None:
    with serving(database, listener, FIB_MAX_CONNECTIONS="3") as server, ExitStack() as stack:
        with locked(database):
            steps = [stack.enter_context(send_step(server.client)) for _ in range(3)]
            wait_until_all_is_read(server.client)
            answer = server.client.get("/current")
            assert answer.status == 503
            assert answer.headers["retry-after"] == "1"
            assert answer.headers["connection"] == "close"
            assert answer.headers["content-type"] == "application/problem+json"
            assert b"at its limit of connections" in answer.body
        for step in steps:
            assert step.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        assert server.client.get("/current").index == 3


@pytest.mark.proves("6", "connections")
def test_a_request_without_its_body_gives_way_and_does_not_step(
    database: Path, listener: socket.socket
) -> None:
    with (
        serving(database, listener, FIB_MAX_CONNECTIONS="1") as server,
        server.client.raw() as slow,
    ):
        slow.sendall(b"POST /next HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1234")
        assert server.client.get("/current").status == 200
        assert read_all(slow) == b""
        assert server.client.get("/current").index == 0


def test_a_client_that_is_still_taking_its_answer_is_not_idle(
    database: Path, listener: socket.socket
) -> None:
    sqlite_file.create(database, LONG_INDEX)
    with ExitStack() as stack:
        server = stack.enter_context(serving(database, listener, FIB_MAX_CONNECTIONS="1"))
        slow = stack.enter_context(slow_reader(server.client))
        assert server.client.get("/current").status == 503
        take_all_answers(slow)
        until(lambda: server.client.get("/current").status == 200, "it is idle now")
        assert slow.recv(1) == b""


@pytest.mark.proves("6", "bytes of answers in flight")
def test_past_the_bound_on_bytes_in_flight_a_step_gets_503(
    database: Path, listener: socket.socket
) -> None:
    """Numbers that are shared go on."""
    sqlite_file.create(database, LONG_INDEX)
    two_numbers = str(2 * len(digits_of(LONG_INDEX)) + 1_000)
    with (
        serving(database, listener, FIB_MAX_ANSWER_BYTES=two_numbers) as server,
        ExitStack() as stack,
    ):
        client = server.client
        first = stack.enter_context(slow_reader(client))
        assert client.get("/next").index == LONG_INDEX + 1
        stack.enter_context(slow_reader(client))
        answer = client.get("/next")
        assert answer.status == 503
        assert answer.headers["retry-after"] == "1"
        assert b"use all the memory" in answer.body
        assert answer.index == LONG_INDEX + 1
        assert client.get("/current").status == 200
        assert client.get("/previous").status == 200
        # The connection stays open: it is what was read that no longer counts.
        take_all_answers(first)
        until(lambda: client.get("/next").status == 200, "a step fits again")
        assert client.get("/current").index == LONG_INDEX + 2


@pytest.mark.proves(
    "6", "bytes of answers in flight, of which those of clients that have gone are none"
)
@pytest.mark.proves("commit", "a client that leaves")
@pytest.mark.parametrize("header", ["Host: x", "Host: x\r\nConnection: close"])
def test_a_number_for_a_client_that_has_gone_is_not_in_flight(
    header: str, database: Path, listener: socket.socket
) -> None:
    sqlite_file.create(database, LONG_INDEX)
    with serving(database, listener, FIB_MAX_ANSWER_BYTES=str(2**20)) as server:  # of one number
        with locked(database):
            with server.client.raw() as gone:
                gone.sendall(f"GET /next HTTP/1.1\r\n{header}\r\n\r\n".encode())
                wait_until_all_is_read(server.client)
            assert server.client.get("/health").status == 200
        until(lambda: server.client.get("/current").index > LONG_INDEX, "the step is made")
        until(lambda: server.client.get("/next").status == 200, "there is room for a number")


def test_a_number_too_large_beside_those_in_flight_gets_503(
    database: Path, listener: socket.socket
) -> None:
    sqlite_file.create(database, LONG_INDEX)
    one_number = str(len(digits_of(LONG_INDEX)) + 1_000)
    settings = {"FIB_MAX_ANSWER_BYTES": str(max(int(one_number), 2**20))}
    with serving(database, listener, **settings) as server:
        with slow_reader(server.client, "/previous"):
            answer = server.client.get("/current")
            assert answer.status == 503
            assert b"use all the memory" in answer.body
            assert answer.headers["cache-control"] == "no-cache"
            assert answer.index == LONG_INDEX
        until(lambda: server.client.get("/current").status == 200, "it fits again")


@pytest.mark.proves("6", "steps that wait")
def test_past_the_bound_on_waiting_steps_a_step_gets_503(
    database: Path, listener: socket.socket
) -> None:
    """Reads go on."""
    with serving(database, listener, FIB_MAX_WAITING_STEPS="2") as server, ExitStack() as stack:
        with locked(database):
            steps = [stack.enter_context(send_step(server.client)) for _ in range(2)]
            wait_until_all_is_read(server.client)
            for headers in ({}, {"Connection": "close"}):  # with and without the fast path
                answer = server.client.get("/next", headers)
                assert answer.status == 503
                assert answer.headers["retry-after"] == "1"
                assert b"2 steps already wait for the disk" in answer.body
                assert answer.index == 0
            assert server.client.get("/current").body == b'{"current": 0}'
            assert server.client.get("/health").status == 200
        for step in steps:
            assert step.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        assert server.client.get("/next").index == 3


@pytest.mark.proves("6", "the pace of 503, and how many wait for one")
@pytest.mark.proves("pairs", "a stop", "steps that wait for their 503")
@pytest.mark.proves("bounds", "waiting steps", "steps that wait for their 503, and a stop")
def test_a_stop_answers_the_steps_that_wait_for_their_503(
    database: Path, listener: socket.socket
) -> None:
    with serving(database, listener, FIB_MAX_WAITING_STEPS="1") as server, ExitStack() as stack:
        with locked(database):
            steps = [stack.enter_context(send_step(server.client)) for _ in range(6 * SHED_AT_ONCE)]
            wait_until_all_is_read(server.client)
            server.signal(signal.SIGTERM)
            for step in steps[1:]:
                assert read_all(step).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert read_all(steps[0]).startswith(b"HTTP/1.1 200 OK\r\n")
        assert server.wait() == 0
