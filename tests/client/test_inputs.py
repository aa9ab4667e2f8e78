"""What a client is given: URLs, keys, indexes, and answers of every form."""

import time

import pytest

from fibcore import Client
from fibcore.client import (
    ClientError,
    NoAnswerError,
    Number,
    StepInDoubtError,
    UnavailableError,
    UnexpectedReplyError,
)
from tests.client.conftest import Connect
from tests.support.fake_server import FakeServer, Fault, Handler, lose, raw, shed
from tests.support.ports import free_port

KEY = "5:aaaaaaaaaaaaaaaaaaaaaa"
TEXT = "Content-Type: text/plain; charset=utf-8"


def number(digits: str, tag: str = '"6-text"', kind: str = TEXT) -> Fault:
    return raw(f"HTTP/1.1 200 OK\n{kind}\nETag: {tag}\n\n{digits}")


def literally(sent: bytes) -> Fault:
    """Send these bytes, then close the connection."""

    def fault(handler: Handler, head: bytes, body: bytes) -> None:  # noqa: ARG001
        handler.wfile.write(sent)
        handler.close_connection = True

    return fault


# Answers

OUTSTANDING = raw(
    'HTTP/1.1 409 Conflict\nContent-Type: application/problem+json\n\n{"key": "outstanding"}'
)
REJECTED = raw("HTTP/1.1 403 Forbidden\n\n")
FAILED = raw("HTTP/1.1 500 Internal Server Error\n\n")


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        ([shed] * 200, UnavailableError),
        ([lose] * 200, StepInDoubtError),
        ([FAILED] * 200, StepInDoubtError),
        ([lose, *[shed] * 200], StepInDoubtError),
        ([OUTSTANDING] * 200, StepInDoubtError),
        ([lose, *[REJECTED] * 200], StepInDoubtError),
    ],
    ids=["unavailable", "lost", "failed", "lost, unavailable", "under way", "lost, rejected"],
)
def test_the_error_at_the_timeout_tells_whether_the_step_is_in_doubt(
    connect: Connect, faults: list[Fault], error: type[ClientError]
) -> None:
    with FakeServer(5) as server:
        server.will(*faults)
        with pytest.raises(error) as caught:
            connect(server.url).next(key=KEY, timeout=0.5)
        assert type(caught.value) is error


def test_without_any_server_no_step_is_in_doubt(connect: Connect) -> None:
    with pytest.raises(NoAnswerError) as caught:
        connect(f"http://127.0.0.1:{free_port()}").next(key=KEY, timeout=0.3)
    assert type(caught.value) is NoAnswerError


def test_no_wait_that_a_server_asks_for_outlasts_the_timeout(connect: Connect) -> None:
    with FakeServer() as server:
        server.will(raw("HTTP/1.1 503 Service Unavailable\nRetry-After: 3600\n\n"))
        begun = time.monotonic()
        with pytest.raises(UnavailableError):
            connect(server.url, timeout=60.0).current()
        assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (number("8", tag='"6"'), "no ETag"),
        (number("8", tag="6"), "no ETag"),
        (number("8", kind="Content-Type: text/html"), "no ETag"),
        (number(""), "not a number"),
        (number("08"), "not a number"),
        (number("8\n"), "not a number"),
        (number("9" * 21, tag='"100-uint64-text"'), "longer than its ETag allows"),
        (number("5", tag='"5-text"'), "had been before"),
    ],
    ids=["no mark of text", "no quotes", "HTML", "empty", "a zero", "a line", "long", "earlier"],
)
def test_a_reply_that_is_not_a_number_is_rejected(
    connect: Connect, fault: Fault, says: str
) -> None:
    with FakeServer(5) as server:
        server.will(fault)
        with pytest.raises(UnexpectedReplyError, match=says) as caught:
            connect(server.url).next(key=KEY)
    assert caught.value.key == KEY


def test_the_number_at_another_index_is_rejected(connect: Connect) -> None:
    with FakeServer() as server:
        server.will(number("8"))
        with pytest.raises(UnexpectedReplyError, match="it is the number at index 6"):
            connect(server.url).number(7)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (number("8", tag='"95-uint64-text"'), Number(95, "8", False)),
        (number("8", tag='"93-uint64-text"'), Number(93, "8")),
        (number("8", tag='W/"6-text"'), Number(6, "8")),
    ],
    ids=["modulo 2^64", "below 2^64", "weakened"],
)
def test_a_number_is_marked_as_exact_if_its_etag_says_so(
    connect: Connect, fault: Fault, expected: Number
) -> None:
    with FakeServer() as server:
        server.will(fault)
        assert connect(server.url).current() == expected


HEAD = f'HTTP/1.1 200 OK\r\n{TEXT}\r\nETag: "7-text"\r\n'.encode()
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n1\r\n1\r\n3\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"Content-Length: 2\r\n\r\n13",
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + HEAD + b"Content-Length: 2\r\n\r\n13",
        CHUNKED + b'0\r\nETag: "8"\r\n\r\n',
    ],
    ids=["with a length", "after an interim answer", "chunked, with a trailer"],
)
def test_a_complete_answer_is_read(connect: Connect, sent: bytes) -> None:
    with FakeServer() as server:
        server.will(literally(sent))
        assert connect(server.url).current() == Number(7, "13")


@pytest.mark.parametrize(
    "sent",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        HEAD + b"X: " + b"x" * 70_000,
        HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n13",
        HEAD + b"\r\n13",
        CHUNKED,
    ],
    ids=["another protocol", "an upgrade", "a long head", "two lengths", "no length", "no end"],
)
def test_an_answer_that_is_broken_counts_as_lost(connect: Connect, sent: bytes) -> None:
    with FakeServer(5) as server:
        server.will(*[literally(sent)] * 200)
        with pytest.raises(StepInDoubtError):
            connect(server.url).next(key=KEY, timeout=0.3)


# Arguments


@pytest.mark.parametrize(
    "url",
    [
        *("", "127.0.0.1:8080", "ftp://a", "http://", "http://a b", "http://a?x", "http://a#x"),
        *("http://a:b", "http://\xe4", "http://a:0", "http://a:65536", "http://a..b"),
        *(f"http://{64 * 'a'}", "http://[::1", "http://a,b"),
    ],
)
def test_an_invalid_url_is_rejected(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Client(url)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://ann:secret@a",
        "ann:secret@a:8080",
        "http:/ann:secret@a",
        "http://ann:sec/ret@a",
        "http://ann:1/secret@a",
        "http://ann:sec#ret@a",
        "http://ann:sec ret@a",
    ],
)
def test_a_password_in_an_invalid_url_is_not_shown(url: str) -> None:
    """Parsers disagree on where it ends."""
    with pytest.raises(ValueError, match="is not the URL") as caught:
        Client(url)
    assert "sec" not in str(caught.value)


def test_a_client_needs_a_server() -> None:
    with pytest.raises(ValueError, match="needs the URL"):
        Client([])


def test_a_url_may_have_a_path(connect: Connect) -> None:
    with FakeServer(6) as server:
        assert connect(f"{server.url}/fib/").current().index == 6
        assert server.asked[0].path == "/fib/current"


@pytest.mark.parametrize(
    "key", ["", "5", "5:short", "05:aaaaaaaaaaaaaaaa", "5:aaaaaaaaaaaaaaaa\n", '5:"' * 9]
)
def test_a_malformed_key_is_rejected_by_the_client(connect: Connect, key: str) -> None:
    with pytest.raises(ValueError, match="INDEX:RANDOM"):
        connect("http://127.0.0.1:1").next(key=key)


@pytest.mark.parametrize("index", [-1, 2**63])
def test_an_index_out_of_bounds_is_rejected(connect: Connect, index: int) -> None:
    with pytest.raises(ValueError, match="index must be from 0"):
        connect("http://127.0.0.1:1").number(index)
