"""``Client``: calls that block their thread."""

import os
import select
import socket
import ssl
import time
from collections.abc import Iterable
from typing import Final, Self

from fibcore.client.calls import Ask, Call, Calls, Node, T
from fibcore.client.number import Number
from fibcore.client.replies import BrokenReplyError, Lost, Reply, ReplyReader

CHUNK: Final = 2**18
"""Bytes."""


class Client:
    """A client of a fibcore server, or of several that step one sequence.

    A step is made once, however often it must be asked for: each has an ``Idempotency-Key`` of its
    own, with which it is asked for again after a lost answer, a 503 or a time-out, at another
    server if there is one, after waits that grow, until there is an answer or the time is over.

    Several threads may share a client. Connections are kept; ``close``, or ``with``, closes them.

    Args:
        urls: of the server, such as ``http://127.0.0.1:8080`` or ``https://user:password@host``, or
            of several.
        timeout: seconds that a call takes at most, all its attempts together.
        attempt_timeout: seconds after which an attempt is taken for lost, but of ``number``.

    Raises:
        ValueError: an argument is not what it must be.
    """

    def __init__(
        self,
        urls: str | Iterable[str] = "http://127.0.0.1:8080",
        *,
        timeout: float = 30.0,
        attempt_timeout: float = 5.0,
    ) -> None:
        self._calls = Calls(urls, timeout, attempt_timeout)
        self._tls = tls_context(self._calls.nodes)
        self._idle: dict[Node, list[socket.socket]] = {}
        self._process = os.getpid()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept. The client can still be used, and makes new ones."""
        while self._idle:
            for connection in self._idle.popitem()[1]:
                connection.close()

    def next(self, *, key: str | None = None, timeout: float | None = None) -> Number:
        """Step, and return the number reached.

        Args:
            key: of a step that was asked for before, from ``StepInDoubtError`` or ``new_key``.
            timeout: seconds, instead of the client's.

        Raises:
            NoAnswerError, UnavailableError: nothing has stepped.
            StepInDoubtError: the step may or may not have been made; ``key`` asks again.
            KeyForgottenError: the server no longer knows what became of the step with ``key``.
            KeyAheadError: ``key`` is from another sequence, or this one has fallen back.
            LargestIndexError: there is no next number on this server.
            RejectedError: nothing has stepped, and asking again does not help.
            UnexpectedReplyError: what answers is not a fibcore server.
            ValueError: ``key`` is none.
        """
        return self._run(self._calls.next(key, timeout))

    def current(self, *, timeout: float | None = None) -> Number:
        """Return the number where the sequence is.

        Raises:
            NoAnswerError, UnavailableError, RejectedError, UnexpectedReplyError: see there.
        """
        return self._run(self._calls.current(timeout))

    def previous(self, *, timeout: float | None = None) -> Number:
        """Return the number before the current one; at index 0 the one there.

        Raises:
            NoAnswerError, UnavailableError, RejectedError, UnexpectedReplyError: see there.
        """
        return self._run(self._calls.previous(timeout))

    def number(self, index: int, *, timeout: float | None = None) -> Number:
        """Return the number at ``index``. A long one is computed first: give it time.

        Raises:
            NoAnswerError, UnavailableError, UnexpectedReplyError: see there.
            RejectedError: ``index`` is past the largest of this server (``code`` is 404).
            ValueError: ``index`` is not from 0 to 2^63 - 1.
        """
        return self._run(self._calls.number(index, timeout))

    def new_key(self) -> str:
        """Return a key for ``next``, to write down before the step is asked for.

        So a step is made once even if this process ends before it has the answer.

        Raises:
            NoAnswerError, UnavailableError, RejectedError, UnexpectedReplyError: see there.
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
        """A connection from before that has not ended meanwhile."""
        if self._process != os.getpid():
            # After a fork two would read from one connection, each the other's answers.
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


def tls_context(nodes: Iterable[Node]) -> ssl.SSLContext | None:
    """One that trusts whom the system trusts; ``SSL_CERT_FILE`` names others. None without TLS."""
    return ssl.create_default_context() if any(node.secure for node in nodes) else None


def _connect(node: Node, tls: ssl.SSLContext | None, deadline: float) -> socket.socket:
    """Raises OSError: no address of the node takes a connection in time."""
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
            # It detaches what it wraps, and closes that if it fails.
            return tls.wrap_socket(connection, server_hostname=node.host)
        except OSError as failed:
            connection.close()
            error = failed
    raise error


def _exchange(connection: socket.socket, ask: Ask) -> Reply:
    """Raises OSError, BrokenReplyError: the whole of an answer did not come in time."""
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
