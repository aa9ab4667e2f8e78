"""What all simulated engines have: servers, sessions with them, and how a client waits for a reply.

A session is a connection of one process to one server. A request arrives, is done in one moment,
and the reply is sent; each of these can be late, held by a cut, or lost. What is sent before a
process closes its end, or ends, arrives nevertheless: the kernel sends it again and again.
"""

from collections import deque
from typing import Any

import greenlet

from tests.simulation.network import Network, Stream
from tests.simulation.process import Process
from tests.simulation.world import Thread, World


class LinkFaults:
    """How badly sessions are treated: shares of the questions, from 0 to 1."""

    def __init__(self) -> None:
        self.lost_request = 0.0
        self.late_request = 0.0
        """It arrives up to 20 s later, on a connection that is mostly closed by then."""
        self.lost_reply = 0.0
        self.late_reply = 0.0
        """It arrives up to 2.5 s later, and what comes behind it waits for it."""
        self.trickling = 0.0
        """The reply comes in parts, over seconds, where it is bytes."""
        self.reset = 0.0
        """The connection breaks behind the request, which arrives."""

    def any_faults(self) -> bool:
        """Whether there are any."""
        return bool(self.lost_request or self.late_request or self.lost_reply or self.reset)


class EngineServer:
    """A server of an engine, on a machine of its own.

    Args:
        network: through which it is asked.
        name: its host.
    """

    def __init__(self, network: Network, name: str, link_faults: LinkFaults) -> None:
        self.network = network
        self.world: World = network.world
        self.name = name
        self.link_faults = link_faults
        self.exists = True
        """Whether there is such a machine; it may come later."""
        self.is_up = True
        self.is_stopped = False
        self.sessions: list[Session] = []
        self.clock = 0.0
        """By how much its clock is off, seconds."""
        self._held: deque[tuple[Session, Any]] = deque()

    def log(self, what: str) -> None:
        """Write a line into the trace."""
        self.world.log(self.name, what)

    def arrived(self, session: "Session", request: Any) -> None:
        """Take a request in, as soon as it runs."""
        if session.is_over:
            pass
        elif self.is_stopped:
            self._held.append((session, request))
        else:
            self.take(session, request)

    def take(self, session: "Session", request: Any) -> None:
        """Do what is asked, and reply."""
        raise NotImplementedError

    # What happens to it.

    def kill(self) -> None:
        """It ends, and comes back by ``start``."""
        if self.is_up:
            self.log("is killed")
            self.is_up = False
            self._held.clear()
            for each in list(self.sessions):
                each.reset()
            self.sessions.clear()

    def start(self) -> None:
        """It is there again, with what its disk has."""
        if self.exists and not self.is_up:
            self.log("is up again")
            self.is_up = True
            self.is_stopped = False

    def stop(self) -> None:
        """As SIGSTOP does."""
        if self.is_up and not self.is_stopped:
            self.log("is stopped")
            self.is_stopped = True

    def resume(self) -> None:
        """As SIGCONT does."""
        if self.is_stopped:
            self.log("is resumed")
            self.is_stopped = False
            while self._held:
                session, request = self._held.popleft()
                if not session.is_over:
                    self.take(session, request)


class Session:
    """A connection of ``process`` to ``server``: ``ask`` blocks the calling thread.

    Args:
        connect_seconds: how long it may take to be made.

    Raises:
        ConnectionError: nobody listens there.
        TimeoutError: nothing is heard from there.
    """

    def __init__(self, process: Process, server: EngineServer, connect_seconds: float) -> None:
        self.process = process
        self.server = server
        self.is_over = False
        """Whether the server has closed its end: what arrives is not done any more."""
        self.is_lost = False
        """Whether nothing gets through any more, and nobody knows."""
        self.closed = False
        """Whether the client has closed its end."""
        self.name = ""
        """By which the client calls itself."""
        self.written_offset = 0
        """Up to where the server has changed by what was asked here."""
        self.client_closed = False
        """Whether the server knows that."""
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
            # A server that is at something goes on with it.
            if self in server.sessions:
                server.sessions.remove(self)
                self.client_closed = True
        elif piece is not self:
            server.arrived(self, piece)
        elif server.is_up:
            # The kernel does, also of one that is stopped.
            server.sessions.append(self)
            self._to_client.send(self)
        else:
            self.is_over = True
            self._to_client.send(ConnectionRefusedError("connection refused"))

    def reply(self, reply: Any) -> None:
        """Send something to the client."""
        if self.is_over or self.is_lost:
            return
        link_faults = self.server.link_faults
        if link_faults.lost_reply and self._chance(link_faults.lost_reply):
            self.server.log(f"replies to {self.process}, which is lost")
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
        """Send the parts in their order, whenever each is there."""
        self._parts[number] = part
        while self._part in self._parts:
            if part := self._parts.pop(self._part):
                self._to_client.send(part)
            self._part = (self._part + 1) % 8

    def reset(self) -> None:
        """The server's end is closed."""
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
        """Send a request.

        Raises:
            ConnectionError: the connection is known to be of no use.
        """
        self._raise_if_over()
        server = self.server
        link_faults = server.link_faults
        world = self.process.world
        if link_faults.any_faults():
            if self._chance(link_faults.lost_request):
                world.log(self.process.name, f"asks {server.name}, which is lost")
                self.is_lost = True
                return
            if self._chance(link_faults.late_request):
                seconds = 20 * world.random.random()
                world.log(
                    self.process.name, f"asks {server.name}, which arrives {seconds:.3f} s late"
                )
                self.is_lost = True
                world.after(seconds, None, self._arrive_late, request)
                return
            if self._chance(link_faults.reset):
                world.log(self.process.name, f"asks {server.name}, and the connection breaks")
                self._to_server.send(request)
                self._arrive_at_client(ConnectionResetError("connection reset by peer"))
                return
        self._to_server.send(request)

    def _arrive_late(self, request: Any) -> None:
        if not self.is_over:
            self.server.log(f"is asked what {self.process} has asked long ago")
            self.server.arrived(self, request)

    def receive(self, timeout: float) -> Any:
        """The next reply.

        Raises:
            ConnectionError: the connection has ended.
            TimeoutError: nothing has come in so many seconds.
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
            raise ConnectionAbortedError("it is closed")

    def ask(self, request: Any, timeout: float) -> Any:
        """Send a request and wait for its reply; see ``send`` and ``receive``."""
        self.send(request)
        return self.receive(timeout)

    def has_input(self) -> bool:
        """Whether anything has arrived that was not received, such as the end."""
        return bool(self._replies)

    def close(self) -> None:
        """Let go of it; what was sent before arrives nevertheless."""
        if not self.closed:
            self.closed = True
            self._to_server.send(None)
            self._replies.clear()
