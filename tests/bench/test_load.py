"""The load generator, load.c, against servers that answer from a script."""

import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bench.load import NONE, OK, Record, program, read
from tests.support.checker import MODULUS, Integers

pytestmark = pytest.mark.processes

Loaded = tuple[dict[str, int], list[Record]]
Load = Callable[..., Loaded]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return program(tmp_path_factory.mktemp("load"))


@pytest.fixture
def load(compiled: Path, tmp_path: Path) -> Load:
    """Run it against a server that does ``serve`` with its listening socket."""

    def run(serve: Callable[[socket.socket], None], *options: str) -> Loaded:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(30)
            serving = threading.Thread(target=serve, args=(listener,))
            serving.start()
            port, records = str(listener.getsockname()[1]), str(tmp_path / "records")
            where = ("--port", port, "--records", records)
            command = [str(compiled), *where, "--seconds", "20", *options]
            done = subprocess.run(command, capture_output=True, check=True, timeout=60)
            serving.join(30)
        return json.loads(done.stdout), read(tmp_path / "records")

    return run


def answer(
    listener: socket.socket, bodies: Sequence[bytes], stall: float = 0, cut: int = 0
) -> None:
    """Answer with each body in turn, the first after ``stall`` seconds, in pieces of ``cut``."""
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        for i, body in enumerate(bodies):
            connection.recv(4096)
            time.sleep(stall * (i == 0))
            head = b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\nETag: "%d"\r\n\r\n'
            data = head % (len(body), i) + body
            for at in range(0, len(data), cut or len(data)):
                connection.sendall(data[at : at + (cut or len(data))])


@pytest.mark.parametrize("integers", ["exact", "uint64"])
@pytest.mark.parametrize("cut", [0, 7])
def test_the_residue_of_numbers_of_every_length_is_recorded(
    load: Load, integers: Integers, cut: int
) -> None:
    numbers = [int("9876543210" * 5) // 10**digits for digits in range(49)]
    bodies = [b'{"current": %d}' % number for number in numbers]
    options = ["--stream", "/current", "--requests", str(len(bodies))]
    options += ["--uint64"] if integers == "uint64" else []
    counts, found = load(lambda listener: answer(listener, bodies, cut=cut), *options)
    assert [each.residue for each in found] == [number % MODULUS[integers] for number in numbers]
    assert [each.index for each in found] == list(range(len(bodies)))
    assert (counts["issued"], counts["lost"], counts["unsent"]) == (len(bodies), 0, 0)


@pytest.mark.parametrize(
    "body", [b'{"current": 12x}', b'{"current": 1234567x901234567}', b'{"next": 1}', b'{"curr']
)
def test_a_body_without_exactly_one_number_is_recorded_as_malformed(
    load: Load, body: bytes
) -> None:
    _, found = load(
        lambda listener: answer(listener, [body]), "--stream", "/current", "--requests", "1"
    )
    assert [each.status for each in found] == [1]


def test_a_stall_adds_to_the_latency_of_all_requests_due_meanwhile(load: Load) -> None:
    bodies = [b'{"current": 1}'] * 10
    options = ("--stream", "/current:100", "--requests", "10")
    _, found = load(lambda listener: answer(listener, bodies, stall=0.3), *options)
    for i, each in enumerate(found):  # due every 10 ms, all answered after the 300 ms
        assert each.due - found[0].due == i * 10_000_000
        assert each.done - each.due >= 300_000_000 - i * 10_000_000
    assert len(found) == 10


def test_a_lost_connection_is_a_lost_request_and_is_reopened(load: Load) -> None:
    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.recv(4096)
        connection.close()
        answer(listener, [b'{"current": 1}'])

    counts, found = load(serve, "--stream", "/current", "--requests", "2")
    assert [each.status for each in found] == [0, OK]
    assert (counts["opened"], counts["lost"], counts["refused"]) == (2, 1, 0)


def test_a_request_is_sent_with_its_varying_fields(load: Load, tmp_path: Path) -> None:
    received: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            for _ in range(2):
                received.append(connection.recv(4096))
                connection.sendall(b'HTTP/1.1 412 No\r\nContent-Length: 0\r\nETag: "7"\r\n\r\n')

    request = tmp_path / "request"
    request.write_bytes(b'GET /next HTTP/1.1\r\nX: \0\0\0\0\0\0\0\0\r\nIf-Match: "\1"\r\n\r\n')
    _, found = load(serve, "--stream", "/next", "--request", str(request), "--requests", "2")
    assert [(each.status, each.index, each.residue) for each in found] == [(412, 7, NONE)] * 2
    pattern = rb'GET /next HTTP/1.1\r\nX: ([0-9a-f]{8})\r\nIf-Match: "(\d)"\r\n\r\n'
    (first, before), (second, after) = (re.findall(pattern, each)[0] for each in received)
    assert first != second
    assert (before, after) == (b"0", b"7")
