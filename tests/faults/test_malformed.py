"""What is no HTTP, or half of it, or two things at once: it is rejected, and nothing steps.

A corpus of the shapes that have fooled servers and proxies, each of them about ``/next``, and a
fuzzer that makes more of them. Nothing here waits for a silence: the index is asked for by a step
that can't be made (``If-Match``), which is rejected after all steps that came before it.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.faults.conftest import SECONDS
from tests.faults.server_variants import (
    steps_before_the_request_has_arrived,
    takes_requests_of_any_size,
    variant,
)
from tests.faults.servers import Servers
from tests.support.cases import every
from tests.support.waiting import until
from tests.support.wire import HOST, READ, STEP
from web.http.parser import MAX_FIELDS

pytestmark = pytest.mark.processes

EXAMPLES: Final = max(25, round(2 * SECONDS))


def post(*headers: bytes, body: bytes = b"") -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
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


WORDS: Final = [STEP, READ, post(b"Content-Length: 5", body=b"12345"), *CORPUS.values()][:-11]
"""What a conversation is made of, the large ones left out."""

SCRAPS: Final = [bytes([byte]) for byte in range(256)] + [
    b"\r\n",
    b"\r\n\r\n",
    b" HTTP/1.1",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    STEP,
]


class Outcome(NamedTuple):
    """What came of it."""

    statuses: list[int]
    steps: int


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("malformed")
    with Servers(folder / "fibcore.db", folder) as servers:
        yield servers


def index_after_all(servers: Servers) -> int:
    """Where the sequence stands when the steps have been made that have been asked for."""
    answer = servers.client.request("POST", "/next", {"If-Match": '"none"'})
    assert answer.status == 412
    return answer.index


def say(servers: Servers, *pieces: bytes) -> Outcome:
    """Send the pieces on a connection of their own, and see what comes of them."""
    before = after = index_after_all(servers)
    heard = bytearray()
    with servers.client.raw() as connection:
        with suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
        connection.setblocking(False)

        def is_done() -> bool:
            # A request that waits for the answer to the one before is not among those that have
            # been asked for; in between two looks, though, one of them makes its step.
            nonlocal after
            last, after = index_after_all(servers), index_after_all(servers)
            with suppress(BlockingIOError, ConnectionError):
                while data := connection.recv(65536):
                    heard.extend(data)
            return last == after == before + heard.count(b'{"next": ')

        until(is_done, f"an answer to each step that was made by {pieces!r:.2000}")
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", heard)]
    return Outcome(statuses, after - before)


@pytest.mark.proves(
    "clients",
    "send what is no HTTP, or half of it",
    "4xx or the end of the connection; nothing steps, others are answered",
)
@every("shape", CORPUS)
def test_it_is_rejected_or_left_waiting_and_nothing_steps(servers: Servers, shape: str) -> None:
    outcome = say(servers, CORPUS[shape])
    assert outcome.steps == 0
    *before, last = outcome.statuses or [400]
    assert 400 <= last < 600
    assert before in ([], [200]), "only what came before it is answered"
    assert servers.client.get("/health").status == 200


@pytest.mark.proves("clients", "send what is no HTTP…", control="a head were enough: it steps")
def test_it_would_step_if_a_head_were_enough(tmp_path: Path) -> None:
    command = variant(steps_before_the_request_has_arrived)
    with Servers(tmp_path / "fibcore.db", tmp_path, command=command) as servers:
        for shape in ("no end of the body", "chunks b'5\\r\\nhello\\r\\n'"):
            assert say(servers, CORPUS[shape]).steps == 1


@st.composite
def conversations(draw: st.DrawFn) -> list[bytes]:
    """Good and bad requests one after the other, with a few bytes changed, in pieces."""
    said = b"".join(draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(said)))
        cut = draw(st.integers(0, 3))
        said = said[:at] + draw(st.sampled_from(SCRAPS)) + said[at + cut :]
    ends = sorted(draw(st.lists(st.integers(0, len(said)), max_size=3)))
    return [said[at:end] for at, end in zip([0, *ends], [*ends, len(said)], strict=True)]


@pytest.mark.proves("clients", "send what is no HTTP…")
@settings(max_examples=EXAMPLES)
@example([STEP, STEP])
@given(pieces=conversations())
def test_whatever_is_said_each_step_that_is_made_is_answered(
    servers: Servers, pieces: list[bytes]
) -> None:
    outcome = say(servers, *pieces)
    assert outcome.statuses.count(200) >= outcome.steps
    assert servers.client.get("/health").status == 200


# More than a request should be


FULL: Final = 32 * 2**20

NOTHING_IS_KEPT_OF: Final = "trailers that never end"
"""They would cost time alone if they were not bounded."""

FLOODS: Final = {
    "a header that never ends": (b"GET /next HTTP/1.1\r\nX: ", b"x" * 65536),
    "headers that never end": (b"GET /next HTTP/1.1\r\n", b"If-Match: y\r\n" * 5_000),
    NOTHING_IS_KEPT_OF: (
        b"POST /next HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"If-Match: y\r\n" * 5_000,
    ),
    "requests that never end": (b"", READ * 5_000),
}


@contextmanager
def flood(servers: Servers, flood: tuple[bytes, bytes]) -> Iterator[Callable[[], int]]:
    """Yield what sends more on all connections, and tells by how much the server has grown."""
    begin, more = flood
    before = servers.memory
    with ExitStack() as stack:
        connections = [
            stack.enter_context(servers.client.raw(receive_buffer=4096)) for _ in range(40)
        ]
        for connection in connections:
            connection.sendall(begin)
            connection.setblocking(False)

        def send_more() -> int:
            for connection in connections:
                with suppress(OSError):
                    connection.send(more)
            return servers.memory - before

        yield send_more


@pytest.mark.proves("6", "the size of a head, and of what is piped behind it")
@pytest.mark.parametrize("kind", FLOODS)
def test_a_request_that_never_ends_does_not_fill_the_memory(kind: str, tmp_path: Path) -> None:
    with (
        Servers(tmp_path / "fibcore.db", tmp_path) as servers,
        flood(servers, FLOODS[kind]) as send_more,
    ):
        for _ in range(100):
            assert send_more() < FULL / 2
            assert servers.client.get("/health").status == 200


@pytest.mark.proves("6", "the size of a head…", control="unbounded")
@pytest.mark.long
@pytest.mark.parametrize("kind", [kind for kind in FLOODS if kind != NOTHING_IS_KEPT_OF])
def test_an_endless_request_would_fill_the_memory_unbounded(kind: str, tmp_path: Path) -> None:
    command = variant(takes_requests_of_any_size)
    with (
        Servers(tmp_path / "fibcore.db", tmp_path, command=command) as servers,
        flood(servers, FLOODS[kind]) as send_more,
    ):
        until(lambda: send_more() > FULL, "it takes more than it should")


@pytest.mark.proves("6", "the size of a head…")
@pytest.mark.proves(
    "bounds",
    "requests of one connection in a turn of the event loop",
    "any: it bounds no resource, and puts off what is piped",
)
def test_what_is_within_the_bounds_is_answered(servers: Servers) -> None:
    lines = [b"X%d: " % number + b"x" * 100 for number in range(MAX_FIELDS - 2)]
    assert say(servers, post(*lines)) == Outcome([200], 1)
    assert say(servers, STEP * 500) == Outcome([200] * 500, 500), "however many are piped"
    assert say(servers, post(*lines, b"One: more", b"Two: more")) == Outcome([400], 0)
