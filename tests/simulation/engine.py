"""The common part of simulated engines: servers, and sessions of clients with them.

A session is a connection of a process to a server. A request is executed at one instant; the
request and its reply can be late, held by a cut, or lost. Data sent before a process closes its
end, or ends, still arrives: the kernel retransmits it.
"""

from collections import deque
from typing import Any

import greenlet

from tests.simulation.network import Network, Stream
from tests.simulation.process import Process
from tests.simulation.world import Thread, World


class LinkFaults:
    """Faults of all sessions, as shares of the requests from 0 to 1."""

    def __init__(self) -> None:
        self.lost_request = 0.0
        self.late_request = 0.0
        """Delayed by up to 20 s; usually the client has closed the connection by then."""
        self.lost_reply = 0.0
        self.late_reply = 0.0
        """Delayed by up to 2.5 s, with all that follows it."""
        self.trickling = 0.0
        """A reply of bytes arrives in parts, over seconds."""
        self.reset = 0.0
        """The connection breaks right after the request, which arrives."""

    def any_faults(self) -> bool:
        """Whether any fault of requests or replies is active."""
        return bool(self.lost_request or self.late_request or self.lost_reply or self.reset)


class EngineServer:
    """A server of an engine, on its own machine.

    Args:
        network: the network of its clients.
        name: its host name.
        link_faults: faults of its sessions.
    """

    def __init__(self, network: Network, name: str, link_faults: LinkFaults) -> None:
        self.network = network
        self.world: World = network.world
        self.name = name
        self.link_faults = link_faults
        self.exists = True
        """Whether the machine has been installed already."""
        self.is_up = True
        self.is_stopped = False
        self.sessions: list[Session] = []
        self.clock = 0.0
        """Clock error, seconds."""
        self._held: deque[tuple[Session, Any]] = deque()

    def log(self, what: str) -> None:
        """Write a line to the trace."""
        self.world.log(self.name, what)

    def arrived(self, session: "Session", request: Any) -> None:
        """Receive a request; execute it unless the server is stopped."""
        if session.is_over:
            pass
        elif self.is_stopped:
            self._held.append((session, request))
        else:
            self.take(session, request)

    def take(self, session: "Session", request: Any) -> None:
        """Execute a request and reply."""
        raise NotImplementedError

    # Faults.

    def kill(self) -> None:
        """Crash; ``start`` restarts it."""
        if self.is_up:
            self.log("is killed")
            self.is_up = False
            self._held.clear()
            for each in list(self.sessions):
                each.reset()
            self.sessions.clear()

    def start(self) -> None:
        """Restart from the disk."""
        if self.exists and not self.is_up:
            self.log("is up again")
            self.is_up = True
            self.is_stopped = False

    def stop(self) -> None:
        """Stop as by SIGSTOP."""
        if self.is_up and not self.is_stopped:
            self.log("is stopped")
            self.is_stopped = True

    def resume(self) -> None:
        """Continue as by SIGCONT."""
        if self.is_stopped:
            self.log("is resumed")
            self.is_stopped = False
            while self._held:
                session, request = self._held.popleft()
                if not session.is_over:
                    self.take(session, request)


class Session:
    """A connection of ``process`` to ``server``. ``ask`` blocks the calling thread.

    Args:
        connect_seconds: connect timeout.

    Raises:
        ConnectionError: the server refused the connection.
        TimeoutError: the server did not respond.
    """

    def __init__(self, process: Process, server: EngineServer, connect_seconds: float) -> None:
        self.process = process
        self.server = server
        self.is_over = False
        """Whether the server has closed its end: later requests are ignored."""
        self.is_lost = False
        """Whether the connection is silently broken."""
        self.closed = False
        """Whether the client has closed its end."""
        self.name = ""
        """The application name that the client sent."""
        self.written_offset = 0
        """The server's offset after the last write of this session."""
        self.client_closed = False
        """Whether the server has noticed that the client closed its end."""
        self._parts: dict[int, bytes] = {}
        self._part = 0
        self._replies: deque[Any] = deque()
        self._waiting: tuple[Thread, int] | None = None
        network = server.network
        self._to_server = Stream(network, process.host, server.name, self._arrive_at_server)
        self._to_client = Stream(network, server.name, process.host, self._arrive_at_client)
        self._to_server.send(self)
        assert self.receive(connect_seconds) is self

    # At the server.

    def _arrive_at_server(self, piece: Any) -> None:
        server = self.server
        if self.is_lost:
            pass
        elif piece is None:
            # A request in progress is completed.
            if self in server.sessions:
                server.sessions.remove(self)
                self.client_closed = True
        elif piece is not self:
            server.arrived(self, piece)
        elif server.is_up:
            # The kernel accepts connections even of a stopped process.
            server.sessions.append(self)
            self._to_client.send(self)
        else:
            self.is_over = True
            self._to_client.send(ConnectionRefusedError("connection refused"))

    def reply(self, reply: Any) -> None:
        """Send a reply, subject to link faults."""
        if self.is_over or self.is_lost:
            return
        link_faults = self.server.link_faults
        if link_faults.lost_reply and self._chance(link_faults.lost_reply):
            self.server.log(f"replies to {self.process}: the reply is lost")
            self.is_lost = True
        elif (
            link_faults.trickling
            and isinstance(reply, bytes)
            and self._chance(link_faults.trickling)
        ):
            world = self.process.world
            size = len(reply) // 8 + 1
            for number in range(8):
                part = reply[number * size : (number + 1) * size]
                world.after(number * world.random.random(), None, self._trickle, number, part)
        else:
            late = link_faults.late_reply and self._chance(link_faults.late_reply)
            self._to_client.send(reply, 2.5 * self.process.world.random.random() if late else 0.0)

    def _trickle(self, number: int, part: bytes) -> None:
        """Send the parts in order."""
        self._parts[number] = part
        while self._part in self._parts:
            if part := self._parts.pop(self._part):
                self._to_client.send(part)
            self._part = (self._part + 1) % 8

    def reset(self) -> None:
        """Close the server's end."""
        if not self.is_over:
            self.is_over = True
            if self in self.server.sessions:
                self.server.sessions.remove(self)
            self._to_client.send(ConnectionResetError("connection reset by peer"))

    def _chance(self, share: float) -> bool:
        return self.process.world.random.random() < share

    # At the client.

    def _arrive_at_client(self, piece: Any) -> None:
        if self.closed:
            return
        self._replies.append(piece)
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self.process.world.wake(*waiting)

    def send(self, request: Any) -> None:
        """Send a request, subject to link faults.

        Raises:
            ConnectionError: the connection is known to be broken.
        """
        self._raise_if_over()
        server = self.server
        link_faults = server.link_faults
        world = self.process.world
        if link_faults.any_faults():
            if self._chance(link_faults.lost_request):
                world.log(self.process.name, f"sends a request to {server.name}: it is lost")
                self.is_lost = True
                return
            if self._chance(link_faults.late_request):
                seconds = 20 * world.random.random()
                world.log(
                    self.process.name,
                    f"sends a request to {server.name}: it will be {seconds:.3f} s late",
                )
                self.is_lost = True
                world.after(seconds, None, self._arrive_late, request)
                return
            if self._chance(link_faults.reset):
                world.log(
                    self.process.name,
                    f"sends a request to {server.name}, and the connection breaks",
                )
                self._to_server.send(request)
                self._arrive_at_client(ConnectionResetError("connection reset by peer"))
                return
        self._to_server.send(request)

    def _arrive_late(self, request: Any) -> None:
        if not self.is_over:
            self.server.log(f"receives a late request of {self.process}")
            self.server.arrived(self, request)

    def receive(self, timeout: float) -> Any:
        """Wait for the next reply.

        Raises:
            ConnectionError: the connection is closed.
            TimeoutError: no reply arrived within ``timeout`` seconds.
        """
        if not self._replies:
            thread = greenlet.getcurrent()
            assert isinstance(thread, Thread)
            self._waiting = thread, thread.wait_number + 1
            if not self.process.world.park(timeout):
                self._waiting = None
                raise TimeoutError("timed out")
        self._raise_if_over()
        return self._replies.popleft()

    def _raise_if_over(self) -> None:
        if self._replies and isinstance(self._replies[0], ConnectionError):
            raise type(self._replies[0])(*self._replies[0].args)
        if self.closed:
            raise ConnectionAbortedError("the connection is closed")

    def ask(self, request: Any, timeout: float) -> Any:
        """Send a request and wait for its reply; see ``send`` and ``receive``."""
        self.send(request)
        return self.receive(timeout)

    def has_input(self) -> bool:
        """Whether a reply or the end of the connection waits to be received."""
        return bool(self._replies)

    def close(self) -> None:
        """Close the client's end; data already sent still arrives."""
        if not self.closed:
            self.closed = True
            self._to_server.send(None)
            self._replies.clear()
