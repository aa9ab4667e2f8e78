"""The processor time of a request is proportional to its size, and small.

Each shape is parsed as in the protocol. The tests compare processor time, the minimum of several
tries, until it is as expected: noise passes, and excessive cost stays.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Final

import pytest

from tests.support.wire import HOST
from web.endpoints.table import TABLE
from web.http import negotiation
from web.http.heads import Heads, MalformedError
from web.http.parser import Parser

SIZE: Final = 15_000
"""Bytes of a request: nearly the largest head."""

TIMES: Final = 8
"""The factor allowed over plain requests of the same size."""

TRIES: Final = 50

PLAIN: Final = b"GET /next HTTP/1.1\r\n" + HOST + b"\r\n"


def filled(first: bytes, piece: bytes, last: bytes) -> Callable[[int], bytes]:
    """Makes a request of a size: ``piece`` again and again between ``first`` and ``last``."""
    return lambda size: first + piece * ((size - len(first) - len(last)) // len(piece)) + last


def field(name: bytes, piece: bytes) -> Callable[[int], bytes]:
    return filled(b"POST /next HTTP/1.1\r\n" + HOST + name + b": ", piece, b"\r\n\r\n")


def lines(line: bytes) -> Callable[[int], bytes]:
    """The most lines that a head may have, each padded to fill the size."""

    def make(size: int) -> bytes:
        fill = line + b"," * (size // 98 - len(line)) + b"\r\n"
        return b"POST /next HTTP/1.1\r\n" + HOST + fill * 98 + b"\r\n"

    return make


def target(piece: bytes) -> Callable[[int], bytes]:
    return filled(b"GET /", piece, b" HTTP/1.1\r\n" + HOST + b"\r\n")


def body(path: bytes, piece: bytes) -> Callable[[int], bytes]:
    def make(size: int) -> bytes:
        content = piece * (size // len(piece))
        head = b"POST %b HTTP/1.1\r\n" % path + HOST + b"Content-Length: %d\r\n\r\n" % len(content)
        return head + content

    return make


def chunks(path: bytes, chunk: bytes, *, upgrade: bool = False) -> Callable[[int], bytes]:
    offer = b"Connection: Upgrade\r\nUpgrade: h2c\r\n" if upgrade else b""
    head = b"POST %b HTTP/1.1\r\n" % path + HOST + offer + b"Transfer-Encoding: chunked\r\n\r\n"
    return filled(head, chunk, b"0\r\n\r\n")


HEADS: Final = {
    "a long list of Accept": field(b"Accept", b","),
    "a long list of Accept parameters": field(b"Accept", b";q=1"),
    "a long list of tags": field(b"If-Match", b'"1",'),
    "a list of no tags": field(b"If-None-Match", b" ,\t"),
    "a tag without an end": field(b"If-Match", b'"'),
    "a long list of purposes": field(b"Sec-Purpose", b", "),
    "many lines of Accept": lines(b"Accept: text/plain"),
    "many lines of If-Match": lines(b'If-Match: "1"'),
    "many lines of Purpose": lines(b"Purpose: prefetch"),
    "many lines that do not count": lines(b"X: y"),
    "many options of the connection": field(b"Connection", b"upgrade,"),
    "a long offer of an upgrade": field(b"Connection: Upgrade\r\nUpgrade", b"h2c,"),
    "a long expectation": field(b"Expect", b"100-continue,"),
    "a long target": target(b"a"),
    "a target of slashes": target(b"/"),
    "a target of escapes": target(b"%41"),
    "a target of dots": target(b"../"),
    "a long query": target(b"?a=b&"),
    "a long host": filled(b"GET /next HTTP/1.1\r\nHost: ", b"a", b"\r\n\r\n"),
    "a long host that is none": filled(b"GET /next HTTP/1.1\r\nHost: ", b"a", b"/\r\n\r\n"),
    "a host of escapes": filled(b"GET /next HTTP/1.1\r\nHost: ", b"%41", b"/\r\n\r\n"),
    "a host of brackets": filled(b"GET /next HTTP/1.1\r\nHost: ", b"[1]", b"[\r\n\r\n"),
    "a chunk with a long extension": filled(
        b"POST /next HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n1",
        b';a="b"',
        b"\r\nx\r\n0\r\n\r\n",
    ),
}
"""Shapes that are bounded at about 16 KB."""

BODIES: Final = {
    "a body": body(b"/next", b"x"),
    "a body for a page": body(b"/", b"x"),
    "a body of empty lines": body(b"/next", b"\r\n\r\n"),
    "chunks": chunks(b"/next", b"1\r\nx\r\n"),
    "chunks of empty lines": chunks(b"/next", b"4\r\n\r\n\r\n\r\n"),
    "chunks with extensions": chunks(b"/next", b"1;a=b\r\nx\r\n"),
    "chunks beside an upgrade": chunks(b"/next", b"1\r\nx\r\n", upgrade=True),
    "chunks for a page": chunks(b"/", b"1\r\nx\r\n"),
}
"""Shapes that may be longer."""


def seconds(data: bytes, received: int = 65_536) -> float:
    """The processor time for parsing ``data`` in pieces of this size."""
    negotiation.preferred.cache_clear()
    parser = Parser(Heads(TABLE, defaultdict(list)))
    began = time.thread_time()
    try:
        for begin in range(0, len(data), received):
            piece, at = data[begin : begin + received], 0
            while at < len(piece):
                at = parser.feed(piece, at)
                if parser.whole:
                    parser.begin()
    except MalformedError:
        pass
    return time.thread_time() - began


def is_within(times: float, data: bytes, others: bytes, tries: int = TRIES) -> bool:
    """Whether ``data`` takes at most ``times`` as long as ``others``, by their minimums."""
    least = other = float("inf")
    for _ in range(tries):
        least, other = min(least, seconds(data)), min(other, seconds(others))
        if least <= times * other:
            return True
    return False


@pytest.mark.parametrize("shape", [*HEADS, *BODIES])
def test_no_request_costs_much_more_than_a_plain_one_of_its_size(shape: str) -> None:
    data = (HEADS | BODIES)[shape](SIZE)
    assert 0.9 * SIZE < len(data) < 1.1 * SIZE
    assert is_within(TIMES, data, PLAIN * (SIZE // len(PLAIN)))


def test_without_a_bound_a_long_field_would_cost_much_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negotiation, "MAX_FIELD", SIZE)
    monkeypatch.setattr(negotiation, "MAX_ITEMS", SIZE)
    data = HEADS["a long list of Accept"](SIZE)
    assert not is_within(TIMES, data, PLAIN * (SIZE // len(PLAIN)), tries=10)


@pytest.mark.parametrize("shape", BODIES)
def test_the_time_for_a_body_is_linear_in_its_size(shape: str) -> None:
    small = BODIES[shape](6 * SIZE)
    assert is_within(6, BODIES[shape](24 * SIZE), small)
