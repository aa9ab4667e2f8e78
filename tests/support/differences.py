"""Deliberate differences of ``web.http.protocol`` from uvicorn's protocol, as HTTP requires.

The list is complete: all other requests get the same answers. ``test_protocol_differences`` shows
both sides of each difference, ``test_protocol`` that there are no others.
"""

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import httptools

from tests.support.corpus import CHUNKED, STEP, UPGRADE, length, request
from tests.support.parsing import ParsedRequest, ParsedStream, parse
from web.endpoints.table import TABLE
from web.http.origins import is_allowed_host


@dataclass(frozen=True)
class Difference:
    """A difference, shown by bytes sent in one piece while the index is 5."""

    name: str
    wanted_by: str
    """The section of the standard."""
    concerns: Callable[[ParsedStream], bool]
    """Whether it may affect such bytes when they arrive in one piece."""
    shown_by: bytes
    ours: str
    """The result: statuses, steps, and whether the connection is closed."""
    uvicorns: str
    ends: bool = False
    """Whether it appears only after the client has closed its sending half."""

    def __str__(self) -> str:
        return self.name


def _any(condition: Callable[[ParsedRequest], bool]) -> Callable[[ParsedStream], bool]:
    return lambda stream: any(condition(each) for each in stream.requests if each.has_head)


HOST: Final = re.compile(rb"(\[[0-9a-f:]+\]|[\w.~!$&'()*+,;=%-]*)(:\d*)?", re.IGNORECASE | re.ASCII)


def _has_no_host(seen: ParsedRequest) -> bool:
    hosts = seen.values(b"host")
    if len(hosts) > 1 or (not hosts and seen.version == "1.1"):
        return True
    return any(HOST.fullmatch(each) is None for each in hosts)


def _is_too_large(seen: ParsedRequest) -> bool:
    return (
        seen.head_size > 16_384
        or max(len(seen.fields), len(seen.trailers)) > 100
        or seen.framing > 16_384
        or (not _is_in_table(seen) and seen.body_size > 65_536)
    )


def _is_in_table(seen: ParsedRequest) -> bool:
    path = re.sub(
        rb"%([0-9A-Fa-f]{2})", lambda found: bytes.fromhex(found[1].decode()), seen.path or b""
    )
    return TABLE.find(path.decode("latin-1")) is not None


def _names_another_host(seen: ParsedRequest) -> bool:
    """Whether the target names another host than the Host field."""
    try:
        host = httptools.parse_url(seen.target).host
    except httptools.HttpParserInvalidURLError:
        return False
    hosts = {re.sub(rb":\d*$", b"", each).strip(b"[]") for each in seen.values(b"host")}
    return host is not None and {host} != hosts


def _needs_no_continue(seen: ParsedRequest) -> bool:
    """Whether it expects 100 where none is needed."""
    expects = any(each.lower() == b"100-continue" for each in seen.values(b"expect"))
    return expects and (
        seen.version == "1.0" or seen.is_whole or seen.length == 0 or not _is_in_table(seen)
    )


ANSWERED_FOR: Final = ("x", "a.example")
"""The hosts of ``SETTINGS``; for others the plain application also waits for the body."""

COUNTING_TRAILERS: Final = TABLE.fields

DIFFERENCES: Final = (
    Difference(
        "a client that has closed its sending half is answered",
        "RFC 9293, 3.6",
        lambda _: False,
        STEP,
        ours="200; 1 step; closed",
        uvicorns="nothing; 1 step; closed",
        ends=True,
    ),
    Difference(
        "a declined upgrade leaves the request and those after it",
        "RFC 9110, 7.8",
        lambda stream: any(
            each.has_upgrade and each.length != len(stream.rest) for each in stream.requests
        ),
        request("POST /next", *UPGRADE, length(STEP), body=STEP) + STEP,
        ours="200, 200; 2 steps; open",
        uvicorns="200; 1 step; open",
    ),
    Difference(
        "a step waits for its body despite an upgrade",
        "RFC 9110, 7.8",
        lambda stream: any(
            each.has_upgrade and each.length != len(stream.rest) for each in stream.requests
        ),
        request("POST /next", *UPGRADE, "Content-Length: 1"),
        ours="nothing; 0 steps; open",
        uvicorns="200; 1 step; open",
    ),
    Difference(
        "trailers are not header fields",
        "RFC 9110, 6.5.1",
        _any(lambda seen: any(name in COUNTING_TRAILERS for name, _ in seen.trailers)),
        request("POST /next", CHUNKED, body=b'0\r\nIf-Match: "9"\r\n\r\n'),
        ours="200; 1 step; open",
        uvicorns="412; 0 steps; open",
    ),
    Difference(
        "a request without a host is rejected",
        "RFC 9112, 3.2",
        _any(_has_no_host),
        request("GET /next", host=None),
        ours="400; 0 steps; closed",
        uvicorns="200; 1 step; open",
    ),
    Difference(
        "a request with two hosts is rejected",
        "RFC 9112, 3.2",
        _any(_has_no_host),
        request("GET /next HTTP/1.0", "Host: x"),
        ours="400; 0 steps; closed",
        uvicorns="200; 1 step; closed",
    ),
    Difference(
        "a request with an invalid host is rejected",
        "RFC 9112, 3.2",
        _any(_has_no_host),
        request("GET /next", host="Host: a/b"),
        ours="400; 0 steps; closed",
        uvicorns="421; 0 steps; open",
    ),
    Difference(
        "an HTTP/1.0 client may keep its connection",
        "RFC 9112, C.2.2",
        _any(lambda seen: seen.version == "1.0" and seen.keeps_alive),
        request("GET /next HTTP/1.0", "Connection: keep-alive") * 2,
        ours="200, 200; 2 steps; open",
        uvicorns="200; 1 step; closed",
    ),
    Difference(
        "an HTTP/1.0 client gets no 100",
        "RFC 9110, 10.1.1",
        _any(_needs_no_continue),
        request("POST /next HTTP/1.0", "Content-Length: 1", "Expect: 100-continue"),
        ours="nothing; 0 steps; open",
        uvicorns="100; 0 steps; open",
    ),
    Difference(
        "a complete request gets no 100",
        "RFC 9110, 10.1.1",
        _any(_needs_no_continue),
        request("POST /next", length(b"a"), "Expect: 100-continue", body=b"a"),
        ours="200; 1 step; open",
        uvicorns="100, 200; 1 step; open",
    ),
    Difference(
        "chunks in HTTP/1.0 are rejected",
        "RFC 9112, 6.1",
        _any(lambda seen: seen.version == "1.0" and bool(seen.values(b"transfer-encoding"))),
        request("POST /next HTTP/1.0", CHUNKED, body=b"0\r\n\r\n"),
        ours="400; 0 steps; closed",
        uvicorns="200; 1 step; closed",
    ),
    Difference(
        "versions other than 1.0 and 1.1 are rejected",
        "RFC 9112, 2.3",
        _any(lambda seen: seen.version not in ("1.0", "1.1")),
        request("GET /next HTTP/2.0"),
        ours="400; 0 steps; closed",
        uvicorns="200; 1 step; closed",
    ),
    Difference(
        "protocols other than HTTP are rejected",
        "RFC 9112, 2.3",
        _any(lambda seen: b" HTTP/" not in seen.line),
        request("GET /next").replace(b"HTTP/1.1", b"RTSP/1.0"),
        ours="400; 0 steps; closed",
        uvicorns="200; 1 step; closed",
    ),
    Difference(
        "the host in the target takes precedence over the field",
        "RFC 9112, 3.2.2",
        _any(_names_another_host),
        request("GET http://b.example/next", "Origin: http://x"),
        ours="421; 0 steps; open",
        uvicorns="200; 1 step; open",
    ),
    Difference(
        "a target with a user is rejected",
        "RFC 9110, 4.2.4",
        _any(lambda seen: b"@" in seen.target.partition(b"?")[0]),
        request("GET http://a@x/next"),
        ours="400; 0 steps; closed",
        uvicorns="200; 1 step; open",
    ),
    Difference(
        "a URL without a path means the root",
        "RFC 9110, 4.2.3",
        _any(lambda seen: not seen.path),
        request("GET http://x") + STEP,
        ours="200, 200; 1 step; open",
        uvicorns="400; 0 steps; closed",
    ),
    Difference(
        "CONNECT is rejected",
        "RFC 9110, 9.3.6",
        _any(lambda seen: seen.method == "CONNECT"),
        request("CONNECT /next"),
        ours="400; 0 steps; closed",
        uvicorns="405; 0 steps; open",
    ),
    Difference(
        "answers keep the order of the requests, also that to rubbish",
        "RFC 9112, 9.3.2",
        lambda stream: stream.is_malformed and any(each.is_whole for each in stream.requests),
        STEP + b"rubbish\r\n\r\n",
        ours="200, 400; 1 step; closed",
        uvicorns="400; 1 step; closed",
    ),
    Difference(
        "only a complete request is answered",
        "RFC 9112, 8",
        _any(
            lambda seen: (
                not _is_in_table(seen)
                and not seen.is_whole
                and all(
                    is_allowed_host(host.decode("latin-1"), ANSWERED_FOR)
                    for host in seen.values(b"host")
                )
            )
        ),
        request("POST /nowhere", "Content-Length: 1"),
        ours="nothing; 0 steps; open",
        uvicorns="404; 0 steps; open",
    ),
    Difference(
        "requests have limits",
        "RFC 9110, 5.4",
        lambda stream: any(_is_too_large(each) for each in stream.requests),
        request("GET /next", "X: " + "y" * 16_384),
        ours="400; 0 steps; closed",
        uvicorns="200; 1 step; open",
    ),
)


def differences_of(*pieces: bytes) -> list[Difference]:
    """Return the differences that may affect these pieces."""
    arrived = [parse(data) for data in itertools.accumulate(pieces)]
    return [each for each in DIFFERENCES if any(map(each.concerns, arrived))]
