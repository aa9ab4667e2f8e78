"""The request heads of real clients, as each of them sent ``GET /current``.

``heads.http`` has one for each client, recorded to the byte; other requests of the same client are
derived from it. load.c replaces each NUL byte by a random hex digit, and ``INDEX`` by the index in
the last ETag on the same connection.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

PLAIN: Final = "plain"
"""The shortest head: a request line and Host."""

INDEX: Final = b"\1"
DIGIT: Final = b"\0"
_FILE: Final = Path(__file__).with_name("heads.http")


@dataclass(frozen=True, slots=True)
class Request:
    """One request, without a body."""

    name: str
    raw: bytes

    def with_field(self, name: str, value: bytes) -> "Request":
        """The request with one more field, the last."""
        raw = self.raw[:-2] + name.encode() + b": " + value + b"\r\n\r\n"
        return Request(f"{self.name}, {name}", raw)


@cache
def _recorded() -> dict[str, bytes]:
    """By client."""
    found = {}
    for part in _FILE.read_bytes().split(b"# ")[1:]:
        name, _, lines = part.strip().partition(b"\n")
        found[name.decode()] = lines.replace(b"\n", b"\r\n") + b"\r\n\r\n"
    return found


def clients() -> list[str]:
    """All of them, the plain one first."""
    return list(_recorded())


def request(client: str, method: str = "GET", path: str = "/current") -> Request:
    """The request of a client. ``method`` is GET, or POST with an empty body."""
    line = f"{method} {path} ".encode()
    made = Request(f"{client}: {method} {path}", _recorded()[client])
    made = Request(made.name, made.raw.replace(b"GET /current ", line, 1))
    if method == "POST" and b"content-length:" not in made.raw.lower():
        return Request(made.name, made.with_field("Content-Length", b"0").raw)
    return made


def requests(client: str) -> list[Request]:
    """All kinds of requests of a client, for a sequence at index 5."""
    step = request(client, path="/next")
    return [
        request(client),
        step,
        request(client, "POST", "/next"),
        step.with_field("If-Match", b'"5"'),
        request(client).with_field("If-None-Match", b'"5"'),
    ]


def varying(path: str) -> Request:
    """A request through nginx whose ``X-Request-Id`` differs each time."""
    return request("nginx", path=path).with_field("X-Request-Id", DIGIT * 32)


def keyed() -> Request:
    """A step with the plain head, and a new idempotency key each time."""
    key = b'"' + INDEX + b":" + DIGIT * 32 + b'"'
    return request(PLAIN, path="/next").with_field("Idempotency-Key", key)
