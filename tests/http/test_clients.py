"""Clients of every manner on real sockets: half-closed, piped, upgraded, slow, and at a stop.

The controls take the protection away in the server itself (``tests.faults.server_variants``).
"""

import json
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import pytest

from fibcore.stores import sqlite_file
from tests.faults.server_variants import evicts_nobody, lets_the_kernel_take_what_it_likes, variant
from tests.support.raw_clients import (
    LONG_INDEX,
    in_the_kernel,
    locked,
    read_all,
    say,
    serving,
    statuses,
    upgrade,
    wait_until_all_is_read,
)
from tests.support.servers import SERVER
from tests.support.waiting import until
from tests.support.wire import HOST, READ, STEP

pytestmark = pytest.mark.processes


# Half-closed and piped


@pytest.mark.proves("pairs", "pipelining", "a client that half-closes")
@pytest.mark.parametrize(
    "pieces", [[STEP], [STEP + STEP], [STEP, READ + STEP]], ids=["one", "two", "three"]
)
def test_each_request_of_a_client_that_half_closes_is_answered(
    pieces: list[bytes], database: Path, listener: socket.socket
) -> None:
    asked = b"".join(pieces)
    with serving(database, listener) as server:
        received = say(server.client, *pieces, b"GET /next HTTP/1.1\r\nHo")
        assert statuses(received) == [200] * asked.count(b"HTTP/1.1")
        assert server.client.index == asked.count(b"/next")


@pytest.mark.proves("pairs", "pipelining", "bytes in flight")
def test_what_was_sent_does_not_count_while_a_client_pipelines(
    database: Path, listener: socket.socket
) -> None:
    sqlite_file.create(database, 40_000)
    with serving(database, listener, FIB_MAX_ANSWER_BYTES=str(2**20)) as server:
        rounds, depth = 100, 8
        with server.client.raw() as connection, connection.makefile("rb") as reader:
            connection.sendall(STEP * depth)
            for number in range(rounds * depth):
                status = reader.readline()
                assert status == b"HTTP/1.1 200 OK\r\n", f"answer {number}"
                length = 0
                while (line := reader.readline()) != b"\r\n":
                    if line.startswith(b"content-length: "):
                        length = int(line.partition(b": ")[2])
                reader.read(length)
                if number < (rounds - 1) * depth:
                    connection.sendall(STEP)
        assert server.client.index == 40_000 + rounds * depth


@pytest.mark.proves("pairs", "pipelining", "bytes in flight")
def test_steps_piped_for_ever_do_not_make_the_server_grow(
    database: Path, listener: socket.socket
) -> None:
    with serving(database, listener, FIB_INTEGERS="uint64") as server:

        def memory() -> int:
            fields = Path(f"/proc/{server.pid}/statm").read_text().split()
            return int(fields[1]) * 4096

        def step(times: int) -> None:
            with ExitStack() as stack:
                clients = [stack.enter_context(server.client.raw()) for _ in range(50)]
                for _ in range(times // 5_000):
                    for client in clients:
                        client.sendall(STEP * 100)
                    for client in clients:
                        received = 0
                        while received < 100:
                            received += client.recv(65536).count(b"HTTP/1.1 200")

        step(20_000)
        before = memory()
        step(60_000)
        # 130 bytes a step were 8 MB.
        assert memory() - before < 4 * 2**20


# Upgrade


def test_a_step_beside_an_upgrade_waits_for_its_body(
    database: Path, listener: socket.socket
) -> None:
    with serving(database, listener) as server:
        assert say(server.client, upgrade(b"Content-Length: 100")) == b""
        assert server.client.index == 0


@pytest.mark.proves("pairs", "an offer of an upgrade", "a body that is a request")
@pytest.mark.parametrize("split", [True, False])
def test_a_body_beside_an_upgrade_is_no_request(
    split: bool, database: Path, listener: socket.socket
) -> None:
    head = upgrade(b"Content-Length: %d" % len(STEP))
    pieces = [head, STEP] if split else [head + STEP]
    with serving(database, listener) as server:
        assert statuses(say(server.client, *pieces)) == [200]
        assert server.client.index == 1


@pytest.mark.proves("pairs", "an offer of an upgrade", "a body that is a…")
def test_a_body_beside_an_upgrade_is_no_request_wherever_cut(
    database: Path, listener: socket.socket
) -> None:
    head = upgrade(b"Content-Length: %d" % (2 * len(STEP)))
    with serving(database, listener) as server:
        for end in (16_384, 32_768):
            filler = READ * ((end - len(head)) // len(READ))
            received = say(server.client, filler + head + STEP * 2 + READ)
            assert set(statuses(received)) == {200}
            assert len(statuses(received)) == filler.count(b"GET") + 2
        assert server.client.index == 2


@pytest.mark.proves("pairs", "an offer of an upgrade", "pipelining")
def test_what_is_piped_behind_an_upgrade_is_answered(
    database: Path, listener: socket.socket
) -> None:
    with serving(database, listener) as server:
        received = say(server.client, upgrade(method=b"GET") + STEP + READ)
        assert statuses(received) == [200, 200, 200]
        assert server.client.index == 2


# Bad requests


@pytest.mark.parametrize(
    "head",
    [
        b"GET /next HTTP/1.1\r\n\r\n",
        b"GET /next HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET /next HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET /next HTTP/1.1\r\nHost: a/next\r\n\r\n",
        b"GET /next HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /next HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["none", "two", "a space", "a path", "two in 1.0", "chunked in 1.0"],
)
def test_a_request_that_is_not_one_by_rfc_9112_is_rejected(
    head: bytes, database: Path, listener: socket.socket
) -> None:
    """It does not step."""
    with serving(database, listener) as server:
        received = say(server.client, head)
        assert statuses(received) == [400]
        problem = json.loads(received.partition(b"\r\n\r\n")[2])
        assert "Nothing has stepped" in problem["detail"]
        assert server.client.index == 0


def test_a_path_is_exact_also_behind_its_end(database: Path, listener: socket.socket) -> None:
    with serving(database, listener) as server:
        for target in ("/next%0A", "/next%0a", "/next%20", "/next%00", "/next/", "//next"):
            assert server.client.get(target).status == 404, target
        assert server.client.get("http://localhost").body == server.client.get("/").body
        assert server.client.get("http://localhost/next").status == 200
        assert server.client.index == 1


@pytest.mark.proves("pairs", "trailers", "conditions, representation, prefetch")
def test_trailers_are_not_headers(database: Path, listener: socket.socket) -> None:
    trailers = b'If-Match: "9"\r\nAccept: text/plain\r\nSec-Purpose: prefetch\r\n'
    body = b"1\r\nx\r\n0\r\n" + trailers + b"\r\n"
    chunked = b"POST /next HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    with serving(database, listener) as server:
        received = say(server.client, chunked + body)
        assert statuses(received) == [200]
        assert received.endswith(b'{"next": 1}')


def test_who_sends_a_megabyte_of_rubbish_can_read_the_reason(
    database: Path, listener: socket.socket
) -> None:
    with serving(database, listener) as server:
        for _ in range(20):
            with server.client.raw() as connection:
                connection.sendall(b"rubbish\r\n" * 2**16)
                received = read_all(connection)
            assert statuses(received) == [400]
            assert received.endswith(b"}")


# A stop


@pytest.mark.proves(
    "processes",
    "the server is told to stop",
    "what was taken in is answered, and nothing steps that is not; who is idle, or has sent half "
    "a request, is closed at once; who takes an answer gets the rest if at its pace that comes "
    "to an end in time (`FIB_STOP_TIMEOUT`), and is cut off if not. The standby serves when the "
    "process has ended, and not before: the lock goes with the end of the process and by nothing "
    "else, so that there is one writer",
)
@pytest.mark.proves("pairs", "pipelining", "the end of the connection")
@pytest.mark.parametrize("head", [STEP, STEP[:-2] + b"Connection: keep-alive\r\n\r\n"])
def test_a_stop_makes_no_step_that_it_does_not_answer(
    head: bytes, database: Path, listener: socket.socket
) -> None:
    with serving(database, listener) as server, server.client.raw() as connection:
        with locked(database):
            connection.sendall(head + head)
            wait_until_all_is_read(server.client)
            server.signal(signal.SIGTERM)
            server.log.expect("Shutting down")
        received = read_all(connection)
        assert server.wait() == 0
    assert statuses(received) == [200]
    assert b"connection: close\r\n" in received
    assert sqlite_file.verify_file(database) == 1


@pytest.mark.proves("processes", "the server is told to…")
@pytest.mark.proves("pairs", "a stop", "half a request")
@pytest.mark.parametrize(
    "half",
    [
        b"",
        b"GET /next HTT",
        b"POST /next HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\n",
        b"POST /next HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n",
    ],
    ids=["nothing", "half a head", "no body", "half a body"],
)
def test_half_a_request_does_not_hold_up_a_stop(
    half: bytes, database: Path, listener: socket.socket
) -> None:
    # Were it waited for, the stop would take all of the time that it may.
    with (
        serving(database, listener, FIB_STOP_TIMEOUT="60") as server,
        server.client.raw() as connection,
    ):
        connection.sendall(half)
        wait_until_all_is_read(server.client)
        server.signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        assert read_all(connection) == b""


@pytest.mark.proves("processes", "the server is told to…")
@pytest.mark.proves("pairs", "a stop", "a reader that is slow, or not")
def test_a_client_that_reads_too_slowly_does_not_hold_up_a_stop(
    database: Path, listener: socket.socket
) -> None:
    sqlite_file.create(database, LONG_INDEX)
    with (
        serving(database, listener, FIB_STOP_TIMEOUT="60") as server,
        server.client.raw(receive_buffer=4096) as connection,
    ):
        connection.sendall(READ)
        until(lambda: in_the_kernel(server.client) > 0, "the answer has begun to leave")
        server.signal(signal.SIGTERM)
        assert server.process.wait(30) == 0


@pytest.mark.proves("processes", "the server is told to…")
@pytest.mark.proves("pairs", "a stop", "a reader that is slow…")
def test_a_stop_lets_a_client_that_reads_take_its_whole_answer(
    database: Path, listener: socket.socket
) -> None:
    sqlite_file.create(database, LONG_INDEX)
    with (
        serving(database, listener, FIB_STOP_TIMEOUT="60") as server,
        server.client.raw(receive_buffer=4096) as connection,
    ):
        connection.sendall(READ + STEP)
        until(lambda: in_the_kernel(server.client) > 0, "the answer has begun to leave")
        server.signal(signal.SIGTERM)
        server.log.expect("Shutting down")
        received = read_all(connection)
        assert server.wait() == 0
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"content-length: %d\r\n" % len(body) in head
    assert sqlite_file.verify_file(database) == LONG_INDEX


# Slow readers


def unread_by_one_that_queued(
    database: Path, listener: socket.socket, command: Sequence[str] = SERVER
) -> int:
    """Bytes that the kernel takes for a client that connected before there was a server."""
    sqlite_file.create(database, LONG_INDEX)
    port = listener.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)) as early:
        early.sendall(READ * 4)
        with serving(database, listener, command=command) as server:
            until(lambda: in_the_kernel(server.client) > 0, "the answer has begun to leave")
            # It was taken as far as the kernel takes it in one go: another has been served since.
            assert server.client.get("/health").status == 200
            return in_the_kernel(server.client)


@pytest.mark.proves(
    "clients",
    "have queued before there was a server, and take nothing",
    "the kernel holds no more of their answers than of others'",
)
def test_a_client_that_queued_at_the_socket_fills_no_memory(
    database: Path, listener: socket.socket
) -> None:
    """It came before the server did; the memory is the kernel's."""
    assert unread_by_one_that_queued(database, listener) < 2**18


@pytest.mark.proves(
    "clients", "have queued before there was…", control="without that bound: it takes more"
)
def test_a_client_that_queued_would_fill_memory_without_a_bound(
    database: Path, listener: socket.socket
) -> None:
    command = variant(lets_the_kernel_take_what_it_likes)
    taken = unread_by_one_that_queued(database, listener, command)
    assert taken > 2**19


PLACES: Final = 20


def newcomer_among_slow_readers(
    database: Path, listener: socket.socket, command: Sequence[str] = SERVER
) -> int:
    """The status that a newcomer gets, soon, where slow readers of long numbers have all places."""
    sqlite_file.create(database, LONG_INDEX)
    bounds = {"FIB_MAX_CONNECTIONS": str(PLACES), "FIB_SEND_TIMEOUT": "600"}
    with (
        serving(database, listener, command=command, **bounds) as server,
        ExitStack() as stack,
    ):
        slow = [stack.enter_context(server.client.raw(receive_buffer=4096)) for _ in range(PLACES)]
        for connection in slow:
            connection.sendall(READ)
            connection.setblocking(False)
        for _ in range(100):
            for connection in slow:
                # Each takes some all the time, and is slow all the same.
                with suppress(OSError):
                    connection.recv(1024)
            if server.client.get("/health").status == 200:
                return 200
            time.sleep(0.05)
        return 503


@pytest.mark.proves("clients", "read long numbers slowly, from…")
@pytest.mark.proves("bounds", "connections", "bytes in flight, numbers of…")
def test_slow_readers_of_long_numbers_in_all_places_give_way(
    database: Path, listener: socket.socket
) -> None:
    assert newcomer_among_slow_readers(database, listener) == 200


@pytest.mark.proves(
    "clients", "read long numbers slowly, from…", control="kept their places: newcomers are 503"
)
def test_slow_readers_that_kept_their_places_would_shut_out_all(
    database: Path, listener: socket.socket
) -> None:
    assert newcomer_among_slow_readers(database, listener, variant(evicts_nobody)) == 503
