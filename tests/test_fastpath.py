"""The fast path gives what uvicorn and Starlette give, byte for byte, and steps as often."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Final

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from fibcore.budget import UNCOUNTED_DIGITS
from tests.conversation import (
    FakeTransport,
    Heard,
    connect,
    converse,
    fast,
    open_service,
    over_the_network,
    settle,
    stock,
)
from web.connection import Connection
from web.fastpath import FastConnection
from web.heads import MAX_HEAD_SIZE, MAX_HEADS, Heads
from web.service import Service

HOST: Final = b"Host: 127.0.0.1:8080\r\n"


def get(path: str, *lines: str, method: str = "GET", version: str = "1.1") -> bytes:
    """A request with a Host line and ``lines``."""
    head = [f"{method} {path} HTTP/{version}\r\n".encode(), HOST]
    head += [line.encode("latin-1") + b"\r\n" for line in lines]
    return b"".join(head) + b"\r\n"


PLAIN: Final = [
    get("/current"),
    get("/previous"),
    get("/next"),
    get("/health"),
    get("/next", method="POST"),
    get("/current", "User-Agent: curl/7.88.1", "Accept: */*"),
    get("/next", "Accept: application/json, text/plain, */*", "Accept-Encoding: gzip"),
]

NOT_PLAIN: Final = [
    get("/current", method="HEAD"),
    get("/next", method="HEAD"),
    get("/next", method="PUT"),
    get("/next", method="OPTIONS"),
    get("/current", method="POST"),
    get("/health", method="DELETE"),
    get("/"),
    get("/next/"),
    get("/next?"),
    get("/next?a=1"),
    get("/next#there"),
    get("/%6eext"),
    get("//next"),
    get("/NEXT"),
    get("http://127.0.0.1:8080/next"),
    get("*", method="OPTIONS"),
    get("127.0.0.1:80", method="CONNECT"),
    get("/next", version="1.0"),
    get("/next", "Connection: keep-alive", version="1.0"),
    get("/current", version="0.9"),
    get("/current", version="2.0"),
    get("/current", "Accept: text/plain"),
    get("/next", "Accept: text/plain;q=0.9, application/json;q=0.1"),
    get("/current", 'If-None-Match: "7"'),
    get("/current", 'If-None-Match: "8"'),
    get("/current", 'If-Match: "8"'),
    get("/next", 'If-Match: "7"'),
    get("/next", 'If-Match: "8"'),
    get("/next", "If-Match: nonsense"),
    get("/next", "Sec-Purpose: prefetch"),
    get("/next", "Purpose: prefetch"),
    get("/next", "Connection: close"),
    get("/next", "Connection: keep-alive"),
    get("/next", "Connection: upgrade", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    get("/next", "Connection: Upgrade", "Upgrade: websocket"),
    get("/next", "Expect: 100-continue", "Content-Length: 2", method="POST") + b"ab",
    get("/next", "Content-Length: 0", method="POST"),
    get("/next", "Content-Length: 5", method="POST") + b"hello",
    get("/next", "Content-Length: 5") + b"hello",
    get("/next", "Content-Length: -1"),
    get("/next", "Content-Length: 5", "Content-Length: 6") + b"hello!",
    get("/next", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n0\r\n\r\n",
    get("/next", "Transfer-Encoding: chunked", "Content-Length: 4") + b"0\r\n\r\n",
    get("/next", "Transfer-Encoding: identity"),
    get("/next", "X-Other: 1"),
    get("/next", "Accept : */*"),
    get("/next", " folded"),
    get("/next", "User-Agent:  two spaces"),
    get("/next", "User-Agent:none"),
    get("/next", "User-Agent: \x00"),
    get("/next", "User-Agent: " + "x" * MAX_HEAD_SIZE),
    b"GET /next HTTP/1.1\nHost: a\n\n",
    b"GET  /next HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /next  HTTP/1.1\r\n" + HOST + b"\r\n",
    b"\r\nGET /next HTTP/1.1\r\n" + HOST + b"\r\n",
    b"get /next HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /next\r\n\r\n",
    b"GET /ne\x00xt HTTP/1.1\r\n" + HOST + b"\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"nonsense\r\n\r\n",
    b"\r\n\r\n\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
]

CORPUS: Final = [
    *PLAIN,
    *NOT_PLAIN,
    get("/next", "User-Agent: trailing "),
    get("/next", "User-Agent: \xe9"),
    b"GET /next HTTP/1.1\r\n\r\n",
]


def both(chunks: Sequence[bytes], *, index: int = 7, patient: bool = False, **more: str) -> Heard:
    """What is heard either way, which must be the same."""

    async def run() -> tuple[Heard, Heard]:
        return (
            await converse(fast, chunks, index=index, patient=patient, **more),
            await converse(stock, chunks, index=index, patient=patient, **more),
        )

    with_it, without_it = asyncio.run(run())
    assert with_it == without_it
    return with_it


@pytest.mark.parametrize("request_", CORPUS, ids=repr)
def test_every_request_is_answered_as_without_the_fast_path(request_: bytes) -> None:
    both([request_])
    both([request_, get("/next"), request_, get("/current")], patient=True)


@pytest.mark.parametrize("request_", CORPUS, ids=repr)
def test_a_request_split_anywhere_is_answered_as_without_the_fast_path(request_: bytes) -> None:
    stride = max(1, len(request_) // 80)
    for at in range(1, len(request_), stride):
        both([request_[:at], request_[at:], get("/current")])


@pytest.mark.parametrize("second", CORPUS, ids=repr)
@pytest.mark.parametrize("first", [get("/next"), get("/current"), CORPUS[-8]], ids=repr)
def test_pipelined_requests_are_answered_as_without_the_fast_path(
    first: bytes, second: bytes
) -> None:
    both([first + second + get("/next")])
    both([first, second, get("/next"), get("/previous")])
    both([first, second + get("/next")])


PIECES: Final = st.one_of(
    st.sampled_from(CORPUS),
    st.sampled_from(PLAIN),
    st.binary(max_size=40),
    st.sampled_from([b"\r\n", b"\r", b"\n", b" ", b"GET ", b"/next", b" HTTP/1.1", HOST, b"\x00"]),
)


@settings(max_examples=500)
@given(data=st.data())
def test_any_bytes_in_any_chunks_are_answered_as_without_the_fast_path(data: st.DataObject) -> None:
    said = bytearray(b"".join(data.draw(st.lists(PIECES, min_size=1, max_size=6))))
    for at in data.draw(st.lists(st.integers(0, max(0, len(said) - 1)), max_size=2)):
        if said:
            said[at] = data.draw(st.integers(0, 255))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(said)), max_size=8)))
    edges = [0, *cuts, len(said)]
    chunks = [bytes(said[a:b]) for a, b in itertools.pairwise(edges) if a < b]
    both(chunks, patient=data.draw(st.booleans()))


@pytest.mark.parametrize("index", [0, 1, 92, 93, 94, 19_000, 19_600, 40_000])
def test_numbers_of_any_length_are_answered_as_without_the_fast_path(index: int) -> None:
    heard = both([*PLAIN, get("/current"), get("/next"), get("/current")], index=index)
    assert heard.index == index + 4


def test_the_largest_index_is_answered_as_without_the_fast_path() -> None:
    heard = both([get("/next"), get("/next"), get("/current")], index=9, FIB_MAX_INDEX="10")
    assert b"409 Conflict" in heard.data
    assert heard.index == 10


def test_too_many_waiting_steps_are_answered_as_without_the_fast_path() -> None:
    heard = both([get("/next")] * 3, FIB_MAX_WAITING="1")
    assert heard.index == 10


def test_on_real_connections_the_answers_are_those_without_the_fast_path() -> None:
    last = get("/current", "Connection: close")
    conversations = [
        [get("/next") + request, request, get("/next"), last]
        for request in CORPUS
        if request.startswith((b"GET", b"POST", b"HEAD"))
        # uvicorn drops what arrives in one piece with an upgrade.
        and b"Upgrade:" not in request
    ]

    async def run() -> tuple[list[Heard], list[Heard]]:
        return (
            await over_the_network(fast, conversations, index=40_000),
            await over_the_network(stock, conversations, index=40_000),
        )

    with_it, without_it = uvloop.run(run())
    assert with_it == without_it
    assert with_it[-1].index > 40_000 + len(conversations)


# The control of all the above: that the fast path was taken at all, and where it was not.


@pytest.mark.parametrize("request_", PLAIN, ids=repr)
def test_a_plain_request_never_reaches_uvicorn(
    request_: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begun(_: object) -> None:
        raise AssertionError("uvicorn's parser has begun a request")

    monkeypatch.setattr(FastConnection, "on_message_begin", begun)
    heard = asyncio.run(converse(fast, [request_, request_]))
    assert heard.data.count(b"HTTP/1.1 200 OK\r\n") == 2


@pytest.mark.parametrize("request_", NOT_PLAIN, ids=repr)
def test_any_other_request_is_not_plain(request_: bytes) -> None:
    assert Heads().learn(request_) is None


def test_with_the_access_log_on_uvicorn_answers_and_logs_every_request(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> bytes:
        async with open_service() as service:
            transport = FakeTransport()
            connection = connect(fast(service), service, transport, access_log=True)
            connection.data_received(get("/current"))
            await settle(service, connection, transport)
            return bytes(transport.written)

    # Where the log is off, uvicorn takes its logger's handlers away for good.
    monkeypatch.setattr(logging.getLogger("uvicorn.access"), "propagate", True)
    with caplog.at_level("INFO", "uvicorn.access"):
        assert asyncio.run(run()).endswith(b'{"current": 0}')
    assert '"GET /current HTTP/1.1" 200' in caplog.text


# What goes wrong half-way, on either path.


@pytest.mark.parametrize("kind", [fast, stock])
def test_what_can_not_be_parsed_is_refused_after_the_answer_to_the_step_before_it(
    kind: Callable[[Service], type[Connection]],
) -> None:
    heard = asyncio.run(converse(kind, [get("/next"), b"nonsense\r\n\r\n"]))
    first, second = heard.data.split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"200")
    assert second.startswith(b"400")
    assert heard.closed
    assert heard.index == 1


@pytest.mark.parametrize("kind", [fast, stock])
@pytest.mark.parametrize("together", [True, False])
def test_a_step_whose_body_can_not_be_parsed_is_not_made(
    kind: Callable[[Service], type[Connection]], together: bool
) -> None:
    said = [get("/next", "Transfer-Encoding: chunked", method="POST"), b"nonsense\r\n"]
    heard = asyncio.run(converse(kind, [b"".join(said)] if together else said))
    assert heard.data.startswith(b"HTTP/1.1 400 ")
    assert heard.data.count(b"HTTP/1.1 ") == 1
    assert heard.closed
    assert heard.index == 0


@pytest.mark.parametrize("kind", [fast, stock])
def test_an_upgrade_is_declined_by_the_answer_and_the_connection_goes_on(
    kind: Callable[[Service], type[Connection]], caplog: pytest.LogCaptureFixture
) -> None:
    upgrade = get("/next", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c")
    heard = asyncio.run(converse(kind, [upgrade, get("/next"), get("/current")], patient=True))
    assert heard.data.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert heard.index == 2
    assert not caplog.records


# The table of heads.


def test_the_table_of_heads_is_bounded_in_entries_and_in_bytes() -> None:
    heads = Heads()
    for number in range(3 * MAX_HEADS):
        assert heads.learn(get("/next", f"User-Agent: {number}")) is not None
        heads.learn(get("/next", f"X-Other: {number}"))
        heads.learn(get("/next", f"User-Agent: {number}" + "x" * MAX_HEAD_SIZE))
    assert len(heads.known) <= MAX_HEADS
    assert max(map(len, heads.known)) <= MAX_HEAD_SIZE


def test_a_head_that_was_driven_out_of_the_table_is_learned_again() -> None:
    heads = Heads()
    mine = get("/next")
    heads.learn(mine)
    for number in range(MAX_HEADS):
        heads.learn(get("/next", f"User-Agent: {number}"))
    assert mine not in heads.known
    assert heads.learn(mine) is not None


# Back-pressure and the end of a connection.


def test_a_client_that_takes_nothing_is_answered_no_further_request() -> None:
    async def run() -> None:
        async with open_service(40_000) as service:
            transport = FakeTransport(stuck=True)
            connection = connect(fast(service), service, transport)
            connection.data_received(get("/current"))
            unsent = transport.get_write_buffer_size()
            assert service.state is not None
            assert service.budget.used == len(service.state.current) > UNCOUNTED_DIGITS
            for _ in range(3):
                if transport.reading:
                    connection.data_received(get("/current"))
                    await asyncio.sleep(0)
            assert transport.get_write_buffer_size() == unsent
            transport.unstick()
            await settle(service, connection, transport)
            assert service.budget.used == 0

    asyncio.run(run())


def test_a_stop_answers_the_step_that_waits_and_closes_the_connection() -> None:
    async def run() -> None:
        async with open_service() as service:
            transport = FakeTransport()
            connection = connect(fast(service), service, transport)
            connection.data_received(get("/next"))
            connection.shutdown()
            assert not transport.closing
            await settle(service, connection, transport)
            assert b"connection: close\r\n" in transport.written
            assert transport.written.endswith(b'{"next": 1}')
            assert transport.closing

    asyncio.run(run())


def test_a_stop_closes_a_connection_that_waits_for_nothing() -> None:
    async def run() -> None:
        async with open_service() as service:
            transport = FakeTransport()
            connection = connect(fast(service), service, transport)
            connection.data_received(get("/current"))
            connection.shutdown()
            assert transport.closing

    asyncio.run(run())


def test_a_step_whose_client_has_left_harms_nobody() -> None:
    async def run() -> None:
        async with open_service() as service:
            transport = FakeTransport()
            connection = connect(fast(service), service, transport)
            connection.data_received(get("/next"))
            transport.closing = True
            connection.connection_lost(None)
            assert service.stepper is not None
            await service.stepper.drain()
            assert service.state is not None
            assert service.state.index == 1
            assert not transport.written

    asyncio.run(run())
