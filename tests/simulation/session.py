"""A session of a process with a server of an engine, and the faults of requests and replies.

A request is executed at one instant; the request and its reply can be late, held by a cut, lost or
duplicated. What was sent before a process closed its end, or ended, still arrives: the kernel
retransmits it.
"""

import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any

import greenlet

from tests.simulation.network import Stream
from tests.simulation.process import Process
from tests.simulation.world import Thread

if TYPE_CHECKING:
    from tests.simulation.model_engine import EngineServer


class LinkFaults:
    """Faults of all sessions, as shares of the requests from 0 to 1."""

    def __init__(self) -> None:
        self.lost_request = 0.0
        self.late_request = 0.0
        """Delayed by up to 20 s; usually the client has closed the connection by then."""
        self.lost_reply = 0.0
        self.late_reply = 0.0
        """Delayed by up to 2.5 s, with all that follows it."""
        self.duplicate = 0.0
        """A second copy of the request arrives up to 20 s later."""
        self.reset = 0.0
        """The connection breaks right after the request, which arrives."""


class Session:
    """A connection of ``process`` to ``server``. ``ask`` blocks the calling thread.

    Args:
        connect_seconds: connect timeout.

    Raises:
        ConnectionError: the server refused the connection.
        TimeoutError: the server did not respond.
    """

    def __init__(self, process: Process, server: "EngineServer", connect_seconds: float) -> None:
        self.process = process
        self.server = server
        self.is_over = False
        """Whether the server has closed its end: later requests are ignored."""
        self.is_lost = False
        """Whether the connection is silently broken."""
        self.closed = False
        """Whether the client has closed its end."""
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
        if self._chance(link_faults.lost_reply):
            self.server.log(f"replies to {self.process}: the reply is lost")
            self.is_lost = True
        else:
            late = self._chance(link_faults.late_reply)
            self._to_client.send(reply, 2.5 * self.process.world.random.random() if late else 0.0)

    def reset(self) -> None:
        """Close the server's end."""
        if not self.is_over:
            self.is_over = True
            if self in self.server.sessions:
                self.server.sessions.remove(self)
            self._to_client.send(ConnectionResetError("connection reset by peer"))

    def _chance(self, share: float) -> bool:
        return share > 0.0 and self.process.world.random.random() < share

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
        if self._chance(link_faults.lost_request):
            world.log(self.process.name, f"sends a request to {server.name}: it is lost")
            self.is_lost = True
        elif self._chance(link_faults.late_request):
            seconds = 20 * world.random.random()
            world.log(self.process.name, f"sends a request that will be {seconds:.3f} s late")
            self.is_lost = True
            world.after(seconds, None, self._arrive_late, request)
        elif self._chance(link_faults.reset):
            world.log(self.process.name, "sends a request, and the connection breaks")
            self._to_server.send(request)
            self._arrive_at_client(ConnectionResetError("connection reset by peer"))
        else:
            # The creation of a record is never repeated: see ``fibcore.stores.engine``.
            if request[0] != "make" and self._chance(link_faults.duplicate):
                world.after(20 * world.random.random(), None, self._arrive_late, request)
            self._to_server.send(request)

    def _arrive_late(self, request: Any) -> None:
        self.server.log(f"receives a late request of {self.process}")
        self.server.arrived(self, request, is_copy=True)

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

    def in_one(self) -> contextlib.AbstractContextManager[None]:
        """A context that does nothing: there is one request at a time."""
        return contextlib.nullcontext()

    def has_input(self) -> bool:
        """Whether a reply or the end of the connection waits to be received."""
        return bool(self._replies)

    def close(self) -> None:
        """Close the client's end; data already sent still arrives."""
        if not self.closed:
            self.closed = True
            self._to_server.send(None)
            self._replies.clear()
