"""Heads of requests: parsing, and the cache of those that repeat."""

import itertools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fibcore.idempotency_key import key_of
from web.endpoints.table import TABLE
from web.http.access_log import FIELDS
from web.http.answers import Header
from web.http.heads import (
    MAX_KNOWN_SIZE,
    MAX_SEEN,
    Head,
    Heads,
    MalformedError,
    RequestLine,
    parts_of,
)
from web.http.parser import Parser

HOST: Header = (b"host", b"x")


class Server:
    """The known heads, and a parser that uses them."""

    def __init__(self, *hosts: str) -> None:
        self.answered: dict[str, list[int]] = defaultdict(lambda: [0] * 600)
        self.heads = Heads(TABLE, self.answered, hosts=hosts or None, logged=FIELDS)

    def read(
        self,
        *fields: Header,
        method: str = "GET",
        target: bytes = b"/next",
        version: str = "1.1",
        keep_alive: bool = True,
    ) -> Head:
        said = RequestLine(method, target, version)
        line = b"%b %b HTTP/%b\r" % (method.encode(), target, version.encode())
        return self.heads.read(line, list(fields or [HOST]), keep_alive, lambda: said)


@pytest.fixture
def server() -> Server:
    return Server()


# The cache


def test_a_head_is_parsed_once_whatever_its_conditions(server: Server) -> None:
    first = server.read()
    assert server.read() is first
    assert server.read(HOST, (b"accept", b"text/plain")) is not first
    for index in (1, 2):
        request = server.read(HOST, (b"if-match", b'"%d"' % index)).request
        assert request.if_match is not None
        assert [request.if_match.name(number) for number in (1, 2)] == [index == 1, index == 2]
    assert not server.read().request.conditional
    assert len(server.heads._read) == 2


def test_a_head_too_long_to_be_cached_is_parsed_each_time(server: Server) -> None:
    longest = (b"host", b"a" * (MAX_KNOWN_SIZE - len(b"GET /next HTTP/1.1\r")))
    assert server.read(longest) is server.read(longest)
    longer = (b"host", longest[1] + b"a")
    assert server.read(longer) is not server.read(longer)


def test_a_repeated_head_is_cached_unless_it_is_too_long(server: Server) -> None:
    head = server.read()
    for size, known in ((5, True), (MAX_KNOWN_SIZE, True), (MAX_KNOWN_SIZE + 1, False)):
        data = b"a" * size
        # One after the other: two heads may have the same slot of the seen-once filter.
        server.heads.remember(data, head)
        assert data not in server.heads.known
        server.heads.remember(data, head)
        assert (data in server.heads.known) == known


def test_a_head_for_starlette_is_not_cached(server: Server) -> None:
    head = server.read(target=b"/")
    assert head.endpoint is None
    for _ in range(3):
        server.heads.remember(b"page", head)
    assert server.heads.known == {}


def test_past_the_bound_on_known_heads_the_oldest_is_dropped(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.http.heads.MAX_HEADS", 3)
    head = server.read()
    for number in range(5):
        for _ in range(2):
            server.heads.remember(b"%d" % number, head)
    assert list(server.heads.known) == [b"2", b"3", b"4"]


# Heads that are cached except for the value of a field

LINES: Final = (
    *(b"Idempotency-Key: ", b"idempotency-key: ", b"IDEMPOTENCY-KEY: ", b"Idempotency-Key:"),
    *(b"If-Match: ", b"if-match: ", b"If-None-Match: ", b"User-Agent: ", b"X: "),
)
BESIDE: Final = (
    *(
        b"",
        b"",
        b"X: y\r\n",
        b"Idempotency-Key: a\r\n",
        b'If-Match: "5"\r\n',
        b"Connection: close\r\n",
    ),
    *(
        b"X: Idempotency-Key: a\r\n",
        b"Content-Length: 0\r\n",
        b"User-Agent: a\r\n",
        b"X: a\r\n b\r\n",
    ),
    b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
)
VALUES: Final = st.one_of(
    st.integers(0, 10**19).map(lambda number: b'"%d:0123456789abcdef"' % number),
    st.sampled_from(
        [
            *(b"", b" ", b'"5"', b'W/"5"', b"*", b'"5" ', b'\t"5"', b'"5", "6"', b"a\0", b"\xe9"),
            *(b"a\nb", b"a\rb", b"a\r b", b'5"\nIf-Match: "5', b"a\r\nX: y", b"a\r\n\r\n"),
            b"a\r\nIdempotency-Key: b",
        ]
    ),
    st.binary(max_size=4),
)


def meaning(heads: Heads, data: bytes) -> object:
    """The parsed request, with the fields that are logged; or the error."""
    try:
        head = Parser(heads).request(data)
    except MalformedError as error:
        return str(error)
    if head is None:
        return None
    request = head.request
    tags = [
        tags and (tags.any, tags.malformed, tags.tags, tags.indexes)
        for tags in (request.if_match, request.if_none_match)
    ]
    request = replace(request, if_match=None, if_none_match=None)
    logged = [field for field in head.varying if field[0] in FIELDS]
    return replace(head, request=request, varying=logged), tags


@st.composite
def shapes(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Heads that differ in one value."""
    path, line = (
        draw(st.sampled_from([b"/next", b"/current", b"/no"])),
        draw(st.sampled_from(LINES)),
    )
    before, after = draw(st.sampled_from(BESIDE)), draw(st.sampled_from(BESIDE))
    first = b"POST %b HTTP/1.1\r\nHost: x\r\n%b%b" % (path, before, line)
    return lambda value: first + value + b"\r\n" + after + b"\r\n"


@given(shapes(), st.lists(VALUES, max_size=4), VALUES)
def test_a_head_known_except_for_a_value_equals_parsing_it(
    shape: Callable[[bytes], bytes], others: list[bytes], value: bytes
) -> None:
    primed = Server().heads
    for each in (b'"1:a"', b'"2:b"', *others):
        meaning(primed, shape(each))
    assert meaning(primed, shape(value)) == meaning(Server().heads, shape(value))


def test_a_value_with_special_bytes_would_change_the_meaning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the bound it would be taken for a valid one."""
    value = b"a\x0e"
    monkeypatch.setattr("web.http.heads._FIRST", 0x0E)
    primed = Server().heads
    shape = b"POST /next HTTP/1.1\r\nHost: x\r\nIdempotency-Key: %b\r\n\r\n"
    for each in (b'"1:a"', b'"2:b"'):
        meaning(primed, shape % each)
    assert meaning(primed, shape % value) != meaning(Server().heads, shape % value)


@pytest.mark.parametrize("line", LINES[:2] + LINES[4:7])
def test_a_head_with_a_varying_value_is_known_at_its_third_appearance(line: bytes) -> None:
    server = Server()
    reader = Parser(server.heads)
    shape = b"POST /next HTTP/1.1\r\nHost: x\r\n" + line + b"%b\r\nX: y\r\n\r\n"
    # None is in the slot of the template, where it would no longer count as seen.
    place = hash(tuple(shape.split(b"%b"))) % MAX_SEEN
    values = [b'"%d:0123456789abcdef"' % number for number in range(99)]
    apart = (each for each in values if hash(shape % each) % MAX_SEEN != place)
    for turn, value in enumerate(itertools.islice(apart, 4)):
        data = shape % value
        assert (server.heads.fill(data) is not None) == (turn > 1)
        head = reader.request(data)
        assert head is not None
        tags = head.request.if_match or head.request.if_none_match
        assert head.request.key == key_of(value) or (
            tags is not None and tags.tags == {value[1:-1].decode()}
        )
    whole = shape % b'"9"'
    assert all(server.heads.fill(whole[:size]) is None for size in range(len(whole)))
    assert server.heads.fill(whole + b"\r\n") is None
    visible = {value for value in range(256) if server.heads.fill(shape % bytes([value]))}
    assert visible == {*range(0x21, 0x7F)}
    longest = MAX_KNOWN_SIZE - len(shape % b"")
    assert server.heads.fill(shape % (b"a" * longest)) is not None
    assert server.heads.fill(shape % (b"a" * (longest + 1))) is None


def test_a_known_head_keeps_its_value_when_another_is_filled_in() -> None:
    server = Server()
    values = [b'"1:0123456789abcdef"', b'"2:0123456789abcdef"']
    shape = b"POST /next HTTP/1.1\r\nHost: x\r\nIdempotency-Key: %b\r\n\r\n"
    first, other = (shape % value for value in values)
    for _ in range(2):
        assert Parser(server.heads).request(first) is not None
    known = server.heads.known[first]
    filled = server.heads.fill(other)
    assert filled is not None
    assert [known.request.key, filled.request.key] == [key_of(value) for value in values]


def test_heads_with_two_varying_values_are_parsed_each_time() -> None:
    server = Server()
    reader = Parser(server.heads)
    shape = b"POST /next HTTP/1.1\r\nHost: x\r\nIdempotency-Key: %d\r\n%b: %d\r\n\r\n"
    for name in (b"If-Match", b"Idempotency-Key"):
        for number in range(4):
            assert reader.request(shape % (number, name, number)) is not None
        assert server.heads.fill(shape % (4, name, 4)) is None


# Parsing


@pytest.mark.parametrize(
    ("fields", "version", "why"),
    [
        ([HOST], "2.0", "HTTP/2.0 is not supported"),
        ([HOST, HOST], "1.1", "it has more than one Host"),
        ([(b"accept", b"*/*")], "1.1", "it has no Host"),
        ([(b"host", b"a b")], "1.1", "its Host is not a valid host"),
        ([HOST, (b"transfer-encoding", b"chunked")], "1.0", "HTTP/1.0 does not support"),
    ],
)
def test_a_malformed_head_is_rejected_with_its_reason(
    server: Server, fields: list[Header], version: str, why: str
) -> None:
    with pytest.raises(MalformedError, match=why):
        server.read(*fields, version=version)


def test_optional_and_repeated_fields_are_not_malformed(server: Server) -> None:
    assert server.read((b"accept", b"*/*"), version="1.0").length == 0
    assert server.read(HOST, (b"accept", b"a/b"), (b"accept", b"c/d")).length == 0
    assert server.read((b"host", b"")).length == 0
    assert server.read((b"host", b"[::1]:80")).length == 0


@pytest.mark.parametrize("target", [b"nonsense", b"/\xff", b"http://"])
def test_an_invalid_target_is_malformed(target: bytes) -> None:
    with pytest.raises(MalformedError, match="neither a path nor a URL"):
        parts_of(target)


def test_a_target_is_a_path_or_a_url() -> None:
    assert parts_of(b"/next?a=b") == ("/next", None)
    assert parts_of(b"http://x/n%65xt") == ("/next", b"x")
    assert parts_of(b"http://[::1]:80?a") == ("/", b"[::1]:80")


def test_the_length_of_a_body_is_its_header_or_none_for_chunks(server: Server) -> None:
    assert server.read(HOST, (b"content-length", b"0012")).length == 12
    assert server.read(HOST, (b"content-length", b"0" * 9_999)).length == 0
    assert server.read(HOST, (b"transfer-encoding", b"chunked")).length is None


def test_only_plain_requests_get_the_cached_rendering(server: Server) -> None:
    assert server.read().plain
    assert not server.read(keep_alive=False).plain
    assert server.read(version="1.0").plain
    assert not server.read(version="1.0", keep_alive=False).plain
    assert not server.read(method="HEAD").plain
