"""The decisions of a call, without I/O: the server, the waits, and which reply is a number."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Final

import pytest

from fibcore.client import (
    NoAnswerError,
    Number,
    StepInDoubtError,
    UnavailableError,
    UnexpectedReplyError,
    calls,
)
from fibcore.client.calls import LONGEST_SECONDS, Ask, Call, Calls, Wait
from fibcore.client.replies import Lost, Reply

KEY: Final = "5:aaaaaaaaaaaaaaaaaaaaaa"
REFUSED: Final = Lost("refused", sent=False)
GONE: Final = Lost("it is gone", sent=True)
OUTSTANDING: Final = Reply(
    409, {"content-type": "application/problem+json"}, b'{"key": "outstanding"}', True
)
TEXT: Final = "text/plain; charset=utf-8"


def number(index: int, digits: bytes = b"8", *, tag: str = '"{}-text"', kind: str = TEXT) -> Reply:
    return Reply(200, {"etag": tag.format(index), "content-type": kind}, digits, True)


def unavailable(retry_after: str = "1", etag: str = "") -> Reply:
    return Reply(503, {"retry-after": retry_after, "etag": etag}, b"", True)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(calls, "monotonic", clock)
    # The longest waits.
    monkeypatch.setattr("random.uniform", lambda _, high: high)
    return clock


def client(*urls: str, timeout: float = 30.0) -> Calls:
    return Calls(urls or ("http://a",), timeout, 5.0)


def run(
    call: Call[object], replies: Iterable[Reply | Lost], clock: Clock | None = None
) -> list[object]:
    """The URLs that it asked, the seconds that it waited, and finally its result."""
    trace: list[object] = []
    given: Iterator[Reply | Lost] = iter(replies)
    result: Reply | Lost | None = None
    try:
        while True:
            asked = call.send(result)
            if isinstance(asked, Ask):
                trace.append(asked.node.url)
                result = next(given)
            else:
                trace.append(asked.seconds)
                result = None
                if clock is not None:
                    clock.now += asked.seconds
    except StopIteration as stop:
        return [*trace, stop.value]


def test_waits_grow_to_a_bound(clock: Clock) -> None:
    trace = run(client().current(None), [*[REFUSED] * 8, number(6)], clock)
    waits = [each for each in trace if isinstance(each, float)]
    assert waits == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_the_wait_is_as_long_as_retry_after(clock: Clock) -> None:
    trace = run(client().current(None), [unavailable("7"), unavailable("x"), number(6)], clock)
    assert trace == ["http://a", 7.0, "http://a", 0.1, "http://a", Number(6, "8")]


def test_each_server_is_asked_once_before_a_wait(clock: Clock) -> None:
    both = client("http://a", "http://b/")
    trace = run(both.current(None), [REFUSED, unavailable(), GONE, number(6)], clock)
    assert trace == ["http://a", "http://b", 1.0, "http://a", "http://b", Number(6, "8")]
    # The one that has answered.
    assert run(both.current(None), [number(6)]) == ["http://b", Number(6, "8")]


@pytest.mark.parametrize(
    ("replies", "error"),
    [
        ([REFUSED], NoAnswerError),
        ([unavailable()], UnavailableError),
        ([unavailable(), REFUSED], UnavailableError),
        ([GONE], StepInDoubtError),
        ([Reply(500, {}, b"", True)], StepInDoubtError),
        ([Reply(502, {}, b"", True), REFUSED], StepInDoubtError),
        ([GONE, unavailable()], StepInDoubtError),
        ([OUTSTANDING], StepInDoubtError),
        ([OUTSTANDING, REFUSED], StepInDoubtError),
        ([GONE, Reply(403, {}, b"", True)], StepInDoubtError),
    ],
    ids=str,
)
def test_the_error_at_the_timeout_tells_whether_the_step_is_in_doubt(
    clock: Clock, replies: list[Reply | Lost], error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        run(
            client().next(KEY, None), itertools.chain(replies, itertools.repeat(replies[-1])), clock
        )
    assert type(caught.value) is error
    assert 1028.0 <= clock.now <= 1030.0


def test_no_wait_outlasts_the_timeout(clock: Clock) -> None:
    with pytest.raises(UnavailableError):
        run(client(timeout=60.0).current(None), [unavailable("3600")], clock)
    assert clock.now == 1000.0


@pytest.mark.usefixtures("clock")
def test_a_wait_that_a_server_asks_for_is_bounded() -> None:
    call = client().current(float("inf"))
    call.send(None)
    assert call.send(unavailable("9" * 400)) == Wait(LONGEST_SECONDS)


def test_an_attempt_ends_before_the_call_except_for_a_long_number(clock: Clock) -> None:
    def deadline(call: Call[object]) -> float:
        asked = call.send(None)
        assert isinstance(asked, Ask)
        return asked.deadline - clock.now

    assert deadline(client().current(None)) == 5.0
    assert deadline(client().current(2.0)) == 2.0
    assert deadline(client().number(10**6, None)) == 30.0
    # The system takes no timeout of 10^10 s: time_t.
    assert deadline(client().number(10**6, float("inf"))) == LONGEST_SECONDS


@pytest.mark.parametrize(
    "seen", [number(7), unavailable("0", '"7"'), number(7, tag='"{}-uint64-text"')], ids=str
)
def test_a_key_contains_the_index_of_the_last_answer(clock: Clock, seen: Reply) -> None:
    ours = client()
    run(ours.current(None), [number(5), number(6)])
    assert str(run(ours.new_key(), [])[0]).startswith("5:")
    run(ours.current(None), [seen, number(7)], clock)
    assert str(run(ours.new_key(), [])[0]).startswith("7:")
    # That of a number at any index says nothing about the sequence.
    run(ours.number(90, None), [number(90)])
    assert str(run(ours.new_key(), [])[0]).startswith("7:")


def test_the_first_step_reads_the_index_for_its_key() -> None:
    ours = client()
    call = ours.next(None, None)
    first = call.send(None)
    assert isinstance(first, Ask)
    assert first.request.startswith(b"GET /current HTTP/1.1\r\nHost: a\r\n")
    second = call.send(number(6))
    assert isinstance(second, Ask)
    assert second.request.startswith(b"POST /next HTTP/1.1\r\n")
    assert b'Idempotency-Key: "6:' in second.request


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (number(6, tag='"{}"'), "no ETag"),
        (number(6, tag="{}"), "no ETag"),
        (number(6, kind="text/html"), "no ETag"),
        (number(6, b""), "not a number"),
        (number(6, b"08"), "not a number"),
        (number(6, b"8\n"), "not a number"),
        (number(6, "٨".encode()), "not a number"),
        (number(100, b"9" * 21, tag='"{}-uint64-text"'), "longer than its ETag allows"),
        (number(5), "had been before"),
    ],
    ids=str,
)
def test_a_reply_that_is_not_a_number_is_rejected(reply: Reply, says: str) -> None:
    with pytest.raises(UnexpectedReplyError, match=says) as caught:
        run(client().next(KEY, None), [reply])
    assert caught.value.key == KEY


def test_the_number_at_another_index_is_rejected() -> None:
    with pytest.raises(UnexpectedReplyError, match="it is the number at index 7"):
        run(client().number(6, None), [number(7)])


def test_a_number_modulo_2_to_the_64_is_not_marked_exact() -> None:
    modular = '"{}-uint64-text"'
    assert run(client().current(None), [number(95, tag=modular)])[-1] == Number(95, "8", False)
    # F(93) is the last number below 2^64.
    assert run(client().previous(None), [number(94, tag=modular)])[-1] == Number(93, "8")


def test_a_weakened_etag_is_read() -> None:
    assert run(client().current(None), [number(6, tag='W/"{}-text"')])[-1] == Number(6, "8")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8080",
        "ftp://a",
        "http://",
        "http://a b",
        "http://a?x",
        "http://a#x",
        "http://a:b",
        "http://ä",
        "http://a:0",
        "http://a:65536",
        "http://a..b",
        f"http://{64 * 'a'}",
        "http://[::1",
        "http://a,b",
    ],
)
def test_an_invalid_url_is_rejected(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        client(url)


def test_a_client_needs_a_server() -> None:
    with pytest.raises(ValueError, match="needs the URL"):
        Calls([], 1.0, 1.0)


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
        client(url)
    assert "sec" not in str(caught.value)


@pytest.mark.parametrize(
    "key", ["", "5", "5:short", "05:aaaaaaaaaaaaaaaa", "5:aaaaaaaaaaaaaaaa\n", '5:"' * 9]
)
def test_a_malformed_key_is_rejected_by_the_client(key: str) -> None:
    with pytest.raises(ValueError, match="INDEX:RANDOM"):
        run(client().next(key, None), [])


@pytest.mark.parametrize("index", [-1, 2**63])
def test_an_index_out_of_bounds_is_rejected(index: int) -> None:
    with pytest.raises(ValueError, match="index must be from 0"):
        client().number(index, None)


def test_a_url_may_have_a_path_and_no_port() -> None:
    call = client("https://a.example/fib/").current(None)
    asked = call.send(None)
    assert isinstance(asked, Ask)
    assert (asked.node.secure, asked.node.port) == (True, 443)
    assert asked.request.startswith(b"GET /fib/current HTTP/1.1\r\nHost: a.example\r\n")
