"""Unread answers in the kernel: a share of the budget, dropped in time."""

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from bench import machine
from fibcore.stores import sqlite_file
from tests.faults.conftest import SECONDS, Fault
from tests.faults.limited_memory import UNIT_LIMIT, connections_bytes, limited_memory
from tests.faults.readers import INDEX, crowd
from tests.faults.server_variants import (
    forgets_what_it_has_closed,
    keeps_all_freed_memory,
    lends_without_bound,
    variant,
)
from tests.faults.servers import Servers
from tests.support.kernel_sockets import sockets_at
from tests.support.raw_clients import read_all
from tests.support.servers import SERVER, Client
from tests.support.waiting import until
from tests.support.wire import READ
from web.http.kernel import LEAST_SHARE

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("descriptors")]

SIZE: Final = 1_003_134
"""Digits of the number at ``INDEX``."""

BUDGET: Final = 32 * 2**20
READERS: Final = 64
OVERSHOOT: Final = 4 * LEAST_SHARE
"""Bytes of a connection past its share: those on the way, and the last piece."""


def take_an_answer(connection: socket.socket) -> None:
    left = SIZE
    while left > 0:
        received = connection.recv(2**20)
        assert received
        left -= len(received)


@contextmanager
def serving(folder: Path, command: Sequence[str] = SERVER, **settings: str) -> Iterator[Servers]:
    sqlite_file.create(folder / "fibcore.db", INDEX)
    with Servers(folder / "fibcore.db", folder, settings=settings, command=command) as servers:
        yield servers


def unsent(port: int) -> list[int]:
    """Bytes in the kernel, of each connection that has any, closed ones included."""
    # By their other ends: one may be listed twice.
    return list({each.other: each.unsent for each in sockets_at(port) if each.unsent}.values())


def held_of_readers(folder: Path, command: Sequence[str] = SERVER) -> list[int]:
    """Bytes in the kernel for clients that have read some answers, and then stop."""
    with (
        serving(folder, command, FIB_MAX_ANSWER_BYTES=str(BUDGET)) as servers,
        ExitStack() as stack,
    ):
        readers = [
            stack.enter_context(servers.client.raw(receive_buffer=65_536)) for _ in range(READERS)
        ]
        for _ in range(3):
            for reader in readers:
                reader.sendall(READ)
                take_an_answer(reader)
        for reader in readers:
            reader.sendall(READ)
        # The next request is answered once as much as possible of those answers is written.
        assert servers.client.get("/health").status == 200
        return unsent(servers.port)


def test_clients_that_take_answers_share_one_budget(tmp_path: Path) -> None:
    held = held_of_readers(tmp_path)
    share = BUDGET // 2 // READERS
    assert len(held) == READERS
    assert min(held) > 2 * LEAST_SHARE
    assert max(held) < 2 * share + OVERSHOOT
    # Data sent but not yet acknowledged is in no share, and a busy machine has more of it.
    assert sum(held) < BUDGET // 2 + 2 * READERS * OVERSHOOT


def test_without_a_bound_shares_would_hold_all_answers(tmp_path: Path) -> None:
    held = held_of_readers(tmp_path, variant(lends_without_bound))
    assert sum(held) > READERS * SIZE * 3 // 4


DOCUMENT: Final = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
CLIENTS: Final = 2000 if SECONDS else 300
PIPED: Final = 40
"""As many as all of them may pipeline (``web.http.hub.MAX_KEPT``), or fewer."""

TAKEN: Final = 1_000_000
"""Of two million bytes; by then they have their shares."""


def test_a_crowd_that_stops_reading_stays_within_the_bounds(fault: Fault) -> None:
    """The answers are those of /openapi.json, which have no digits."""
    with limited_memory() as it, ExitStack() as stack:
        client = Client(f"http://127.0.0.1:{it.appliance.port}")
        for _ in range(CLIENTS):
            reader = stack.enter_context(client.raw(receive_buffer=65_536))
            reader.sendall(PIPED * DOCUMENT)
            left = TAKEN
            while left > 0:
                received = reader.recv(min(left, 2**18))
                assert received
                left -= len(received)
        assert client.get("/health").status == 200
        it.measure()
        held = connections_bytes(it.appliance.port)
        fault.tried += 1
        fault.saw(note=f"{it}; {CLIENTS} clients, {held / 2**20:.0f} MB in the kernel")
    assert it.most < UNIT_LIMIT
    assert held < 32 * 2**20 + CLIENTS * OVERSHOOT


LAST: Final = b"GET /numbers/60000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
"""The kernel holds the whole answer, so the server has written it."""

PLACES: Final = 20


def most_held_by_closed_ones(folder: Path, command: Sequence[str] = SERVER) -> int:
    """The number of connections with bytes in the kernel after 100 last answers."""
    with serving(folder, command, FIB_MAX_CONNECTIONS=str(PLACES)) as servers, ExitStack() as stack:
        for _ in range(100):
            closing = stack.enter_context(servers.client.raw(receive_buffer=4096))
            closing.sendall(LAST)
            closing.recv(1, socket.MSG_PEEK)
        assert servers.client.get("/health").status == 200
        return len(unsent(servers.port))


def test_a_closed_connection_counts_until_its_answer_is_received(tmp_path: Path) -> None:
    assert most_held_by_closed_ones(tmp_path) <= PLACES


def test_without_counting_them_closed_connections_would_fill_the_kernel(tmp_path: Path) -> None:
    assert most_held_by_closed_ones(tmp_path, variant(forgets_what_it_has_closed)) == 100


def test_a_slow_client_gets_all_of_a_last_answer(tmp_path: Path) -> None:
    with serving(tmp_path) as servers, servers.client.raw(receive_buffer=4096) as slow:
        slow.sendall(LAST.replace(b"60000", b"300000"))
        received = bytearray()
        while data := slow.recv(2048):
            received += data
        head, _, body = bytes(received).partition(b"\r\n\r\n")
        assert b"content-length: %d\r\n" % len(body) in head
        until(lambda: servers.connections <= 1, "its connection is closed")


def test_an_unread_answer_is_dropped_at_the_deadline(tmp_path: Path) -> None:
    with (
        serving(tmp_path, FIB_SEND_TIMEOUT="1") as servers,
        servers.client.raw(receive_buffer=4096) as idle,
        servers.client.raw(receive_buffer=4096) as last,
    ):
        idle.sendall(LAST.replace(b"Connection: close\r\n", b""))
        last.sendall(LAST)
        until(lambda: len(unsent(servers.port)) == 2, "they are answered")
        until(lambda: not unsent(servers.port), "the kernel holds nothing of them")
        for connection in (idle, last):
            assert len(read_all(connection)) < 12_000


def kept_of_a_crowd(folder: Path, command: Sequence[str] = SERVER) -> int:
    """Bytes that a server keeps after a crowd that left 60 numbers of 1 MB unread."""
    with serving(folder, command) as servers:
        for _ in range(3):
            assert servers.client.get("/next").status == 200
        before = machine.pss_bytes([servers.server.pid])
        with ExitStack() as stack:
            readers = crowd(servers.client, stack, 60, ["next"])
            for reader in readers:
                reader.head()
            until(
                lambda: machine.pss_bytes([servers.server.pid]) > before + 40 * 2**20,
                "they take their memory",
            )
        until(lambda: servers.connections == 0, "they have gone")
        kept = [os.sysconf("SC_PHYS_PAGES")]
        with suppress(AssertionError):
            until(
                lambda: kept_since(servers, before, kept) < 16 * 2**20,
                "it has given it back",
                seconds=3,
            )
        return kept[-1]


def kept_since(servers: Servers, before: int, kept: list[int]) -> int:
    kept.append(machine.pss_bytes([servers.server.pid]) - before)
    return kept[-1]


def test_memory_used_by_a_crowd_is_released(tmp_path: Path) -> None:
    assert kept_of_a_crowd(tmp_path) < 16 * 2**20


@pytest.mark.long
def test_malloc_alone_would_not_release_memory(tmp_path: Path) -> None:
    assert kept_of_a_crowd(tmp_path, variant(keeps_all_freed_memory)) > 32 * 2**20
