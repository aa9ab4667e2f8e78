"""The parser of one request: its end, the parts that are kept, and the bounds."""

from collections import defaultdict
from typing import NoReturn

import pytest

from web.endpoints.table import TABLE
from web.http.heads import Heads, MalformedError, mark
from web.http.negotiation import Representation
from web.http.parser import MAX_BODY, MAX_FIELDS, MAX_HEAD, Parser, fields_of

HOST = b"Host: x\r\n"
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"
STEP = b"POST /next HTTP/1.1\r\n" + HOST
PAGE = b"POST / HTTP/1.1\r\n" + HOST
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


HEADS = Heads(TABLE, defaultdict(lambda: [0] * 600))


@pytest.fixture
def parser() -> Parser:
    return Parser(HEADS)


WHOLE = {
    "no body": STEP + b"\r\n",
    "a body": PAGE + b"Content-Length: 2\r\n\r\n{}",
    "a body that ends in an empty line": PAGE + b"Content-Length: 8\r\n\r\n\r\n\r\n\r\n\r\n",
    "chunks": PAGE + CHUNKED + b"2;a=b\r\n{}\r\n1\r\nx\r\n0\r\n\r\n",
    "a trailer": PAGE + CHUNKED + b"2\r\n{}\r\n0\r\nIf-Match: x\r\n\r\n",
    "an upgrade": STEP + UPGRADE + b"\r\n",
    "an upgrade and a body": PAGE + UPGRADE + b"Content-Length: 2\r\n\r\n{}",
    "an upgrade and chunks": PAGE + UPGRADE + CHUNKED + b"2\r\n{}\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)
def test_a_request_is_found_however_it_is_split(parser: Parser, data: bytes) -> None:
    found = []
    for size in (len(data), 1, 2, 3, 4, 5):
        for at in range(0, len(data), size):
            piece = data[at : at + size]
            assert not parser.whole
            if at + size < len(data):
                assert parser.feed(piece) == len(piece)
            else:
                # Bytes pipelined behind it are left alone.
                assert parser.feed(b"before" + piece + STEP + b"\r\n", 6) == 6 + len(piece)
        assert parser.whole
        assert parser.raw == data[: data.index(b"\r\n\r\n") + 4]
        assert parser.size == len(parser.raw) + len(parser.body)
        found.append((parser.head, bytes(parser.body)))
        parser.begin()
    assert found == [found[0]] * 6
    head, body = found[0]
    assert head is not None
    assert body in (b"", b"{}", b"{}x", b"\r\n" * 4)
    assert (body == b"") == (head.endpoint is not None)
    assert head.request.if_match is None


@pytest.mark.parametrize(
    "data",
    [
        *WHOLE.values(),
        STEP + b"\r\n" + STEP + b"\r\n",
        STEP + UPGRADE + b"\r\n" + STEP + b"\r\n",
        STEP + b"Content-Length: 4\r\n\r\n\r\n\r\n",
        b"\r\n\r\n" + STEP + b"\r\n",
        STEP,
        b"GET / HTTP/1.1\r\n" + HOST + b"\r\n",
    ],
)
def test_parsing_at_once_equals_feeding_in_pieces(parser: Parser, data: bytes) -> None:
    """It parses exactly one request, or leaves the parser untouched."""
    fed = Parser(HEADS)
    end = fed.feed(data)
    head = parser.request(data)
    if head is None:
        assert parser.feed(data) == end
        assert (parser.head, parser.body, parser.whole) == (fed.head, fed.body, fed.whole)
    else:
        assert (head, len(data)) == (fed.head, end)
        assert fed.whole
        assert (parser.head, parser.raw) == (None, b"")


def test_a_plain_request_is_parsed_at_once_and_known_the_next_time() -> None:
    heads = Heads(TABLE, defaultdict(lambda: [0] * 600))
    parser = Parser(heads)
    first, second = (parser.request(STEP + b"\r\n") for _ in range(2))
    assert first is second is not None
    assert heads.known == {STEP + b"\r\n": first}


def test_a_field_counts_whatever_its_case(parser: Parser) -> None:
    for name in HEADS.counting:
        assert HEADS.marks[mark(name)] == HEADS.marks[mark(name.upper())] == 1
    spelled = (b"Accept", b"accept", b"ACCEPT", b"aCCept")
    heads = [parser.request(STEP + name + b": text/plain\r\n\r\n") for name in spelled]
    assert heads == [heads[0]] * 4
    assert heads[0] is not None
    assert heads[0].request.representation is Representation.TEXT


def test_irrelevant_fields_do_not_change_the_head(parser: Parser) -> None:
    heads = []
    for number in range(2):
        parser.feed(STEP + b"X-Request-Id: %d\r\n\r\n" % number)
        heads.append(parser.head)
        parser.begin()
    assert heads[0] is heads[1] is not None


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 2\r\n\r\n{}",
        b"Content-Length: 1000000\r\n\r\n" + bytes(1_000_000),
        CHUNKED + b"f4240\r\n" + bytes(1_000_000) + b"\r\n0\r\n\r\n",
    ],
    ids=["short", "long", "chunk"],
)
def test_an_ignored_body_is_not_kept_and_has_no_bound(parser: Parser, body: bytes) -> None:
    parser.feed(STEP + body)
    assert parser.whole
    assert parser.body == b""


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET /next HTTP/1.1\r\n\r\n", "it has no Host"),
        (b"CONNECT /next HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT asks for a tunnel"),
        (b"rubbish\r\n\r\n", "(?i)invalid"),
        (PAGE + CHUNKED + b"rubbish\r\n", "(?i)invalid"),
    ],
)
def test_bytes_that_are_not_a_request_raise_the_reason(
    parser: Parser, data: bytes, why: str
) -> None:
    with pytest.raises(MalformedError, match=why):
        parser.feed(data)
    at_once = Parser(HEADS)
    with pytest.raises(MalformedError, match=why):
        at_once.request(data) or at_once.feed(data)


def test_an_internal_error_is_not_blamed_on_the_client() -> None:
    """It is raised unchanged: the request does not count as malformed."""

    class Mistaken(Heads):
        def read(self, *_: object) -> NoReturn:
            raise ValueError("a mistake")

    parser = Parser(Mistaken(TABLE, defaultdict(lambda: [0] * 600)))
    with pytest.raises(ValueError, match="a mistake"):
        parser.feed(STEP + b"\r\n")


def test_the_fields_of_a_head_are_kept_for_starlette_in_order() -> None:
    fields = [(b"host", b"x"), (b"a", b"b"), (b"a", b"c")]
    assert fields_of(PAGE + b"A: b\r\na: c\r\n\r\n") == fields
    assert fields_of(PAGE + UPGRADE + b"\r\n")[:2] == [
        (b"host", b"x"),
        (b"connection", b"Upgrade, HTTP2-Settings"),
    ]


# Bounds


def test_a_head_is_bounded_to_the_byte(parser: Parser) -> None:
    room = MAX_HEAD - len(STEP + b"X: \r\n\r\n")
    longest = STEP + b"X: " + b"y" * room + b"\r\n\r\n"
    for cut in (0, MAX_HEAD - 1):
        parser.feed(longest[:cut])
        parser.feed(longest[cut:])
        assert parser.whole
        parser.begin()
    with pytest.raises(MalformedError, match="its head has more than 16384 bytes"):
        parser.feed(STEP + b"X: " + b"y" * (room + 1) + b"\r\n\r\n")


def test_a_head_may_have_a_hundred_fields_and_a_trailer_as_many(parser: Parser) -> None:
    assert MAX_FIELDS == 100
    fields, trailer = b"a: b\r\n" * 98, b"a: b\r\n" * 100
    start = PAGE + fields + CHUNKED
    parser.feed(start + b"0\r\n" + trailer + b"\r\n")
    assert parser.whole
    more = b"c: d\r\n"
    for data in (PAGE + fields + more + CHUNKED, start + b"0\r\n" + trailer + more + b"\r\n"):
        parser.begin()
        parser.close()
        with pytest.raises(MalformedError, match="it has more than 100 field lines"):
            parser.feed(data)


def test_a_kept_body_is_bounded_to_the_byte(parser: Parser) -> None:
    parser.feed(PAGE + b"Content-Length: %d\r\n\r\n" % MAX_BODY + bytes(MAX_BODY))
    assert parser.whole
    assert len(parser.body) == MAX_BODY
    parser.begin()
    with pytest.raises(MalformedError, match="its body has more than 65536 bytes"):
        parser.feed(PAGE + b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 1) + bytes(MAX_BODY + 1))


def test_the_framing_of_a_body_has_a_bound_that_grows_with_it(parser: Parser) -> None:
    # Eight bytes of framing per byte are always fine; a ninth is allowed 16,384 times.
    parser.feed(STEP + CHUNKED + b"1;ab\r\nx\r\n" * 20_000 + b"0\r\n\r\n")
    assert parser.whole
    parser.begin()
    parser.feed(STEP + CHUNKED + b"1;abc\r\nx\r\n" * 16_000 + b"0\r\n\r\n")
    assert parser.whole
    parser.begin()
    with pytest.raises(MalformedError, match="the framing of its body has more than 16384"):
        parser.feed(STEP + CHUNKED + b"1;abc\r\nx\r\n" * 16_800)
