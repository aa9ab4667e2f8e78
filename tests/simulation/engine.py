"""What all simulated engines have: servers, sessions with them, and how a client waits for a reply.

A session is a connection of one process to one server. A question arrives, is done in one moment,
and the reply is sent; each of these can be late, held by a cut, or lost. What is sent before a
process closes its end, or ends, arrives nevertheless: the kernel sends it again and again.
"""

from collections import deque
from typing import Any

import greenlet

from tests.simulation.network import Network, Stream
from tests.simulation.process import Process
from tests.simulation.world import Thread, World


class Quirks:
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
        """The connection breaks behind the question, which arrives."""

    def any(self) -> bool:
        """Whether there are any."""
        return bool(self.lost_request or self.late_request or self.lost_reply or self.reset)


class EngineServer:
    """A server of an engine, on a machine of its own.

    Args:
        network: through which it is asked.
        name: its host.
    """

    def __init__(self, network: Network, name: str, quirks: Quirks) -> None:
        self.network = network
        self.world: World = network.world
        self.name = name
        self.quirks = quirks
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

    def arrived(self, session: "Session", question: Any) -> None:
        """Take a question in, as soon as it runs."""
        if session.is_over:
            pass
        elif self.is_stopped:
            self._held.append((session, question))
        else:
            self.take(session, question)

    def take(self, session: "Session", question: Any) -> None:
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
                session, question = self._held.popleft()
                if not session.is_over:
                    self.take(session, question)


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
        self.wrote = 0
        """Up to where the server has changed by what was asked here."""
        self.is_left = False
        """Whether the server knows that."""
        self._parts: dict[int, bytes] = {}
        self._part = 0
        self._replies: deque[Any] = deque()
        self._waiting: tuple[Thread, int] | None = None
        network = server.network
        self._there = Stream(network, process.host, server.name, self._reach)
        self._back = Stream(network, server.name, process.host, self._arrive)
        self._there.send(self)
        assert self.receive(connect_seconds) is self

    # At the server.

    def _reach(self, piece: Any) -> None:
        server = self.server
        if self.is_lost:
            pass
        elif piece is None:
            # A server that is at something goes on with it.
            if self in server.sessions:
                server.sessions.remove(self)
                self.is_left = True
        elif piece is not self:
            server.arrived(self, piece)
        elif server.is_up:
            # The kernel does, also of one that is stopped.
            server.sessions.append(self)
            self._back.send(self)
        else:
            self.is_over = True
            self._back.send(ConnectionRefusedError("connection refused"))

    def reply(self, reply: Any) -> None:
        """Send something to the client."""
        if self.is_over or self.is_lost:
            return
        quirks = self.server.quirks
        if quirks.lost_reply and self._chance(quirks.lost_reply):
            self.server.log(f"replies to {self.process}, which is lost")
            self.is_lost = True
        elif quirks.trickling and isinstance(reply, bytes) and self._chance(quirks.trickling):
            world = self.process.world
            size = len(reply) // 8 + 1
            for number in range(8):
                part = reply[number * size : (number + 1) * size]
                world.after(number * world.random.random(), None, self._trickle, number, part)
        else:
            late = quirks.late_reply and self._chance(quirks.late_reply)
            self._back.send(reply, 2.5 * self.process.world.random.random() if late else 0.0)

    def _trickle(self, number: int, part: bytes) -> None:
        """Send the parts in their order, whenever each is there."""
        self._parts[number] = part
        while self._part in self._parts:
            if part := self._parts.pop(self._part):
                self._back.send(part)
            self._part = (self._part + 1) % 8

    def reset(self) -> None:
        """The server's end is closed."""
        if not self.is_over:
            self.is_over = True
            if self in self.server.sessions:
                self.server.sessions.remove(self)
            self._back.send(ConnectionResetError("connection reset by peer"))

    def _chance(self, share: float) -> bool:
        return self.process.world.random.random() < share

    # At the client.

    def _arrive(self, piece: Any) -> None:
        if self.closed:
            return
        self._replies.append(piece)
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self.process.world.wake(*waiting)

    def send(self, question: Any) -> None:
        """Send a question.

        Raises:
            ConnectionError: the connection is known to be of no use.
        """
        self._raise_if_over()
        server = self.server
        quirks = server.quirks
        world = self.process.world
        if quirks.any():
            if self._chance(quirks.lost_request):
                world.log(self.process.name, f"asks {server.name}, which is lost")
                self.is_lost = True
                return
            if self._chance(quirks.late_request):
                seconds = 20 * world.random.random()
                world.log(
                    self.process.name, f"asks {server.name}, which arrives {seconds:.3f} s late"
                )
                self.is_lost = True
                world.after(seconds, None, self._arrive_late, question)
                return
            if self._chance(quirks.reset):
                world.log(self.process.name, f"asks {server.name}, and the connection breaks")
                self._there.send(question)
                self._arrive(ConnectionResetError("connection reset by peer"))
                return
        self._there.send(question)

    def _arrive_late(self, question: Any) -> None:
        if not self.is_over:
            self.server.log(f"is asked what {self.process} has asked long ago")
            self.server.arrived(self, question)

    def receive(self, timeout: float) -> Any:
        """The next reply.

        Raises:
            ConnectionError: the connection has ended.
            TimeoutError: nothing has come in so many seconds.
        """
        if not self._replies:
            thread = greenlet.getcurrent()
            assert isinstance(thread, Thread)
            self._waiting = thread, thread.turn + 1
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

    def ask(self, question: Any, timeout: float) -> Any:
        """Send a question and wait for its reply; see ``send`` and ``receive``."""
        self.send(question)
        return self.receive(timeout)

    def has_input(self) -> bool:
        """Whether anything has arrived that was not received, such as the end."""
        return bool(self._replies)

    def close(self) -> None:
        """Let go of it; what was sent before arrives nevertheless."""
        if not self.closed:
            self.closed = True
            self._there.send(None)
            self._replies.clear()
