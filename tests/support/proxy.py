"""A TCP proxy between a node and its engine, with faults.

    with Proxy(engine.port) as proxy:
        proxy.cut()                     end all connections and refuse new ones
        proxy.hold("requests")          deliver data sent from now on after ``heal``
        proxy.trickle()                 deliver replies byte by byte, two per second
        proxy.lose_a_reply(b"commit")   lose the next reply to such a request, and its connection
        proxy.lose_each(10)             lose each tenth reply
        proxy.lead_to(port)             connect to another server from now on
        proxy.heal()

It forwards bytes and knows no protocol, except that a reply follows its request. With several
ports it uses each in turn, as a load balancer does.
"""

import asyncio
import contextlib
import itertools
import socket
import threading
from collections.abc import Callable
from typing import Final, Literal, Self

from tests.support.waiting import PATIENCE

Direction = Literal["requests", "replies"]

DIRECTIONS: Final[tuple[Direction, ...]] = ("requests", "replies")

CHUNK: Final = 2**16

TRICKLE_SECONDS: Final = 0.5


class Proxy:
    """Forwards to ``ports`` of ``host``, from ``__enter__`` to ``__exit__``."""

    def __init__(self, *ports: int, host: str = "127.0.0.1") -> None:
        self._host = host
        self._upstream = itertools.cycle(ports)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.lost = threading.Semaphore(0)
        """Released for each lost reply."""
        self.accepted = 0
        """Number of connections so far."""
        self._trickles = False
        self._to_lose: list[bytes] = []
        """Substrings of requests whose replies are to be lost."""
        self._lose_each = 0
        """One reply in so many is lost; 0: none."""
        self._replies = 0
        self._is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._held: set[Direction] = set()
        """Directions in which new connections are held."""
        self._gates: list[dict[Direction, asyncio.Event]] = []
        """Per connection; a cleared event holds the direction."""
        self._thread = threading.Thread(target=self._run, name="proxy")
        self._has_begun = threading.Event()
        self._end = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._has_begun.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._loop.close()

    @property
    def connections(self) -> int:
        """Number of open connections that are not abandoned."""
        return len(self._gates)

    # From any thread.

    def cut(self) -> None:
        """End every connection, and refuse new ones."""

        def do() -> None:
            self._is_cut = True
            for writer in self._writers:
                writer.transport.abort()

        self._do(do)
        # A connection is closed by the loop's next turn; a batch sent before would be in doubt.
        self._do(lambda: None)

    def hold(self, *directions: Direction, new: bool = True) -> None:
        """Hold data in these directions until ``heal``.

        Args:
            new: also on new connections.
        """

        def do() -> None:
            self._held = set(directions) if new else set()
            for gates in self._gates:
                for each in directions:
                    gates[each].clear()

        self._do(do)

    def abandon(self) -> None:
        """Deliver nothing more on open connections, and leave them open, as a vanished host does.

        ``heal`` has no effect on them.
        """
        self.hold(*DIRECTIONS, new=False)
        self._do(self._gates.clear)

    def lose_a_reply(self, to: bytes = b"") -> None:
        """Drop the next reply to a request that contains ``to``, and end its connection."""
        self._do(lambda: self._to_lose.append(to))

    def lose_each(self, count: int) -> None:
        """Drop one reply in ``count``, and end its connection."""
        self._do(lambda: setattr(self, "_lose_each", count))

    def lead_to(self, *ports: int) -> None:
        """Forward new connections to these ports."""
        self._do(lambda: setattr(self, "_upstream", itertools.cycle(ports)))

    def trickle(self) -> None:
        """Forward replies slowly, byte by byte."""
        self._do(lambda: setattr(self, "_trickles", True))

    def heal(self) -> None:
        """End all faults."""

        def do() -> None:
            self._is_cut = self._trickles = False
            self._to_lose = []
            self._lose_each = 0
            self._held = set()
            for gates in self._gates:
                for gate in gates.values():
                    gate.set()

        self._do(do)

    def _do(self, what: Callable[[], object]) -> None:
        done = threading.Event()

        def do() -> None:
            what()
            done.set()

        self._loop.call_soon_threadsafe(do)
        assert done.wait(PATIENCE)

    # In the proxy's thread.

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connect, sock=self._listener)
        self._has_begun.set()
        await self._end.wait()
        server.close()
        for writer in self._writers:
            writer.transport.abort()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for each in others:
            each.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._is_cut:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection(self._host, next(self._upstream))
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        gates: dict[Direction, asyncio.Event] = {}
        for direction in DIRECTIONS:
            gates[direction] = asyncio.Event()
            if direction not in self._held:
                gates[direction].set()
        self._gates.append(gates)
        asked = bytearray()
        try:
            await asyncio.gather(
                self._pass_on("requests", gates, reader, back, asked),
                self._pass_on("replies", gates, there, writer, asked),
            )
        except asyncio.CancelledError:
            writer.transport.abort()
            back.transport.abort()
        finally:
            if gates in self._gates:
                self._gates.remove(gates)
            self._writers -= {writer, back}

    async def _pass_on(
        self,
        direction: Direction,
        gates: dict[Direction, asyncio.Event],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        asked: bytearray,
    ) -> None:
        """Forward data; ``asked`` holds the requests without a reply."""
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK):
                await gates[direction].wait()
                if direction == "requests":
                    asked += chunk
                else:
                    if asked and self._is_to_be_lost(asked):
                        writer.transport.abort()
                        self.lost.release()
                        return
                    asked.clear()
                    while self._trickles and len(chunk) > 1:
                        writer.write(chunk[:1])
                        chunk = chunk[1:]
                        await asyncio.sleep(TRICKLE_SECONDS)
                writer.write(chunk)
                await writer.drain()
        # Only after held data: the peer may have sent it before it closed.
        writer.close()

    def _is_to_be_lost(self, asked: bytearray) -> bool:
        """Whether to lose the reply to ``asked``, at its first piece."""
        self._replies += 1
        for to in self._to_lose:
            if to in asked:
                self._to_lose.remove(to)
                return True
        return bool(self._lose_each) and self._replies % self._lose_each == 0
