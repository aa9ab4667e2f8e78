"""Requests of every kind in bytes: named, recorded, and drawn by Hypothesis."""

import re
from itertools import count, pairwise
from typing import Final, TypeVar

from hypothesis import strategies as st

from bench import heads
from web.endpoints.table import TABLE

T = TypeVar("T")

LIVE: Final = ("/status", "/metrics")
"""Paths whose answers change all the time."""


def example(path: str) -> str:
    """Return a path that matches the row's ``path``."""
    return path.replace("{index}", "7")


PATHS: Final = tuple(example(row.path) for row in TABLE.rows if row.path not in LIVE)
ELSEWHERE: Final = ("/", "/nowhere", "/next/", "/next%0A", "//next", "/NEXT", "/%E4", "/next%2F")
METHODS: Final = (
    *("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"),
    *("PROPFIND", "QUERY", "M-SEARCH", "SOURCE", "DESCRIBE", "PRI", "FOO", "get"),
)
"""All methods of RFC 9110, others that httptools knows, and some that it doesn't."""

HOST: Final = "Host: x"
CHUNKED: Final = "Transfer-Encoding: chunked"
UPGRADE: Final = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMA")

ORIGIN: Final = "http://a.example"
ASKS: Final = "Access-Control-Request-Method: POST"

SETTINGS: Final[dict[str, dict[str, object]]] = {
    "default": {},
    "unnamed": {"allowed_hosts": frozenset()},
    "named": {
        "allowed_hosts": frozenset({"x", "a.example"}),
        "allowed_origins": frozenset({ORIGIN}),
    },
}
"""Settings of servers: the tests' default, without hosts, and with hosts and origins."""


def request(line: str, *fields: str, host: str | None = HOST, body: bytes = b"") -> bytes:
    """Return a request; ``line`` may omit the version 1.1, ``body`` is sent as given."""
    first = line if "HTTP/" in line else f"{line} HTTP/1.1"
    lines = [first, *([host] if host else []), *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def key(random: str, *, since: int = 5) -> str:
    return f'Idempotency-Key: "{since}:{random:>016}"'


def length(body: bytes) -> str:
    return f"Content-Length: {len(body)}"


STEP: Final = request("GET /next")
READ: Final = request("GET /current")

CASES: Final[dict[str, bytes]] = {
    "nothing": b"",
    "a step": STEP,
    "steps": STEP * 3,
    "more than are answered in a turn": (STEP + READ) * 40,
    "reads around a step": READ + STEP + request("GET /previous") + READ,
    "all methods": b"".join(
        request(f"{method} {path}", length(b"")) for method in METHODS[:7] for path in PATHS
    ),
    "no host after another path": request("GET /nowhere") + request("GET /next", host=None),
    "another path between steps": STEP + request("GET /nowhere") + STEP,
    "empty lines before": b"\r\n\r\n\r\n" + STEP + b"\r\n" + STEP,
    "a long number": request("GET /numbers/25000") + STEP + request("HEAD /numbers/25000"),
    # Incomplete requests.
    "a byte": STEP[:1],
    "half a head": STEP[:20],
    "a head without its last byte": STEP[:-1],
    "a step and half a head": STEP + STEP[:-1],
    "no body": request("POST /next", "Content-Length: 9"),
    "half a body": request("POST /next", "Content-Length: 9", body=b"12345"),
    "half a chunk": request("POST /next", CHUNKED, body=b"3\r\n12"),
    "no last chunk": request("POST /next", CHUNKED, body=b"3\r\n123\r\n"),
    # Bodies.
    "a body": request("POST /next", "Content-Length: 3", body=b"abc") + STEP,
    "a body to a GET": request("GET /next", "Content-Length: 3", body=b"abc") + STEP,
    "a body to another path": request("POST /nowhere", "Content-Length: 3", body=b"abc") + STEP,
    "a body that looks like steps": request("POST /next", length(STEP * 2), body=STEP * 2) + READ,
    "a body of empty lines": request("POST /next", length(b"\r\n" * 9), body=b"\r\n" * 9) + READ,
    "a long body": request("POST /next", length(b"x" * 100_000), body=b"x" * 100_000) + STEP,
    "an empty line after a body": request("POST /next", length(b"a"), body=b"a\r\n") + STEP,
    "chunks": request("POST /next", CHUNKED, body=b"3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n")
    + STEP,
    "chunks that look like steps": request(
        "POST /next", CHUNKED, body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(STEP), STEP)
    )
    + READ,
    "an extension of a chunk": request("POST /next", CHUNKED, body=b"1;a=b\r\nx\r\n0;c\r\n\r\n")
    + READ,
    "trailers without effect": request("POST /next", CHUNKED, body=b"0\r\nX: y\r\n\r\n") + READ,
    "many small chunks": request("POST /next", CHUNKED, body=b"1\r\nx\r\n" * 9_000 + b"0\r\n\r\n")
    + READ,
    "another coding besides chunked": request(
        "POST /next", "Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"
    ),
    # Invalid or unusual lengths.
    "two lengths": request("POST /next", "Content-Length: 1", "Content-Length: 1", body=b"a"),
    "a length with a sign": request("POST /next", "Content-Length: +1", body=b"a"),
    "a length that is a list": request("POST /next", "Content-Length: 1, 1", body=b"a"),
    "an empty length": request("POST /next", "Content-Length:", body=b"a"),
    "a length past 64 bits": request("POST /next", "Content-Length: 99999999999999999999"),
    "a length of 63 bits": request("POST /next", "Content-Length: 9223372036854775807"),
    "a length with many zeros": request("POST /next", f"Content-Length: {'0' * 5_000}1", body=b"a"),
    "white space around a length": request("POST /next", "Content-Length: \t0 ") + STEP,
    "white space in a length": request("POST /next", "Content-Length: 0 0"),
    "a length and chunks": request("POST /next", CHUNKED, length(b"a"), body=b"0\r\n\r\n"),
    "a coding that is not chunked": request("POST /next", "Transfer-Encoding: gzip"),
    "a chunk with an invalid size": request("POST /next", CHUNKED, body=b"zz\r\n"),
    "a chunk longer than its size": request("POST /next", CHUNKED, body=b"1\r\nab\r\n0\r\n\r\n"),
    # Fields.
    "text": request("GET /next", "Accept: text/plain") + request("GET /current", "Accept: text/*"),
    "two Accept lines": request("GET /current", "Accept: text/html", "accept: text/plain"),
    "a condition that holds": request("GET /next", 'If-Match: "5"') * 2,
    "a condition that fails": request("POST /next", 'If-Match: "4"') + STEP,
    "a read that is current": request("GET /current", 'If-None-Match: "5"') + STEP,
    "a step with If-None-Match": request("GET /next", 'If-None-Match: "5"') * 2,
    "an invalid condition": request("GET /next", "If-Match: 5"),
    "two condition lines": request("GET /next", 'if-match: "4"', 'IF-MATCH: "5"'),
    "a key": request("POST /next", key("a")) + STEP,
    "keys": b"".join(request("POST /next", key(each), "X: y") for each in "abcdef") + READ,
    "keys in lower case": b"".join(request("GET /next", key(each).lower()) for each in "abcd"),
    "keys with conditions": b"".join(
        request("POST /next", key(each), f'If-Match: "{5 + number}"')
        for number, each in enumerate("abcd")
    ),
    "keys on reads": b"".join(request("GET /current", key(each)) for each in "abcd"),
    "an invalid key among others": b"".join(
        request("POST /next", key(each), "X: y") for each in ("a", "b", "c", "d e", "f", 'g"', "h")
    ),
    "a key with a condition among others": b"".join(
        request("POST /next", key(each)) for each in ("a", "b", "c", 'd"\r\nIf-Match: "1', "e")
    ),
    "a key of another sequence among others": b"".join(
        request("POST /next", key("a", since=since)) for since in (0, 1, 2, 999, 3)
    ),
    "changing conditions": b"".join(
        request("POST /next", f'If-Match: "{index}"') for index in (1, 5, 2, 6, 3, 7, 8)
    ),
    "a prefetch": request("GET /next", "Sec-Purpose: prefetch;prerender") + STEP,
    "another prefetch": request("GET /next", "Purpose: prefetch") + READ,
    "a page of another origin": request("GET /next", "Sec-Fetch-Site: cross-site") + STEP,
    "a page of ours": request("POST /next", "Sec-Fetch-Site: same-origin", "Origin: http://x"),
    "an allowed origin": request("GET /next", f"Origin: {ORIGIN}") + request("HEAD /current"),
    "white space around values": b"".join(
        request("GET /next", f"Origin: \t{ORIGIN} \t", "Accept: text/plain ", f"{key(each)}\t")
        for each in "abc"
    ),
    "an opaque origin": request("GET /next", "Origin: null"),
    "a preflight": request("OPTIONS /next", f"Origin: {ORIGIN}", ASKS) + STEP,
    "a preflight of another origin": request("OPTIONS /next", "Origin: http://b.example", ASKS)
    + STEP,
    "a preflight of another path": request("OPTIONS /nowhere", f"Origin: {ORIGIN}", ASKS),
    "another host": request("POST /next", "Content-Length: 1", host="Host: b.example", body=b"a"),
    "another host and another path": request("GET /nowhere", host="Host: b.example") + STEP,
    "another host and half a body": request("GET /a", "Content-Length: 1", host="Host: b.example"),
    "fields without effect": request("GET /next", "Cookie: a=b", "X: é", "Via: 1.1 a"),
    "fields in capitals": request("GET /next", "CONNECTION: CLOSE", host="HOST: x") + STEP,
    "an empty field": request("GET /next", "X:", "Accept:"),
    "a field in two lines": request("GET /next", "X: a\r\n b"),
    "a space before a colon": request("GET /next", "X : a"),
    "a field without a name": request("GET /next", ": a"),
    "a line without a colon": request("GET /next", "a"),
    "a NUL in a field": request("GET /next", "X: a\0b"),
    "a bare LF": STEP.replace(b"\r\n", b"\n"),
    "a bare CR": request("GET /next", "X: a\rb"),
    # Valid hosts.
    "an empty host": request("GET /next", host="Host:"),
    "white space around a host": request("GET /next", host="Host: \tx \t"),
    "a host with a port": request("GET /next", host="Host: a.example:80"),
    "a host of IPv6": request("GET /next", host="Host: [::1]:80"),
    "no host in 1.0": request("GET /next HTTP/1.0", host=None),
    # Connections.
    "close": request("GET /next", "Connection: close") + STEP,
    "close in a list": request("GET /next", "Connection: keep-alive, close") + STEP,
    "close in the second line": request("GET /next", "Connection: a", "Connection: close") + STEP,
    "close on another path": request("GET /nowhere", "Connection: close") + STEP,
    "rubbish after close": request("GET /next", "Connection: close") + b"rubbish\r\n\r\n",
    "keep-alive": request("GET /next", "Connection: keep-alive") * 2,
    "1.0": request("GET /next HTTP/1.0") * 2,
    "HEAD in 1.0": request("HEAD /current HTTP/1.0"),
    "a body in 1.0": request("POST /next HTTP/1.0", "Content-Length: 1", body=b"a"),
    "an upgrade": request("GET /next", *UPGRADE),
    "an upgrade that closes": request("GET /next", "Connection: Upgrade, close", "Upgrade: h2c"),
    "an upgrade to a web socket": request("GET /next", "Connection: Upgrade", "Upgrade: websocket"),
    "an upgrade on another path": request("GET /nowhere", *UPGRADE),
    "no upgrade without Connection": request("GET /next", "Upgrade: h2c") + STEP,
    "no upgrade without Upgrade": request("GET /next", "Connection: Upgrade") + STEP,
    "expects 100": request("POST /next", "Content-Length: 1", "Expect: 100-continue"),
    "expects 100 with chunks": request("POST /next", CHUNKED, "Expect: 100-Continue"),
    "two Expect lines": request(
        "POST /next", "Content-Length: 1", "Expect: 100-continue", "Expect: more"
    ),
    "expects something else": request("POST /next", length(b"a"), "Expect: more", body=b"a") + STEP,
    # Targets.
    "a query": request("GET /next?a=b?/c"),
    "a fragment": request("GET /next#a"),
    "percent-encoded": request("GET /%6Eex%74"),
    "another protocol": request("GET /next").replace(b"HTTP/", b"RTSP/"),
    "a whole URL of the page's origin": request("GET http://a.example/next", f"Origin: {ORIGIN}"),
    "a whole URL of another host": request("GET http://c.example/current") + STEP,
    "a whole URL with a user": request("GET http://a@a.example/next"),
    "a whole URL": request("GET http://a.example/next?b") + request("GET https://a:1/current"),
    "a longer path": request("GET /next/a"),
    "a newline in the path": request("GET /next%0a"),
    "a NUL in the path": request("GET /next%00"),
    "two spaces": request("GET  /next"),
    "no target": request("GET"),
    "bytes outside ASCII in the target": request("GET /n\xe9xt"),
    "the target of OPTIONS": request("OPTIONS *"),
    "a target that is a word": request("GET next"),
    # Versions.
    "an unknown version": request("GET /next HTTP/1.2"),
    "an invalid version": request("GET /next HTTP/x"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "rubbish": b"rubbish\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    **{
        f"{method} {path}": request(f"{method} {path}")
        for method in METHODS
        for path in (*PATHS, ELSEWHERE[0])
        if method != "CONNECT"
    },
    **{
        f"{method} {path}": request(f"{method} {path}") + STEP
        for method in ("GET", "POST")
        for path in ELSEWHERE
    },
}
"""By name. The index is 5 at the start of each."""

RECORDED: Final = {
    f"{each.name}, {number}": each.raw
    for client in heads.clients()
    for number, each in enumerate(heads.requests(client))
}
"""Requests that real clients sent; see ``bench.heads``."""


def _mostly(*likely: T, rarely: tuple[T, ...] = ()) -> st.SearchStrategy[T]:
    return st.sampled_from([*likely * (1 + 5 * bool(rarely)), *rarely])


NUMBER: Final = "@" * 16
"""Placeholder, replaced by a number unique in the stream."""

_FIELDS: Final = st.sampled_from(
    [
        "Accept: text/plain",
        "accept: */*",
        "Accept: application/json, text/plain;q=0.5",
        'If-Match: "5"',
        'If-Match: "6", "7"',
        "if-match: *",
        "If-Match: 5",
        'If-None-Match: "5"',
        'If-None-Match: W/"6-text", "7"',
        key(NUMBER),
        key(NUMBER).lower(),
        f'If-Match: "{NUMBER}"',
        "Sec-Purpose: prefetch",
        "Purpose: prefetch",
        f"Origin: {ORIGIN}",
        "Origin: http://x",
        "Sec-Fetch-Site: cross-site",
        "sec-fetch-site: same-origin",
        ASKS,
        "Connection: keep-alive",
        "Connection: close",
        "Cookie: a=b; c=d",
        "User-Agent: a/1 (b; c)",
        "X-Request-Id: 0123456789abcdef",
        "X:",
        "Upgrade: h2c",
        "Content-Type: application/json",
    ]
)
_ODD_FIELDS: Final = st.sampled_from(
    [
        "Connection: Upgrade",
        "Expect: 100-continue",
        "Host: y",
        CHUNKED,
        "Content-Length: 4",
        "X : a",
        "X: a\r\n b",
        ": a",
        "a",
    ]
)


@st.composite
def _requests(draw: st.DrawFn, *, odd: bool) -> bytes:
    method = draw(_mostly("GET", "GET", "GET", "POST", "HEAD", rarely=METHODS[3:7] * odd))
    path = draw(_mostly(*PATHS, "/next", "/next", rarely=ELSEWHERE))
    target = path + draw(_mostly("", "", "", "?", "?a=b", "#c"))
    if odd and path.startswith("/") and not draw(st.integers(0, 9)):
        target = draw(
            st.sampled_from(
                [
                    "http://a.example" + target,
                    "http://a@x" + target,
                    "http://a.example",
                    "*",
                    "next",
                ]
            )
        )
    version = draw(_mostly("HTTP/1.1", rarely=("HTTP/1.0",)))
    if odd and not draw(st.integers(0, 19)):
        version = draw(st.sampled_from(["HTTP/0.9", "HTTP/2.0", "HTTP/1.2"]))
    hosts = _mostly(
        "Host: x", "host:a.example:80", "HOST: [::1]", "Host: b", rarely=("", "Host: a b") * odd
    )
    fields = draw(st.lists(_FIELDS, max_size=3))
    if odd:
        fields += draw(st.lists(_ODD_FIELDS, max_size=1))
    body = draw(st.sampled_from([b"", b"", b"a", b"\r\n\r\n", STEP, b"x" * 300]))
    match draw(st.sampled_from(["none", "none", "length", "chunks"])):
        case "length":
            fields.insert(draw(st.integers(0, len(fields))), length(body))
        case "chunks" if version == "HTTP/1.1" or odd:
            fields.insert(draw(st.integers(0, len(fields))), CHUNKED)
            extension = draw(st.sampled_from([b"", b"", b";a=b"]))
            trailer = draw(st.sampled_from([b"", b"", b"X: y\r\n", *[b'If-Match: "9"\r\n'] * odd]))
            chunks = [body[at : at + 100] for at in range(0, len(body), 100)]
            body = b"".join(b"%x%b\r\n%b\r\n" % (len(each), extension, each) for each in chunks)
            body += b"0\r\n" + trailer + b"\r\n"
        case _:
            body = b""
    return request(f"{method} {target} {version}", *fields, host=draw(hosts), body=body)


@st.composite
def streams(draw: st.DrawFn, *, odd: bool) -> bytes:
    """Draw the stream of a client: consecutive requests, the last one perhaps incomplete.

    Args:
        odd: include unusual requests and wrong bytes.
    """
    requests = st.one_of(_requests(odd=odd), st.sampled_from(sorted(RECORDED.values())))
    alike = st.tuples(requests, _mostly(1, 1, 2, 4)).map(lambda each: each[0] * each[1])
    data = b"".join(draw(st.lists(alike, min_size=1, max_size=5)))
    numbers = count()
    data = re.sub(NUMBER.encode(), lambda _: b"%016d" % next(numbers), data)
    if not draw(st.integers(0, 3)):
        data = data[: draw(st.integers(0, len(data)))]
    if odd and not draw(st.integers(0, 2)):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(max_size=2)) + data[at + draw(st.integers(0, 2)) :]
    return data


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Cut ``data`` into pieces."""
    places = set(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    if draw(st.booleans()):
        places.update(each.end() for each in re.finditer(b"\r\n\r\n", data))
    edges = sorted({0, *places, len(data)})
    return [data[a:b] for a, b in pairwise(edges)]
