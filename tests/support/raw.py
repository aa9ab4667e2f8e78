"""Raw bytes to a server and back: a stream of requests, split anywhere, and its outline."""

import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

from tests.support.checker import index_of
from tests.support.servers import Client

START: Final = b"HTTP/1.1 "
"""No body begins with this."""


@dataclass(frozen=True)
class RawAnswer:
    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes

    def field(self, name: str) -> str | None:
        """Return the value of the field with this name, given in lower case."""
        return dict(self.fields).get(name)

    @property
    def index(self) -> int | None:
        """The index, from the ETag."""
        tag = self.field("etag")
        return None if tag is None else index_of(tag)


def answers_in(received: bytes) -> list[RawAnswer]:
    """Split the bytes of complete answers, and nothing else, into answers."""
    answers, at = [], 0
    while at < len(received):
        assert received.startswith(START, at), received[at:]
        end = received.index(b"\r\n\r\n", at)
        line, *lines = received[at:end].decode("latin-1").split("\r\n")
        pairs = (each.partition(": ") for each in lines)
        fields = tuple((name.lower(), value) for name, _, value in pairs)
        at = end + 4
        # The answer to a HEAD request has a length and no body.
        has_body = at < len(received) and not received.startswith(START, at)
        size = int(dict(fields)["content-length"]) if has_body else 0
        assert at + size <= len(received), "an answer is cut off"
        answers.append(RawAnswer(int(line.split()[1]), fields, received[at : at + size]))
        at += size
    return answers


class Outcome(NamedTuple):
    """What became of a stream."""

    answers: list[RawAnswer]
    steps: int

    @property
    def closes(self) -> bool:
        """Whether the server closes the connection, of which the last answer has a warning."""
        return bool(self.answers) and self.answers[-1].field("connection") == "close"

    @property
    def outline(self) -> str:
        """The outcome in a line; without 100s, which depend on how much had arrived."""
        final = [str(each.status) for each in self.answers if each.status != 100]
        steps = f"{self.steps} step{'s' * (self.steps != 1)}"
        return f"{', '.join(final) or 'nothing'}; {steps}; {'closed' if self.closes else 'open'}"


def exchange(client: Client, pieces: Iterable[bytes], *, ends: bool) -> Outcome:
    """Send ``pieces``, and read all answers; nobody else may step meanwhile.

    Args:
        client: of the server.
        pieces: each leaves in a packet of its own.
        ends: whether the client closes its sending half; without that, the server must close.
    """
    before = client.index
    with client.raw() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The server may already have closed the connection.
        with suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
            if ends:
                connection.shutdown(socket.SHUT_WR)
        received = b""
        with suppress(ConnectionResetError):
            while data := connection.recv(2**20):
                received += data
    answers = answers_in(received)
    steps = [
        each.index
        for each in answers
        if each.status == 200 and each.field("cache-control") == "no-store" and each.index
    ]
    outcome = Outcome(answers, client.index - before)
    assert sorted(set(steps)) == steps, "answers to steps are not in order"
    return outcome
