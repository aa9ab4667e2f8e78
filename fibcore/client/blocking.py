"""``Client``: calls that block their thread."""

import os
import select
import socket
import ssl
import time
from collections.abc import Iterable
from typing import Final, Generic, Self, TypeVar

from fibcore.client.calls import Ask, Call, Calls, Node, T
from fibcore.client.number import Number
from fibcore.client.replies import BrokenReplyError, Lost, Reply, ReplyReader

CHUNK: Final = 2**18
"""Bytes."""

C = TypeVar("C")


class BaseClient(Generic[C]):
    """What the clients have in common; ``C`` is the class of their connections."""

    def __init__(
        self,
        urls: str | Iterable[str] = "http://127.0.0.1:8080",
        *,
        timeout: float = 30.0,
        attempt_timeout: float = 5.0,
    ) -> None:
        self._calls = Calls(urls, timeout, attempt_timeout)
        is_secure = any(node.secure for node in self._calls.nodes)
        # With the system's certificates, or those in SSL_CERT_FILE.
        self._tls = ssl.create_default_context() if is_secure else None
        self._idle: dict[Node, list[C]] = {}
        self._process = os.getpid()


class Client(BaseClient[socket.socket]):
    """A client of a fibcore server, or of several that step one sequence.

    Each step is made once: it has its own ``Idempotency-Key``. After a lost answer, a 503 or a
    timeout the client asks again with the same key, at another server if there is one and after
    growing waits, until an answer arrives or time runs out.

    Several threads may share a client. It keeps connections open until ``close``, or the end of
    ``with``.

    Args:
        urls: of the server, such as ``http://127.0.0.1:8080`` or ``https://user:password@host``, or
            of several servers of one sequence.
        timeout: seconds that a call may take, all attempts together.
        attempt_timeout: seconds after which an attempt counts as lost, except for ``number``.

    Raises:
        ValueError: an argument is invalid.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections. The client can still be used, and opens new ones."""
        while self._idle:
            for connection in self._idle.popitem()[1]:
                connection.close()

    def next(self, *, key: str | None = None, timeout: float | None = None) -> Number:
        """Step, and return the number reached.

        Args:
            key: of a step in doubt, from ``StepInDoubtError``, or from ``new_key``.
            timeout: seconds, instead of the client's.

        Raises:
            NoAnswerError, UnavailableError: this call has made no step.
            StepInDoubtError: the step may or may not have been made; ask again with its key.
            KeyForgottenError: the server no longer knows whether the step with ``key`` was made.
            KeyAheadError: ``key`` is from another sequence, or this one has lost steps.
            LargestIndexError: the sequence is at the largest index of this server.
            RejectedError: nothing has stepped, and retrying does not help.
            UnexpectedReplyError: the reply is not from a fibcore server.
            ValueError: ``key`` is malformed.
        """
        return self._run(self._calls.next(key, timeout))

    def current(self, *, timeout: float | None = None) -> Number:
        """Return the current number.

        Raises:
            NoAnswerError, UnavailableError, RejectedError, UnexpectedReplyError: see each class.
        """
        return self._run(self._calls.current(timeout))

    def previous(self, *, timeout: float | None = None) -> Number:
        """Return the number before the current one; at index 0, the current one.

        Raises:
            NoAnswerError, UnavailableError, RejectedError, UnexpectedReplyError: see each class.
        """
        return self._run(self._calls.previous(timeout))

    def number(self, index: int, *, timeout: float | None = None) -> Number:
        """Return the number at ``index``. A long one is computed first, so allow time for it.

        Raises:
            NoAnswerError, UnavailableError, UnexpectedReplyError: see each class.
            RejectedError: ``index`` is past the largest index of this server (``code`` is 404).
            ValueError: ``index`` is not from 0 to 2^63 - 1.
        """
        return self._run(self._calls.number(index, timeout))

    def new_key(self) -> str:
        """Return a key for ``next``, to be saved before the step is requested.

        Then the step is made once, even if this process exits before it gets the answer.

        Raises:
            NoAnswerError, UnavailableError, RejectedError, UnexpectedReplyError: see each class.
        """
        return self._run(self._calls.new_key())

    def _run(self, call: Call[T]) -> T:
        result: Reply | Lost | None = None
        while True:
            try:
                asked = call.send(result)
            except StopIteration as stop:
                value: T = stop.value
                return value
            if isinstance(asked, Ask):
                result = self._ask(asked)
            else:
                time.sleep(asked.seconds)
                result = None

    def _ask(self, ask: Ask) -> Reply | Lost:
        connection = None
        sent = False
        try:
            connection = self._kept(ask.node) or _connect(ask.node, self._tls, ask.deadline)
            sent = True
            reply = _exchange(connection, ask)
        except (OSError, BrokenReplyError) as error:
            return Lost.by(error, sent=sent)
        else:
            if reply.reusable:
                self._idle.setdefault(ask.node, []).append(connection)
                connection = None
            return reply
        finally:
            if connection is not None:
                connection.close()

    def _kept(self, node: Node) -> socket.socket | None:
        """An idle connection that is still open."""
        if self._process != os.getpid():
            # After a fork, two processes would read each other's answers from one connection.
            self.close()
            self._process = os.getpid()
        kept = self._idle.get(node, [])
        while kept:
            try:
                connection = kept.pop()
            except IndexError:  # Another thread has it.
                break
            poll = select.poll()
            poll.register(connection, select.POLLIN)
            if not poll.poll(0):
                return connection
            connection.close()
        return None


def _connect(node: Node, tls: ssl.SSLContext | None, deadline: float) -> socket.socket:
    """Raises OSError: no address of the node accepts a connection in time."""
    error = OSError("the host name has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(
        node.host, node.port, type=socket.SOCK_STREAM
    ):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(_left(deadline))
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is None or not node.secure:
                return connection
            # It detaches the socket, and closes it on failure.
            return tls.wrap_socket(connection, server_hostname=node.host)
        except OSError as failed:
            connection.close()
            error = failed
    raise error


def _exchange(connection: socket.socket, ask: Ask) -> Reply:
    """Raises OSError, BrokenReplyError: no complete answer arrived in time."""
    connection.settimeout(_left(ask.deadline))
    connection.sendall(ask.request)
    reader = ReplyReader()
    while reader.reply is None:
        connection.settimeout(_left(ask.deadline))
        data = connection.recv(CHUNK)
        if not data:
            raise ConnectionError("the connection ended before the end of an answer")
        reader.feed(data)
    return reader.reply


def _left(deadline: float) -> float:
    """Seconds."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left
