"""The requests of real clients, to the byte, recorded by `python -m bench.heads.record`.

``data/<client>.http`` holds the requests of one client one after the other, as on a connection:
`nc` could send the file. ``requests()`` parses it. The host is always 127.0.0.1:8080; the length
of a body is from Content-Length or its chunks.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

DATA: Final = Path(__file__).parent / "data"
HOST: Final = b"127.0.0.1:8080"
PLAINEST: Final = "wrk"
"""The client with the shortest head: a request line and Host."""

_CHUNKS: Final = re.compile(rb"(?:[0-9a-fA-F]+[^\r\n]*\r\n.*?\r\n)*?0\r\n\r\n", re.DOTALL)
_TAGS: Final = ("if-match", "if-none-match")


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a client.

    ``head`` ends with the empty line; ``body`` is as sent, chunks and all.
    """

    client: str
    head: bytes
    body: bytes = b""

    @property
    def raw(self) -> bytes:
        """All bytes of the request."""
        return self.head + self.body

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode()

    @property
    def path(self) -> str:
        return self.head.split(b" ", 2)[1].decode()

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The header fields in their order, with names in lower case."""
        lines = self.head.decode("latin-1").split("\r\n")[1:-2]
        pairs = (line.partition(":") for line in lines)
        return [(name.lower(), value.strip(" \t")) for name, _, value in pairs]

    def field(self, name: str) -> str | None:
        """The first value of a field; ``name`` is in lower case."""
        return next((value for found, value in self.fields if found == name), None)

    @property
    def condition(self) -> str | None:
        """The name of its If-Match or If-None-Match, in lower case, if it has one."""
        return next((name for name, _ in self.fields if name in _TAGS), None)

    @property
    def closes(self) -> bool:
        """Whether the client wants the connection closed after the answer: RFC 9112, 9.3."""
        options = (self.field("connection") or "").lower()
        if b" HTTP/1.0\r\n" in self.head:
            return "keep-alive" not in options
        return "close" in options

    @property
    def name(self) -> str:
        """The client and its request, for people and test IDs."""
        asked = f"{self.client}: {self.method} {self.path}"
        if self.condition:
            asked += f" {self.condition}"
        return asked + (" with a body" if self.body else "")

    def with_field(self, name: str, value: bytes) -> "Request":
        """The request with one more field, the last."""
        return replace(self, head=self.head[:-2] + name.encode() + b": " + value + b"\r\n\r\n")

    def without_field(self, name: str) -> "Request":
        """The request without the fields of that name, which is in lower case."""
        lines = self.head.split(b"\r\n")
        kept = [line for line in lines if line.partition(b":")[0].lower() != name.encode()]
        return replace(self, head=b"\r\n".join(kept))

    def sorted(self) -> "Request":
        """The request with its fields in alphabetical order."""
        first, *lines = self.head[:-4].split(b"\r\n")
        return replace(self, head=b"\r\n".join([first, *sorted(lines)]) + b"\r\n\r\n")


def parse(client: str, data: bytes) -> Iterator[Request]:
    """Parse the requests of a client. Raises ValueError if the last one is incomplete."""
    at = 0
    while at < len(data):
        end = data.find(b"\r\n\r\n", at) + 4
        if end < 4:
            raise ValueError(f"{client}: the head after byte {at} has no end")
        request = Request(client, data[at:end])
        at = end
        if request.field("transfer-encoding"):
            chunks = _CHUNKS.match(data, end)
            if chunks is None:
                raise ValueError(f"{client}: the body after byte {end} has no last chunk")
            at = chunks.end()
        else:
            at += int(request.field("content-length") or 0)
        if at > len(data):
            raise ValueError(f"{client}: {at - len(data)} bytes of a body are missing")
        yield replace(request, body=data[end:at])


@cache
def requests(client: str) -> tuple[Request, ...]:
    """All requests of a client, in the order of its cases."""
    return tuple(parse(client, (DATA / f"{client}.http").read_bytes()))


def clients() -> list[str]:
    """The names of all recorded clients, the plainest first."""
    names = sorted(path.stem for path in DATA.glob("*.http"))
    return sorted(names, key=lambda name: name != PLAINEST)
