"""Drawn streams over a real socket, with h11 as the oracle for what is a request and an answer."""

import itertools
import json
import string
from collections.abc import Iterator
from typing import Final, NamedTuple

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.implementations import server_of_the_module
from tests.support.raw_clients import say
from tests.support.reference import fibonacci
from tests.support.servers import HOST, Client

pytestmark = pytest.mark.processes

client = server_of_the_module(80)

KEYS: Final = {"/next": "next", "/current": "current", "/previous": "previous"}
PATHS: Final = (*KEYS, "/health", "/numbers/7", "/nowhere")

NAMES: Final = st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", max_size=20)
"""Of fields; a letter before them makes each one that the server does not know."""
VALUES: Final = st.lists(
    st.text([chr(each) for each in (*range(0x21, 0x7F), *range(0x80, 0x100))], max_size=30)
)
PADDING: Final = st.sampled_from(["", " ", "\t", "  "])


class Asked(NamedTuple):
    """What h11 read as one request."""

    method: str
    path: str

    @property
    def status(self) -> int:
        if self.path == "/nowhere":
            return 404
        allowed = ("GET", "POST") if self.path == "/next" else ("GET", "HEAD")
        return 200 if self.method in allowed else 405

    @property
    def is_step(self) -> bool:
        return self.path == "/next" and self.status == 200


@st.composite
def fields(draw: st.DrawFn) -> str:
    name, value = "z" + draw(NAMES), " ".join(draw(VALUES))
    return f"{name}:{draw(PADDING)}{value}{draw(PADDING)}"


@st.composite
def framed_bodies(draw: st.DrawFn) -> tuple[list[str], bytes]:
    """The fields that frame a body, and the body as it is sent."""
    form = draw(st.sampled_from(["none", "length", "chunks"]))
    if form == "none":
        return [], b""
    if form == "length":
        body = draw(st.binary(max_size=300))
        return [f"Content-Length: {len(body)}"], body
    chunks = draw(st.lists(st.binary(min_size=1, max_size=300), max_size=4))
    extension = draw(st.sampled_from([b"", b";a=b"]))
    sent = b"".join(b"%x%b\r\n%b\r\n" % (len(each), extension, each) for each in chunks)
    trailer = draw(st.sampled_from([b"", b"Zend: 1\r\n"]))
    return ["Transfer-Encoding: chunked"], sent + b"0\r\n" + trailer + b"\r\n"


@st.composite
def requests(draw: st.DrawFn, *more: str) -> bytes:
    """A valid request, with these fields among others."""
    method, path = draw(st.sampled_from(["GET", "HEAD", "POST"])), draw(st.sampled_from(PATHS))
    query = draw(st.sampled_from(["", "", "?", "?a=b&c"]))
    framing, body = draw(framed_bodies())
    host = draw(st.sampled_from(["Host", "host", "HOST"]))
    lines = [f"{host}: {HOST}", *framing, *more, *draw(st.lists(fields(), max_size=5))]
    head = [f"{method} {path}{query} HTTP/1.1", *draw(st.permutations(lines)), "", ""]
    return "\r\n".join(head).encode("latin-1") + body


STREAMS: Final = st.lists(requests(), min_size=1, max_size=8)
CUTS: Final = st.lists(st.integers(0, 5_000), max_size=6)

BROKEN: Final = (
    b"GET /next\r\nHost: x\r\n\r\n",
    b"GET /next HTTP/1.1\r\n\r\n",
    b"GET /next HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
    b"GET /next HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n",
    b"GET /next HTTP/1.1\r\nHost: x\r\nA\r\n\r\n",
    b"GET /next HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n",
    b"GET /ne xt HTTP/1.1\r\nHost: x\r\n\r\n",
    b"G\x01T /next HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /next HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /next HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 2\r\n\r\nab",
    b"POST /next HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"POST /next HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\ng\r\n",
    b"POST /next HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
)
"""Steps that are not valid, as h11 and the server read them alike."""


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, *(place % (len(data) + 1) for place in places), len(data)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def requests_in(stream: bytes) -> Iterator[Asked]:
    """The requests that a server has to answer; raises at a broken one."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(stream)
    server.receive_data(b"")
    while isinstance(begun := server.next_event(), h11.Request):
        while not isinstance(event := server.next_event(), h11.EndOfMessage):
            assert isinstance(event, h11.Data)
        yield Asked(begun.method.decode(), begun.target.decode().partition("?")[0])
        server.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
        server.send(h11.EndOfMessage())
        if server.our_state is h11.MUST_CLOSE:
            return
        server.start_next_cycle()


def answers_in(received: bytes, asked: list[Asked]) -> Iterator[tuple[h11.Response, bytes]]:
    """One valid answer to each of these requests, and the bytes end with the last of them."""
    for number, each in enumerate(asked):
        reader = h11.Connection(h11.CLIENT)
        reader.send(h11.Request(method=each.method, target=each.path, headers=[("Host", HOST)]))
        reader.send(h11.EndOfMessage())
        reader.receive_data(received)
        answer, body = reader.next_event(), b""
        assert isinstance(answer, h11.Response), (answer, number)
        while isinstance(event := reader.next_event(), h11.Data):
            body += event.data
        assert isinstance(event, h11.EndOfMessage)
        yield answer, body
        received, _ = reader.trailing_data
    assert received == b""


def check(received: bytes, asked: list[Asked], index: int) -> int:
    """Check the answers to requests that began at ``index``; return the index after them."""
    for each, (answer, body) in zip(asked, answers_in(received, asked), strict=True):
        assert answer.status_code == each.status, each
        index += each.is_step
        if each.path in KEYS:
            tag = dict(answer.headers.raw_items())[b"etag"]
            assert tag.strip(b'"') == b"%d" % index
        if each.path in KEYS and each.status == 200 and each.method != "HEAD":
            shown = max(index - 1, 0) if each.path == "/previous" else index
            assert json.loads(body) == {KEYS[each.path]: fibonacci(shown)}
    return index


@given(stream=STREAMS, last=requests() | requests("Connection: close"), cuts=CUTS)
def test_each_request_of_a_valid_stream_has_its_answer_in_order(
    client: Client, stream: list[bytes], last: bytes, cuts: list[int]
) -> None:
    data, before = b"".join(stream) + last, client.index
    asked = list(requests_in(data))
    assert check(say(client, *cut(data, cuts)), asked, before) == client.index


@given(stream=STREAMS, broken=st.sampled_from(BROKEN), after=requests(), cuts=CUTS)
def test_a_broken_request_makes_no_step_and_those_before_it_are_answered(
    client: Client, stream: list[bytes], broken: bytes, after: bytes, cuts: list[int]
) -> None:
    """At most one answer says what is wrong with it, and nothing after it is read."""
    data, before = b"".join(stream), client.index
    asked = list(requests_in(data))
    received = say(client, *cut(data + broken + after, cuts))
    with pytest.raises(h11.RemoteProtocolError):
        list(requests_in(data + broken + after))
    received, _, problem = received.rpartition(b"HTTP/1.1 400")
    assert b"connection: close" in problem.lower()
    assert check(received, asked, before) == client.index


@given(stream=STREAMS, last=requests(), cuts=CUTS, kept=st.floats(0, 0.99))
def test_a_request_that_is_cut_off_makes_no_step(
    client: Client, stream: list[bytes], last: bytes, cuts: list[int], kept: float
) -> None:
    data, before = b"".join(stream), client.index
    asked = list(requests_in(data))
    half = last[: int(len(last) * kept)]
    received = say(client, *cut(data + half, cuts))
    if received.count(b"HTTP/1.1 400"):
        received = received[: received.rindex(b"HTTP/1.1 400")]
    assert check(received, asked, before) == client.index
