"""Malformed, partial or ambiguous HTTP is rejected, and nothing steps.

A corpus of shapes that have fooled servers and proxies, all for ``/next``. ``test_protocol`` has a
fuzzer that generates more.
"""

from typing import Final

import pytest

from tests.support.cases import every
from tests.support.connections import Loop
from tests.support.served import Service, statuses
from tests.support.wire import HOST, READ, STEP
from web.http.parser import Parser


def post(*fields: bytes, body: bytes = b"") -> bytes:
    lines = b"".join(field + b"\r\n" for field in fields)
    return b"POST /next HTTP/1.1\r\n" + HOST + lines + b"\r\n" + body


def chunked(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", body=body)


LENGTHS: Final = {
    f"length {value!r}": post(b"Content-Length: " + value, body=b"12345" + STEP)
    for value in (
        *(b"", b"-1", b"+5", b"5 5", b"5,6", b"5, 5", b"0x5", b"5a", b"1e1", b"\xb25", b"5\x00"),
        b"18446744073709551616",
        b"99999999999999999999999999999999",
    )
}

SMUGGLED: Final = {
    "length and chunks": post(
        b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + STEP
    ),
    "chunks and length": post(
        b"Transfer-Encoding: chunked", b"Content-Length: 6", body=b"0\r\n\r\nG" + STEP
    ),
    "two lengths": post(b"Content-Length: 5", b"Content-Length: 6", body=b"123456" + STEP),
    "identity": post(b"Transfer-Encoding: identity", b"Content-Length: 5", body=b"12345" + STEP),
    "chunked is not last": post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n" + STEP),
    "not quite chunked": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + STEP),
    "chunked after a tab and a NUL": post(b"Transfer-Encoding:\t\x00chunked", body=b"0\r\n\r\n"),
    "a space before the colon": post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n" + STEP),
    "a folded line": post(b"X: 1\r\n Transfer-Encoding: chunked\r\nContent-Length: 9"),
    "a header without a colon": post(b"Content-Length 5", body=b"12345"),
    "an empty name": post(b": 5"),
    "a bare CR": post(b"X: 1\rContent-Length: 5", body=b"12345"),
    "a name with a space": post(b"Content Length: 5", body=b"12345"),
    "a NUL in a name": post(b"X\x00: 1"),
    "a NUL in a value": post(b"X: \x00"),
    "a line feed in a version": b"GET /next HTTP/1.1\x0b\r\n" + HOST + b"\r\n",
}

CHUNKS: Final = {
    f"chunks {body!r}": chunked(body)
    for body in (
        b"x\r\n",
        b"-1\r\nx\r\n0\r\n\r\n",
        b"0x1\r\nx\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\n",
        b"1\r\nxx\r\n0\r\n\r\n",
        b"1\rx\r\n0\r\n\r\n",
        b"1\r\nx0\r\n\r\n",
        b"1;\x00\r\nx\r\n0\r\n\r\n",
        b"5\r\nhello\r\n",
        b"5\r\nhel",
        b"\r\n",
    )
}

TARGETS: Final = {
    f"target {target!r}": b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n"
    for target in (
        *(b"*", b"next", b"/next/", b"//next", b"/./next", b"/x/../next", b"/NEXT", b"/next%00"),
        *(b"/next\x00", b"/next x", b"http://", b"", b"/\xff\xfe", b"/next;a"),
    )
}

LINES: Final = {
    f"line {line!r}": line + b"\r\n" + HOST + b"\r\n"
    for line in (
        b"GET /next HTTP/2.0",
        b"GET /next HTTP/1.2.3",
        b"GET /next HTTP/x",
        b"GET /next HTP/1.1",
        b"GET /next http/1.1",
        b"GET  /next HTTP/9.9",
        b"GET\t/next\tHTTP/1.1",
        b"get /next HTTP/1.1",
        b"G\x00T /next HTTP/1.1",
        b"HEAD /next HTTP/1.1",
        b"PUT /next HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"CONNECT next:80 HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    )
}

REST: Final = {
    "HTTP/0.9": b"GET /next\r\n",
    "HTTP/0.9, once more": b"GET /next\n\n",
    "HTTP/2 without a word": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    "nothing but ends of lines": b"\r\n" * 1000,
    "a head of a megabyte": b"GET /next HTTP/1.1\r\nX: " + b"x" * 2**20,
    "ten thousand headers": b"GET /next HTTP/1.1\r\n" + b"X: y\r\n" * 10_000,
    "a target of a megabyte": b"GET /next?" + b"x" * 2**20,
    "no end of the head": STEP[:-2],
    "no end of the body": post(b"Content-Length: 10", body=b"123"),
    "a read, and then rubbish": READ + b"GET /next HTTP/1.1\r\nrubbish\r\n\r\n",
    "rubbish, and then a step": b"rubbish\r\n\r\n" + STEP,
}

CORPUS: Final = LENGTHS | SMUGGLED | CHUNKS | TARGETS | LINES | REST


def said(loop: Loop, data: bytes) -> tuple[list[int], int]:
    """The statuses, and the number of steps."""
    served = Service(loop)
    client, other = served.client(data), served.client(READ)
    assert statuses(other) == [200]
    found = statuses(client), served.store.index
    served.close()
    return found


@every("shape", CORPUS)
def test_malformed_bytes_never_step(loop: Loop, shape: str) -> None:
    answered, steps = said(loop, CORPUS[shape])
    assert steps == 0
    *before, last = answered or [400]
    assert 400 <= last < 600
    assert before in ([], [200]), "only what came before it is answered"


@pytest.mark.parametrize("shape", ["no end of the body", "chunks b'5\\r\\nhello\\r\\n'"])
def test_without_awaiting_the_body_a_head_would_step(
    loop: Loop, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hasty(Parser):
        def on_headers_complete(self) -> None:
            super().on_headers_complete()
            self.whole = True

    monkeypatch.setattr("web.http.protocol.Parser", Hasty)
    assert said(loop, CORPUS[shape])[1] == 1
