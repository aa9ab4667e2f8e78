"""The access log: a line for each request, as text or as JSON."""

import asyncio
import json
import logging
from collections import defaultdict
from contextlib import closing
from typing import Any, Final

import pytest

from tests.support.connections import Loop
from tests.support.corpus import request
from tests.support.fake_stores import FakeStore
from tests.support.in_process import Implementation, InProcessService
from tests.support.parsing import answers_in
from tests.support.waiting import PATIENCE
from web.endpoints.table import TABLE
from web.http.access_log import FIELDS, MAX_AGENT, MAX_TARGET, MOST_TOGETHER, AccessLog, Client
from web.http.answers import Header
from web.http.heads import Head, Heads, RequestLine
from web.http.hub import Hub
from web.http.protocol import LoggedProtocol

CLIENT: Final = Client("1.2.3.4:5", is_proxy=False)
PROXY: Final = Client("127.0.0.1:5", is_proxy=True)


def head_of(target: str, *fields: Header) -> Head:
    heads = Heads(TABLE, defaultdict(lambda: [0] * 600), logged=FIELDS)
    line = RequestLine("GET", target.encode(), "1.1")
    host = (b"host", b"x")
    return heads.read(b"GET x HTTP/1.1", [host, *fields], True, lambda: line)


def logged(
    caplog: pytest.LogCaptureFixture,
    head: Head | None,
    client: Client = CLIENT,
    proxies: str = "127.0.0.1",
) -> tuple[str, dict[str, Any]]:
    """The log lines of a request, as text and as JSON."""
    caplog.set_level(logging.INFO)
    caplog.clear()

    async def note(access: AccessLog) -> None:
        access.note(client, head, 200, 13, 0.0004)
        access.push()

    for as_json in (False, True):
        asyncio.run(note(AccessLog(as_json=as_json, proxies=proxies)))
        if head is not None:
            head.logged = None
    text, line = (record.getMessage() for record in caplog.records)
    return text.partition(" INFO ")[2], json.loads(line)


def test_a_line_has_the_client_request_status_bytes_seconds_and_agent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    text, line = logged(caplog, head_of("/next", (b"user-agent", b"curl/8")))
    assert text == '1.2.3.4:5 - "GET /next HTTP/1.1" 200 13 0.000400 "curl/8"\n'
    del line["time"], line["pid"], line["level"]
    assert line == {
        "event": "access",
        "client": "1.2.3.4:5",
        "method": "GET",
        "target": "/next",
        "version": "1.1",
        "agent": "curl/8",
        "status": 200,
        "bytes": 13,
        "seconds": 0.0004,
    }


def test_a_malformed_request_is_logged_as_a_dash(
    caplog: pytest.LogCaptureFixture,
) -> None:
    text, line = logged(caplog, None)
    assert text == '1.2.3.4:5 - "-" 200 13 0.000400 "-"\n'
    assert (line["method"], line["target"], line["version"], line["agent"]) == (None,) * 4


@pytest.mark.parametrize(
    ("client", "forwarded", "name"),
    [
        (PROXY, b"192.0.2.7", "192.0.2.7:0"),
        (PROXY, b"198.51.100.1, 192.0.2.7, 127.0.0.1", "192.0.2.7:0"),
        (PROXY, b"2001:db8::1", "2001:db8::1:0"),
        # A zone may hold anything.
        (PROXY, b'fe80::1%" - forged 200', "fe80::1:0"),
        # An invalid address, or one from a client that is not a trusted proxy.
        (PROXY, b'", "status": 500', PROXY.name),
        (PROXY, b"", PROXY.name),
        (CLIENT, b"192.0.2.7", CLIENT.name),
    ],
)
def test_only_a_trusted_proxy_names_the_client_in_the_access_log(
    caplog: pytest.LogCaptureFixture, client: Client, forwarded: bytes, name: str
) -> None:
    text, line = logged(caplog, head_of("/next", (b"x-forwarded-for", forwarded)), client)
    assert text.startswith(f"{name} - ")
    assert line["client"] == name


def test_a_user_agent_cannot_forge_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    agent = b'x" 500 \\ \xe4' + b"y" * 1000
    text, line = logged(caplog, head_of("/next", (b"user-agent", agent)))
    assert line["agent"] == agent.decode("latin-1")[:MAX_AGENT]
    assert json.loads(text.partition("0.000400 ")[2]) == line["agent"]


def test_a_target_cannot_end_the_quoted_request(caplog: pytest.LogCaptureFixture) -> None:
    text, line = logged(caplog, head_of('/a"200\\'))
    assert line["target"] == '/a"200\\'
    quoted = text.partition(" - ")[2].rpartition(" 200 13 ")[0]
    assert json.loads(quoted) == 'GET /a"200\\ HTTP/1.1'


@pytest.mark.parametrize(
    ("length", "shown"),
    [
        (MAX_TARGET, "/" + "x" * (MAX_TARGET - 1)),
        (MAX_TARGET + 1, "/" + "x" * (MAX_TARGET - 1) + "… (1025 characters)"),
        (15_000, "/" + "x" * (MAX_TARGET - 1) + "… (15000 characters)"),
    ],
)
def test_a_long_target_is_truncated_and_its_length_logged(
    caplog: pytest.LogCaptureFixture, length: int, shown: str
) -> None:
    text, line = logged(caplog, head_of("/" + "x" * (length - 1)))
    assert f'"GET {shown} HTTP/1.1" 200' in text
    assert line["target"] == shown


def test_requests_are_logged_in_batches(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.http.access_log.WAIT_SECONDS", PATIENCE)
    caplog.set_level(logging.INFO)
    access = AccessLog(as_json=False)

    async def note() -> None:
        for number in range(MOST_TOGETHER + 1):
            access.note(CLIENT, head_of(f"/{number}"), 200, 0, 0.0)

    asyncio.run(note())
    (record,) = caplog.records
    assert record.getMessage().count("\n") == MOST_TOGETHER
    access.push()
    access.push()
    assert len(caplog.records) == 2
    assert f'"GET /{MOST_TOGETHER} HTTP/1.1" 200' in caplog.records[1].getMessage()


class Notes(AccessLog):
    """An access log that keeps its entries."""

    def __init__(self) -> None:
        super().__init__(as_json=False)
        self.notes: list[tuple[str, bytes | None, int, int]] = []

    def note(
        self, client: Client, head: Head | None, status: int, size: int, seconds: float
    ) -> None:
        assert 0 <= seconds < PATIENCE
        self.notes.append((client.name, None if head is None else head.target, status, size))


def test_the_protocol_logs_each_answer_and_its_client() -> None:
    step = request("GET /next")
    with closing(Loop()) as loop:
        access = Notes()
        implementation = Implementation(
            "logged", lambda service, table: LoggedProtocol.bound_to(Hub(service, table, access))
        )
        served = InProcessService(loop, implementation, FakeStore(loop, blocking=True))
        client, gone = served.connect(), served.connect()
        client.send(step)
        loop.settle()
        gone.send(step)
        loop.settle()
        gone.reset()
        for _ in range(2):
            served.store.finish()
            loop.settle()
        # Starlette answers two of these.
        for asked in (request("HEAD /current"), request("GET /"), request("GET /x"), b"x\r\n\r\n"):
            client.send(asked)
            loop.settle()
        answered = answers_in(client.sent)
        asked_for = [b"/next", b"/current", b"/", b"/x", None]
        assert access.notes == [
            ("192.0.2.1:4711", target, each.status, len(each.body))
            for target, each in zip(asked_for, answered, strict=True)
        ]
        assert [each.status for each in answered] == [200, 200, 200, 404, 400]
        served.close()
