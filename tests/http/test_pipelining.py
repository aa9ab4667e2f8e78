"""The answers of a connection: pipelining, repeated requests, errors, and pages."""

import gc
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from tests.support.connections import Loop
from tests.support.corpus import key, request
from tests.support.parsing import answers_in
from tests.support.served import Service, statuses
from tests.support.wire import HALF, READ, STEP
from web.endpoints.table import TABLE
from web.http.answers import Answer
from web.http.heads import Head, Heads
from web.http.hub import MAX_PAGES
from web.http.parser import Parser
from web.http.protocol import Protocol


def test_any_number_of_pipelined_requests_is_answered(loop: Loop) -> None:
    served = Service(loop)
    client = served.client(READ * 100)
    assert statuses(client) == [200] * 100
    assert not client.closed


def step_again_and_again(loop: Loop, times: int) -> set[int]:
    """The statuses of this many steps, pipelined by one client, when two numbers fit the bound."""
    served = Service(loop, 40_000, max_answer_bytes=20_000)
    client = served.client()
    for _ in range(times // 8):
        client.send(STEP * 8)
        loop.pass_time(0.5)
    told = statuses(client)
    assert len(told) == times
    served.close()
    return set(told)


def test_sent_answers_do_not_count_while_a_client_pipelines(loop: Loop) -> None:
    assert step_again_and_again(loop, 80) == {200}


def test_pipelining_would_be_shed_if_sent_answers_counted(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = Protocol._reply

    def reply_and_hold(self: Protocol, answer: Answer) -> None:
        reply(self, answer)
        self.hub.budget.hold(max(answer.body(), key=len))

    monkeypatch.setattr(Protocol, "_reply", reply_and_hold)
    assert step_again_and_again(loop, 80) == {200, 503}


def test_endless_pipelined_steps_do_not_fill_memory(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that kept an object per step would have 2,000 more."""
    served = Service(loop, integers="uint64")
    monkeypatch.setattr(served.store.kept, "add", lambda *_: None)
    client = served.client()

    def step(times: int) -> int:
        for _ in range(times // 50):
            client.send(STEP * 50)
            loop.settle()
        client.sent = b""
        gc.collect()
        return sys.getallocatedblocks()

    before = step(1_000)
    assert step(2_000) - before < 500


def test_while_requests_wait_for_their_turn_none_are_read(loop: Loop) -> None:
    served = Service(loop)
    client = served.client()
    client.protocol.data_received(READ * 100)
    assert not client._reading
    assert served.hub.kept > 0
    loop.settle()
    assert client._reading
    assert statuses(client) == [200] * 100


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bytes that are parsed because their head was not cached."""
    parsed: list[bytes] = []

    class Counted(Parser):
        def feed(self, data: bytes, at: int = 0) -> int:
            parsed.append(data[at:])
            return super().feed(data, at)

        def request(self, data: bytes) -> Head | None:
            found = super().request(data)
            if found is not None:
                parsed.append(data)
            return found

    monkeypatch.setattr("web.http.protocol.Parser", Counted)
    return parsed


def test_an_identical_request_is_not_parsed_again(loop: Loop, parsed: list[bytes]) -> None:
    served = Service(loop)
    client = served.client(READ, READ)
    assert parsed == [READ, READ]
    client.send(READ, READ)
    loop.settle()
    assert parsed == [READ, READ]
    client.send(READ * 3)
    loop.settle()
    assert parsed == [READ, READ, READ * 3]
    assert statuses(client) == [200] * 7


def test_pipelined_steps_that_differ_in_their_key_are_not_parsed_again(
    loop: Loop, parsed: list[bytes]
) -> None:
    served = Service(loop, 5)
    first, second, *others = (request("POST /next", key(f"{number}")) for number in range(5))
    served.client(first)
    served.client(second)
    parsed.clear()
    client = served.client(READ + b"".join(others))
    assert parsed == [READ + b"".join(others)]
    assert statuses(client) == [200] * 4
    assert served.store.index == 10


def test_an_unexpected_error_is_500_and_closes_its_connection(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: bytes) -> None:
        raise RuntimeError("a mistake")

    served = Service(loop)
    known = served.client(READ, READ, READ)
    monkeypatch.setattr(served.service.admission, "admit_answer", fail)
    # An answer is cached until the next step.
    served.client(STEP)
    loop.settle()
    known.send(READ)
    new = served.client(READ.replace(b"Host: x", b"Host: X"))
    assert statuses(known) == [200, 200, 200, 500]
    assert statuses(new) == [500]
    assert (known.closed, new.closed) == (True, True)
    assert caplog.text.count("GET b'/current' failed") == 2


def test_a_page_sent_in_pieces_is_answered_with_its_length(loop: Loop) -> None:
    served = Service(loop)

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield bytes(10_000)

        await StreamingResponse(pieces())(scope, receive, send)

    served.config.loaded_app = page
    client = served.client(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + READ)
    first, second = answers_in(client.sent)
    assert first.field(b"content-length") == b"1000000"
    assert (len(first.body), second.status) == (1_000_000, 200)
    assert served.hub.pages == 0


def test_a_page_that_fails_is_answered_500(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    served = Service(loop)

    async def page(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ValueError("unexpected")

    served.config.loaded_app = page
    client = served.client(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert statuses(client) == [500]
    assert (client.closed, served.hub.pages) == (True, 0)
    assert "GET b'/' failed" in caplog.text


class Mistaken(Heads):
    """Fails at a request for /previous."""

    def read(self, line: bytes, *more: Any) -> Head:
        if b"/previous" in line:
            raise ValueError("a mistake")
        return super().read(line, *more)


def test_an_error_in_parsing_is_500_and_fails_no_step(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer to a step begins with the next request of its connection."""
    served = Service(loop, blocking=True)
    served.hub.heads = Mistaken(TABLE, defaultdict(lambda: [0] * 600))
    client = served.client(STEP + request("GET /previous") + STEP)
    served.commit()
    assert statuses(client) == [200, 500]
    assert "a mistake" in caplog.text
    loop.pass_time(2.0)
    assert client.closed
    assert served.store.index == 1


def test_a_page_whose_client_has_left_is_not_a_failure(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    served = Service(loop)
    client = served.client()
    client.protocol.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert served.hub.pages == 1
    client.reset()
    loop.settle()
    assert (client.sent, served.hub.pages, served.server.tasks) == (b"", 0, set())
    assert not caplog.records


def test_a_page_that_a_stop_cancels_is_not_answered(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    served = Service(loop)

    async def page(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await loop.create_future()

    served.config.loaded_app = page
    client = served.client(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    (task,) = served.server.tasks
    task.cancel()
    loop.settle()
    assert (client.sent, served.hub.pages, served.server.tasks) == (b"", 0, set())
    assert not caplog.records


def test_after_a_rejection_pipelined_requests_are_read_to_their_end(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    served = Service(loop, blocking=True)
    client = served.client(STEP, b"rubbish\r\n\r\n", b"more")
    assert client.arriving == len(b"more")
    served.commit()
    assert statuses(client) == [200, 400]
    assert "A client sent an invalid request: " in caplog.text
    assert client.arriving == 0


def test_an_empty_line_before_a_known_head_is_skipped(loop: Loop) -> None:
    """RFC 9112, 2.2. One is recognized by its bytes, the other by its request line."""
    served = Service(loop)
    assert statuses(served.client(READ, READ, READ)) == [200] * 3
    other = READ.replace(b"\r\n\r\n", b"\r\nX-Request-Id: %d\r\n\r\n")
    for empty in (b"\r\n", b"\r\n\r\n"):
        for cut in ([empty, READ], [empty + READ], [READ, empty + other % 1], [empty, other % 2]):
            client = served.client(*cut, READ)
            asked = sum(each.count(b"GET") for each in cut) + 1
            assert statuses(client) == [200] * asked
            assert not client.closed


@pytest.mark.parametrize("asked", [HALF, READ, STEP, READ.replace(b"1.1", b"1.0")])
def test_nothing_is_kept_of_a_client_that_left(loop: Loop, asked: bytes) -> None:
    """At once, not only by garbage collection."""

    def left() -> int:
        return sum(isinstance(each, (Parser, Protocol)) for each in gc.get_objects())

    served = Service(loop)
    gc.collect()
    before = left()
    gc.disable()
    try:
        clients = [served.client(asked) for _ in range(10)]
        for client in clients:
            client.reset()
        loop.settle()
        for client in clients:
            # Like the event loop's transports.
            del client.protocol
        assert left() == before
    finally:
        gc.enable()


def test_past_the_bound_on_pages_under_way_another_is_503(loop: Loop) -> None:
    served = Service(loop)
    page = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    served.hub.pages = MAX_PAGES - 1
    assert statuses(served.client(page)) == [200]
    served.hub.pages = MAX_PAGES
    last = served.client(page + READ)
    assert statuses(last) == [503, 200]
    assert served.service.admission.shed["pages"] == 1
    served.hub.pages = 0


def test_an_answer_has_the_servers_current_header_lines(loop: Loop) -> None:
    served = Service(loop)
    client = served.client(READ)
    served.server.default_headers = [(b"server", b"another")]
    client.send(READ)
    loop.settle()
    sent_by = [each.field(b"server") for each in answers_in(client.sent)]
    assert sent_by == [b"fibcore", b"another"]
    served.server.default_headers = [(b"server", b"a third")]
    (rejected,) = answers_in(served.client(b"rubbish\r\n\r\n").sent)
    assert rejected.field(b"server") == b"a third"


KEPT: Final = b"Host: x\r\nConnection: keep-alive\r\n"


@pytest.mark.parametrize(
    ("request_line", "fields", "status"),
    [
        (b"GET /current", b"", 200),
        (b"GET /current", b"Accept: text/plain\r\n", 200),
        (b"GET /current", b'If-None-Match: "0"\r\n', 304),
        (b"GET /current", b'If-Match: "5"\r\n', 412),
        (b"GET /health", b"", 200),
        (b"HEAD /current", b"", 200),
        (b"DELETE /current", b"", 405),
    ],
)
def test_http_1_0_gets_the_answers_of_1_1_with_keep_alive(
    loop: Loop, request_line: bytes, fields: bytes, status: int
) -> None:
    served = Service(loop)
    head = b"%b HTTP/1.%d\r\n%b%b\r\n"
    client = served.client()
    for version in (0, 1, 0, 1):
        client.send(head % (request_line, version, KEPT, fields))
        loop.settle()
    older, newer, again, _ = (
        (each.status, sorted(each.fields), each.body) for each in answers_in(client.sent)
    )
    assert older[0] == status
    assert (
        older == again == (newer[0], sorted([*newer[1], (b"connection", b"keep-alive")]), newer[2])
    )
    (last,) = answers_in(served.client(head % (request_line, 0, b"Host: x\r\n", fields)).sent)
    assert last.field(b"connection") == b"close"


def test_a_client_that_left_is_not_counted_as_answered(loop: Loop) -> None:
    served = Service(loop, blocking=True)
    gone, there = served.client(STEP), served.client(STEP)
    gone.reset()
    loop.settle()
    served.commit()
    assert served.store.index == 2
    assert statuses(there) == [200]
    assert served.service.answered["/next"][200] == 1
