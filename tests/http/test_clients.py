"""Unusual clients on real sockets: early, noisy, careful, and costly ones."""

import socket
from pathlib import Path
from typing import Final

import pytest

from tests.http.corpus import CHUNKED, HOST, READ, request
from tests.support.limits import Served, limited, read_answer
from tests.support.raw_clients import in_the_kernel, read_all, say, serving, statuses
from tests.support.waiting import until

pytestmark = pytest.mark.processes

LONG: Final = 5_000_000
"""The index of a number of 1 MB."""

SIZE: Final = 15_000
"""Bytes of a request: nearly the largest head."""


def test_a_client_that_sends_a_megabyte_of_rubbish_can_read_the_reason(tmp_path: Path) -> None:
    with limited(tmp_path) as served:
        for _ in range(20):
            connection = served.connect(b"rubbish\r\n" * 2**16)
            received = read_all(connection)
            assert statuses(received) == [400]
            assert received.endswith(b"}")


def test_a_client_that_waits_for_100_gets_it_before_it_sends_its_body(tmp_path: Path) -> None:
    """Once, and after the answers to what was asked before."""
    with limited(tmp_path) as served:
        for framing, body in (("Content-Length: 1", b"a"), (CHUNKED, b"0\r\n\r\n")):
            client = served.connect(READ + request("POST /next", framing, "Expect: 100-continue"))
            assert read_answer(client)[2].startswith(b'{"current": ')
            assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.sendall(body + READ)
            assert [read_answer(client)[2][:5] for _ in range(2)] == [b'{"nex', b'{"cur']
        # One that sends its body at once, and one that can't know it.
        for line in ("POST /next", "POST /next HTTP/1.0"):
            asked = request(line, "Content-Length: 1", "Expect: 100-continue", body=b"a")
            assert statuses(say(served.client, asked))[-1:] == [200]
        assert statuses(say(served.client, asked)) == [200]
        assert served.client.index == 5


def test_data_queued_at_the_socket_does_not_fill_memory(
    database: Path, listener: socket.socket
) -> None:
    """It connected before the server started; the memory is the kernel's."""
    with limited(database.parent, index=LONG):
        pass
    port = listener.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)) as early:
        early.sendall(READ * 4)
        with serving(database, listener) as server:
            until(lambda: in_the_kernel(server.client) > 0, "the answer has begun to leave")
            # The kernel has taken as much as it takes at once: another client has been served
            # since.
            assert server.client.get("/health").status == 200
            assert in_the_kernel(server.client) < 2**18


# What a request may cost


def field(name: str, piece: str) -> bytes:
    """A step with one long field."""
    return request("POST /next", f"{name}: {piece * (SIZE // len(piece))}")


SHAPES: Final = {
    "a long list of Accept": field("Accept", ","),
    "a long list of Accept parameters": field("Accept", ";q=1"),
    "a long list of tags": field("If-Match", '"x",'),
    "a list of no tags": field("If-None-Match", " ,\t"),
    "a tag without an end": field("If-Match", '"'),
    "a long list of purposes": field("Sec-Purpose", ", "),
    "a long key": field("Idempotency-Key", '"1:'),
    "many lines of Accept": request("POST /next", *["Accept: text/plain" + "," * 130] * 98),
    "many options of the connection": field("Connection", "upgrade,"),
    "a long expectation": field("Expect", "100-continue,"),
    "a target of escapes": request("GET /" + "%41" * (SIZE // 3)),
    "a long query": request("GET /?" + "&a=b" * (SIZE // 4)),
    "a long host": request("GET /next", host=HOST + "a" * SIZE),
    "chunks": request("POST /next", CHUNKED, body=b"1\r\nx\r\n" * 2_500 + b"0\r\n\r\n"),
    "chunks for a page": request("POST /", CHUNKED, body=b"1\r\nx\r\n" * 2_500 + b"0\r\n\r\n"),
}


def seconds(served: Served, data: bytes) -> float:
    """The least processor time of the server for this data, of several tries."""

    def spent() -> int:
        threads = Path(f"/proc/{served.process.pid}/task").glob("*/schedstat")
        return sum(int(each.read_text().split()[0]) for each in threads)

    tries = []
    for _ in range(5):
        before = spent()
        assert statuses(say(served.client, data))
        tries.append(spent() - before)
    return min(tries) / 1e9


def test_no_request_costs_more_than_plain_ones_of_its_size(tmp_path: Path) -> None:
    with limited(tmp_path) as served:
        plain = seconds(served, READ * (SIZE // len(READ)))
        costs = {name: seconds(served, data) for name, data in SHAPES.items()}
        assert {name: costs[name] / plain for name in costs if costs[name] > plain} == {}
