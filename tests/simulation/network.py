"""The simulated network: data between machines is delayed, held by cuts, and keeps its order.

A connection is two streams. Data sent before a close, or before the process was killed, still
arrives: the kernel retransmits it until a cut has healed.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

import greenlet

from tests.simulation.process import Loop, Process
from tests.simulation.world import Thread, World

RETRANSMITTED: Final = 3.0
"""After a cut has healed, held data arrives within this time."""


class Network:
    """The links between machines, by the machines' names."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.latency = 5e-4
        """Longest usual delay, seconds."""
        self.slowness = 0.0
        """Share of data that takes up to a hundred times as long."""
        self._cut: set[tuple[str, str]] = set()
        self._held: list[Stream] = []

    def cut(self, source: str, target: str) -> None:
        """Block this direction until ``heal``."""
        self.world.log("network", f"is cut from {source} to {target}")
        self._cut.add((source, target))

    def heal(self, source: str, target: str) -> None:
        """Undo ``cut``; held data arrives some time later, in order."""
        if (source, target) not in self._cut:
            return
        self.world.log("network", f"has healed from {source} to {target}")
        self._cut.discard((source, target))
        held, self._held = self._held, []
        for stream in held:
            if (stream.source, stream.target) == (source, target):
                stream.release(self.world.random.random() * RETRANSMITTED)
            else:
                self._held.append(stream)

    def is_cut(self, source: str, target: str) -> bool:
        """Whether this direction is cut."""
        return (source, target) in self._cut

    def hold(self, stream: "Stream") -> None:
        """Release ``stream`` when its direction heals."""
        if stream not in self._held:
            self._held.append(stream)

    def delay(self) -> float:
        """Draw the delay of data sent now."""
        random = self.world.random.random
        delay = random() * self.latency
        if self.slowness and random() < self.slowness:
            delay *= 1 + 99 * random()
        return delay


class Stream:
    """One direction of a connection: pieces arrive later, in order.

    Args:
        network: carries it.
        source: the sending machine.
        target: the receiving machine.
        arrive: called with each piece; None is the end, an exception a reset.
    """

    def __init__(
        self, network: Network, source: str, target: str, arrive: Callable[[Any], object]
    ) -> None:
        self.network = network
        self.source = source
        self.target = target
        self._arrive = arrive
        self._pieces: deque[object] = deque()
        self._last = 0.0
        self._waiting = 0.0

    def send(self, piece: object, later: float = 0.0) -> None:
        """Send a piece, which arrives whole; ``later`` is an extra delay in seconds."""
        network = self.network
        self._pieces.append(piece)
        world = network.world
        when = max(self._last, self._waiting, world.now + network.delay() + later)
        self._last = when
        world.after(when - world.now, None, self._next)

    def _next(self) -> None:
        if not self._pieces:
            return
        if self.network.is_cut(self.source, self.target):
            self.network.hold(self)
        elif self._waiting <= self.network.world.now:
            self._arrive(self._pieces.popleft())

    def release(self, seconds: float) -> None:
        """Deliver held pieces in so many seconds."""
        world = self.network.world
        self._waiting = world.now + seconds
        world.after(seconds, None, self._deliver_held)

    def _deliver_held(self) -> None:
        for _ in range(len(self._pieces)):
            self._next()


class Listener:
    """A listening socket, which belongs to no process, like supervisord's.

    Args:
        network: the network of its clients.
        host: its machine.
    """

    def __init__(self, network: Network, host: str) -> None:
        self.network = network
        self.host = host
        self.backlog: deque[ClientSocket] = deque()
        self._accepting: dict[Process, Callable[[ClientSocket], object]] = {}

    def serve(self, loop: Loop, protocol: Callable[[], asyncio.Protocol]) -> None:
        """Accept connections on ``loop`` until ``pause`` or the end of its process."""
        process = loop.process

        def accept(client: ClientSocket) -> None:
            transport = Transport(loop, client)
            loop.call_soon_threadsafe(transport.begin, protocol)

        self._accepting[process] = accept
        process.at_end.append(partial(self.pause, process))
        while self.backlog:
            accept(self.backlog.popleft())

    def pause(self, process: Process) -> None:
        """Stop accepting in ``process``; without any other, connections wait in the backlog."""
        self._accepting.pop(process, None)

    def arrived(self, client: "ClientSocket") -> None:
        """Receive a connection."""
        if not self._accepting:
            self.backlog.append(client)
        else:
            self.network.world.random.choice(list(self._accepting.values()))(client)


class ClientSocket:
    """A client's end of a connection, for threads of ``process``.

    Args:
        process: the client's process.
        listener: where it connects, at once.
    """

    def __init__(self, process: Process, listener: Listener) -> None:
        network = listener.network
        self.process = process
        self.transport: Transport | None = None
        """The server's end, once accepted."""
        self.accepted_at = 0.0
        """When: no request was processed before."""
        self.closed = False
        self._early: list[object] = []
        self._received = b""
        self._end: BaseException | bool = False
        """True after the server's end of file, or its reset."""
        self._waiting: tuple[Thread, int] | None = None
        self._to_server = Stream(network, process.host, listener.host, self._arrive_at_server)
        self.to_client = Stream(network, listener.host, process.host, self._arrive_at_client)
        self._listener = listener
        self._to_server.send(self)

    def _arrive_at_server(self, piece: object) -> None:
        """Receive a piece on the server's machine."""
        if piece is self:
            self._listener.arrived(self)
        elif self.transport is None:
            self._early.append(piece)
        else:
            self.transport.arrived(piece)

    def accepted(self, transport: "Transport") -> None:
        """Connect to the server's end."""
        self.transport = transport
        self.accepted_at = self.process.world.now
        for piece in self._early:
            transport.arrived(piece)
        self._early.clear()

    def _arrive_at_client(self, piece: object) -> None:
        if self.closed or self._end:
            return
        if piece is None:
            self._end = True
        elif isinstance(piece, bytes):
            self._received += piece
        else:
            assert isinstance(piece, BaseException)
            self._end = piece
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self.process.world.wake(*waiting)

    # Called by the client.

    def send(self, data: bytes) -> None:
        """Send bytes, which arrive as one piece. Errors show up in ``receive``."""
        if not self.closed:
            self._to_server.send(data)

    def receive(self, timeout: float) -> bytes:
        """Return the received bytes; b"" at the end.

        Raises:
            TimeoutError: nothing arrived within ``timeout`` seconds.
            ConnectionError: the connection was reset.
        """
        while not self._received:
            if self._end:
                if isinstance(self._end, BaseException):
                    raise self._end
                return b""
            thread = greenlet.getcurrent()
            assert isinstance(thread, Thread)
            self._waiting = thread, thread.wait_number + 1
            if not self.process.world.park(timeout):
                self._waiting = None
                raise TimeoutError
        received, self._received = self._received, b""
        return received

    def close(self) -> None:
        """Close it; the server notices when it has read the rest, or when it writes."""
        if not self.closed:
            self.closed = True
            self._to_server.send(None)
            self._to_server.send(ConnectionResetError("connection reset by the client"))


class Transport(asyncio.Transport):
    """The server's end of a connection; behaves like the transports of asyncio and uvloop."""

    def __init__(self, loop: Loop, client: ClientSocket) -> None:
        super().__init__()
        self._loop = loop
        self._client = client
        self._protocol: asyncio.Protocol
        self._arriving: deque[object] = deque()
        self._delivering = False
        self._reading = True
        self._closing = False
        self._finished = False
        """Whether the end or a reset was sent."""
        self._lost = False
        loop.process.at_end.append(self._process_ended)

    def begin(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        """Start the protocol, on the loop."""
        self._protocol = protocol()
        self._protocol.connection_made(self)
        self._client.accepted(self)

    def _process_ended(self) -> None:
        """Send a reset, as the kernel does for a process that ends."""
        if not self._finished:
            self._client.to_client.send(ConnectionResetError("the server process ended"))
            self._finished = True
        self._lost = True

    # From the network.

    def arrived(self, piece: object) -> None:
        """Receive a piece from the client; None is its end, an exception a reset."""
        if self._lost:
            if piece is not None and not self._finished:
                self._client.to_client.send(ConnectionResetError("the connection is closed"))
            return
        self._arriving.append(piece)
        self._deliver_soon()

    def _deliver_soon(self) -> None:
        if self._arriving and self._reading and not self._delivering and not self._lost:
            self._delivering = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._delivering = False
        if self._lost or not self._arriving:
            return
        if isinstance(self._arriving[0], BaseException):
            self._lose(self._arriving.popleft())
            return
        if not self._reading or self._closing:
            if self._closing:
                self._arriving.popleft()
                self._deliver_soon()
            return
        piece = self._arriving.popleft()
        if piece is None:
            if not self._protocol.eof_received():
                self.close()
        else:
            assert isinstance(piece, bytes)
            self._protocol.data_received(piece)
        self._deliver_soon()

    # The interface of a transport.

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.1", 4711), "sockname": ("192.0.2.2", 80)}.get(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._closing or self._lost

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._deliver_soon()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writelines((bytes(data),))

    def writelines(self, pieces: Iterable[bytes | bytearray | memoryview]) -> None:
        if self._lost or self._closing:
            return
        assert not self._finished, "write after the end"
        self._client.to_client.send(b"".join(pieces))

    def write_eof(self) -> None:
        self._finish()

    def _finish(self) -> None:
        if not self._finished:
            self._finished = True
            self._client.to_client.send(None)

    def close(self) -> None:
        if not self._closing and not self._lost:
            self._closing = True
            self._lose(None)

    def abort(self) -> None:
        self._closing = True
        if not self._finished:
            self._finished = True
            self._client.to_client.send(ConnectionResetError("connection reset by the server"))
        self._lose(None)

    def _lose(self, error: object) -> None:
        if not self._lost:
            self._lost = True
            self._finish()
            self._loop.call_soon(self._protocol.connection_lost, error)
