"""How many connections are accepted in a turn of the event loop."""

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

import uvloop

from fibcore.appliance.process import ACCEPTS, acceptors
from tests.support.servers import listening_socket

NEWCOMERS = 4 * ACCEPTS


def accepted_by(sockets: list[socket.socket]) -> list[int]:
    """The number of queued connections that each turn accepts, of turns that accept any."""

    async def accept() -> list[int]:
        loop = asyncio.get_running_loop()
        turn = 0
        accepted: Counter[int] = Counter()
        done = asyncio.Event()

        class Newcomer(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                accepted[turn] += 1
                transport.close()
                if accepted.total() == NEWCOMERS:
                    done.set()

        def count() -> None:
            nonlocal turn
            turn += 1
            if not done.is_set():
                loop.call_soon(count)

        servers = [await loop.create_server(Newcomer, sock=each) for each in sockets]
        count()
        async with asyncio.timeout(60):
            await done.wait()
        for server in servers:
            server.close()
            await server.wait_closed()
        return [accepted[each] for each in sorted(accepted)]

    with ExitStack() as stack:
        for _ in range(NEWCOMERS):
            stack.enter_context(socket.create_connection(sockets[0].getsockname()))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(accept())


def test_many_newcomers_are_accepted_per_turn() -> None:
    """Without this, uvloop accepts one per turn of the event loop."""
    assert max(accepted_by(acceptors(listening_socket()))) > ACCEPTS / 2
    assert max(accepted_by([listening_socket()])) == 1


def blocks_another(begin: Callable[[socket.socket], list[socket.socket]]) -> bool:
    """Whether starting to accept on a socket makes another process that accepts on it block."""
    with listening_socket() as listener, ExitStack() as stack:
        listener.setblocking(False)
        for each in begin(socket.socket(fileno=os.dup(listener.fileno()))):
            stack.enter_context(each)
        return os.get_blocking(listener.fileno())


def test_accepting_does_not_make_other_processes_block() -> None:
    """Its event loop would wait in accept(2) if the other was quicker."""
    assert not blocks_another(acceptors)


def test_a_plain_duplicate_would_make_other_processes_block() -> None:
    assert blocks_another(lambda listener: [listener, listener.dup()])
