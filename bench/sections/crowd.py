"""A crowd of new connections beside as many busy ones: how long the last one waits."""

import selectors
import socket
import time
from collections.abc import Iterator

from bench import servers
from bench.load import generator, loads
from bench.load.loads import Run
from bench.suite import Suite

SIZE = 1_000  # busy connections, and new ones
STREAMS = ("current", "next")
SECONDS = 4.0  # duration of the load on the busy connections
BEFORE = 1.0  # seconds of that load before the crowd arrives
PATIENCE = 30.0  # seconds to wait for an answer
REQUEST = b"GET /current HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def arrive(port: int, count: int, patience: float = PATIENCE) -> Iterator[float]:
    """Open ``count`` connections at once, send a request on each, and yield the answers' times.

    The time, in seconds, is from before the first connection is opened to the last byte of the
    answer. A client that is refused, shed or not answered within `patience` yields nothing.
    """
    begin = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for _ in range(count):
            opening = socket.socket()
            opening.setblocking(False)
            opening.connect_ex(("127.0.0.1", port))
            selector.register(opening, selectors.EVENT_WRITE, bytearray())
        while selector.get_map() and time.monotonic() < begin + patience:
            for key, events in selector.select(0.1):
                client, data = key.fileobj, key.data
                assert isinstance(client, socket.socket)
                try:
                    if events & selectors.EVENT_WRITE:
                        client.sendall(REQUEST)
                        selector.modify(client, selectors.EVENT_READ, data)
                        continue
                    part = client.recv(65_536)
                except OSError:
                    part = b""
                data += part
                if part and not _whole(data):
                    continue
                selector.unregister(client)
                client.close()
                if part and data.startswith(b"HTTP/1.1 200 "):
                    yield time.monotonic() - begin
        for key in list(selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()


def _whole(data: bytearray) -> bool:
    """Whether this is a complete answer with a number."""
    return b"\r\n\r\n" in data and data.endswith(b"}")


def crowd(suite: Suite) -> None:
    """1,000 new connections at once beside 1,000 in a closed loop."""
    suite.say(f"crowd: {SIZE:,} new connections at once beside {SIZE:,} busy ones")
    waits: list[float] = []
    missing = 0
    for number in range(suite.effort.crowds):
        with servers.fibcore(suite.folder, 90, "uint64") as server:
            run = Run.of("crowd", server, "all", SIZE, round=number)
            run.first_index = loads.where(server)
            process = generator.start(
                suite.folder, server, STREAMS, connections=SIZE, seconds=SECONDS, check_every=16
            )
            time.sleep(BEFORE)
            times = list(arrive(server.port, SIZE))
            recorded = generator.finish(suite.folder, server, STREAMS, process)
            loads.summarize(run, recorded)
            run.last_index = loads.where(server)
            suite.add(run)
        waits += times
        missing += SIZE - len(times)
        suite.say(f"{len(times):,} were answered, the last one after {max(times, default=0):.2f} s")
    suite.crowd = {
        "connections": SIZE,
        "busy connections": SIZE,
        "times": suite.effort.crowds,
        "not served": missing,
        "longest s": max(waits, default=None),
        "median s": sorted(waits)[len(waits) // 2] if waits else None,
    }
