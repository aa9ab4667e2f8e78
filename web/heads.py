"""What the heads of the plainest requests mean, learned once and then known by their bytes.

There is no second HTTP parser here: each distinct head goes through httptools, as uvicorn's
requests do, and is remembered with what it led to. A client repeats its head to the byte, so
the next time one look into a table says all.
"""

from typing import Final

import httptools

from web.endpoints import ENDPOINTS, Endpoint
from web.negotiation import Representation, preferred

__all__ = ["MAX_HEAD_SIZE", "Heads"]

MAX_HEAD_SIZE: Final = 1024
"""Bytes. A longer head isn't plain, and isn't remembered."""

MAX_HEADS: Final = 512
"""With ``MAX_HEAD_SIZE``, half a megabyte at the most. Past it the oldest head is forgotten.

A client that never repeats a head makes the server parse every one of them with httptools, which
is what uvicorn does with all heads; and those that it drives out cost one parse again.
"""

PLAIN_HEADERS: Final = frozenset(
    (b"accept", b"accept-encoding", b"accept-language", b"host", b"user-agent")
)

_BY_TARGET: Final = {
    (method.encode(), endpoint.path.encode()): endpoint
    for endpoint in ENDPOINTS
    for method in endpoint.methods
    if method != "HEAD"
}


class _Collector:
    """Takes what httptools finds in a head."""

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = 0

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_message_complete(self) -> None:
        self.complete += 1


class Heads:
    """A bounded table: the bytes of a head, and its endpoint, or None where it isn't plain."""

    def __init__(self) -> None:
        self.known: dict[bytes, Endpoint | None] = {}

    def learn(self, data: bytes) -> Endpoint | None:
        """Find out what ``data`` asks for, and remember it.

        Returns:
            The endpoint, if ``data`` is the whole head of one request that the endpoint takes
            and that asks for nothing but the default; else None.
        """
        if not 18 <= len(data) <= MAX_HEAD_SIZE or data.find(b"\r\n\r\n") != len(data) - 4:
            return None
        endpoint = _endpoint_of(data)
        while len(self.known) >= MAX_HEADS:
            del self.known[next(iter(self.known))]
        self.known[data] = endpoint
        return endpoint


def _endpoint_of(data: bytes) -> Endpoint | None:
    found = _Collector()
    parser = httptools.HttpRequestParser(found)
    try:
        parser.feed_data(data)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    method = parser.get_method()
    # Written anew, the head must come out the same: that leaves out odd spacing and line ends.
    lines = [method + b" " + found.target + b" HTTP/1.1\r\n"]
    lines += [name + b": " + value + b"\r\n" for name, value in found.headers]
    names = [name.lower() for name, _ in found.headers]
    accept = [value.decode("latin-1") for name, value in found.headers if name.lower() == b"accept"]
    plain = (
        found.complete == 1
        and parser.should_keep_alive()
        and not parser.should_upgrade()
        and PLAIN_HEADERS.issuperset(names)
        and len(set(names)) == len(names)
        and b"".join(lines) + b"\r\n" == data
        and preferred(accept) is Representation.JSON
    )
    return _BY_TARGET.get((method, found.target)) if plain else None
