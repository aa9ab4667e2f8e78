"""A client that connects when all slots are taken gets its 503, whatever it sends."""

import select
import socket
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.faults.server_variants import closes_at_once_whom_it_turns_away, variant
from tests.support.raw_clients import locked, send_step, wait_until_all_is_read
from tests.support.servers import ServerProcess
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.processes

NEWCOMERS: Final = 300

HEAD: Final = b"POST /next HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n"
BODY: Final = bytes(5000)


def outcomes(database: Path, listener: socket.socket, command: Sequence[str]) -> Counter[bytes]:
    """The outcomes of newcomers, which send their requests before they read."""
    settings = {"FIB_MAX_CONNECTIONS": "1"}
    found: Counter[bytes] = Counter()
    with (
        ServerProcess(database, listener, settings, command=command) as server,
        ExitStack() as stack,
    ):
        client = server.wait_until_it_serves().client
        with locked(database):
            step = stack.enter_context(send_step(client))
            wait_until_all_is_read(client)
            for _ in range(NEWCOMERS):
                with client.raw() as newcomer:
                    try:
                        newcomer.sendall(HEAD)
                        select.select([newcomer], [], [], PATIENCE)
                        # It reads no answer before it has sent its request.
                        newcomer.sendall(BODY[:2500])
                        newcomer.sendall(BODY[2500:])
                        found[newcomer.makefile("rb").readline().strip()] += 1
                    except ConnectionError:
                        found[b"reset"] += 1
        assert step.recv(12) == b"HTTP/1.1 200"
    return found


def test_each_client_without_a_slot_gets_a_503(database: Path, listener: socket.socket) -> None:
    command = (sys.executable, "-m", "web")
    expected = {b"HTTP/1.1 503 Service Unavailable": NEWCOMERS}
    assert outcomes(database, listener, command) == expected


def test_closing_at_once_would_lose_the_503_to_a_reset(
    database: Path, listener: socket.socket
) -> None:
    assert outcomes(database, listener, variant(closes_at_once_whom_it_turns_away))[b"reset"]
