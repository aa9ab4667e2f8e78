"""Requests that never end: they do not fill the memory of a real server."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from tests.faults.server_variants import takes_requests_of_any_size, variant
from tests.faults.servers import Servers
from tests.support.waiting import until
from tests.support.wire import READ

pytestmark = pytest.mark.processes

FULL: Final = 32 * 2**20

NOTHING_IS_KEPT_OF: Final = "trailers that never end"
"""They would cost time alone if they were not bounded."""

FLOODS: Final = {
    "a header that never ends": (b"GET /next HTTP/1.1\r\nX: ", b"x" * 65536),
    "headers that never end": (b"GET /next HTTP/1.1\r\n", b"If-Match: y\r\n" * 5_000),
    NOTHING_IS_KEPT_OF: (
        b"POST /next HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"If-Match: y\r\n" * 5_000,
    ),
    "requests that never end": (b"", READ * 5_000),
}


@contextmanager
def flood(servers: Servers, flood: tuple[bytes, bytes]) -> Iterator[Callable[[], int]]:
    """Yield what sends more on all connections, and tells by how much the server has grown."""
    begin, more = flood
    before = servers.memory
    with ExitStack() as stack:
        connections = [
            stack.enter_context(servers.client.raw(receive_buffer=4096)) for _ in range(40)
        ]
        for connection in connections:
            connection.sendall(begin)
            connection.setblocking(False)

        def send_more() -> int:
            for connection in connections:
                with suppress(OSError):
                    connection.send(more)
            return servers.memory - before

        yield send_more


@pytest.mark.proves("6", "the size of a head, and of what is piped behind it")
@pytest.mark.parametrize("kind", FLOODS)
def test_a_request_that_never_ends_does_not_fill_the_memory(kind: str, tmp_path: Path) -> None:
    with (
        Servers(tmp_path / "fibcore.db", tmp_path) as servers,
        flood(servers, FLOODS[kind]) as send_more,
    ):
        for _ in range(100):
            assert send_more() < FULL / 2
            assert servers.client.get("/health").status == 200


@pytest.mark.proves("6", "the size of a head…", control="unbounded")
@pytest.mark.long
@pytest.mark.parametrize("kind", [kind for kind in FLOODS if kind != NOTHING_IS_KEPT_OF])
def test_an_endless_request_would_fill_the_memory_unbounded(kind: str, tmp_path: Path) -> None:
    command = variant(takes_requests_of_any_size)
    with (
        Servers(tmp_path / "fibcore.db", tmp_path, command=command) as servers,
        flood(servers, FLOODS[kind]) as send_more,
    ):
        until(lambda: send_more() > FULL, "it takes more than it should")
