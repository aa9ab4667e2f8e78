"""What the log says: a line an event, for people or as JSON, and of requests where asked for."""

import asyncio
import json
import logging
import signal
import socket
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import pytest

from fibcore.admission import Admission, Bound
from fibcore.appliance.logs import MOST_ALIKE, WINDOW_SECONDS, JsonFormatter, RateLimit
from fibcore.events import event
from fibcore.stores import sqlite_file
from supervise import backup
from supervise.backup import BackupCopy
from tests.appliance.conftest import Pipe
from tests.support.connections import Loop
from tests.support.fake_stores import FakeStore
from tests.support.in_process import Implementation, InProcessService
from tests.support.parsing import answers_in
from tests.support.servers import ServerProcess
from tests.support.waiting import PATIENCE, until
from web.http.access_log import MAX_TARGET, MOST_TOGETHER, AccessLog, Request
from web.http.heads import Head
from web.http.hub import Connections
from web.http.protocol import LoggedProtocol


def lines(server: ServerProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.text.splitlines()]


# JSON


def test_a_line_has_the_words_the_event_and_its_fields() -> None:
    record = logging.LogRecord("fibcore", logging.WARNING, "", 0, "at %d", (7,), None)
    record.created = 1_700_000_000.25
    record.__dict__.update(event("stood", index="7", where=Path("/x")))
    assert json.loads(JsonFormatter().format(record)) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "pid": record.process,
        "event": "stood",
        "message": "at 7",
        "index": "7",
        "where": "/x",
    }


def test_a_foreign_record_is_named_by_its_logger() -> None:
    """A failure stays on one line."""
    with closing(Pipe()) as pipe:
        pipe.log.writer.setFormatter(JsonFormatter())
        try:
            raise ValueError("x")
        except ValueError:
            pipe.logger.exception("failed")
        (line,) = pipe.read_until(r"ValueError.*\n").splitlines()
    found = json.loads(line)
    assert (found["event"], found["level"]) == ("test", "error")
    assert found["message"].startswith("failed\nTraceback")


def test_of_many_alike_the_count_is_a_field() -> None:
    with closing(Pipe()) as pipe:
        pipe.log.writer.setFormatter(JsonFormatter())
        for number in range(MOST_ALIKE + 5):
            pipe.logger.warning("so", extra=event("alike", number=number))
        pipe.now += WINDOW_SECONDS
        pipe.logger.info("the window is over")
        found = json.loads(pipe.read_until(r".*suppressed.*\n").splitlines()[-1])
    assert (found["event"], found["suppressed"], found["number"]) == ("alike", 5, 14)


@pytest.mark.processes
def test_a_start_a_takeover_and_a_stop_are_events(database: Path, listener: socket.socket) -> None:
    settings = {"FIB_LOG_FORMAT": "json"}
    with ServerProcess(database, listener, settings, name="first") as first:
        first.log.expect("listening at")
        with ServerProcess(database, listener, settings, name="second") as second:
            second.log.expect("standing by")
            first.client.get("/next")
            first.signal(signal.SIGKILL)
            # The former is said by a thread of its own, as it waits for the disk.
            said = ('"event": "takeover"', '"event": "listening"')
            until(lambda: all(each in second.log.text for each in said), "it has taken over")
            second.signal(signal.SIGTERM)
            assert second.wait() == 0
    assert [each["event"] for each in lines(first)] == ["start", "new", "serving", "listening"]
    found = {each["event"]: each for each in lines(second)}
    assert found["standby"]["server"] == first.pid
    assert (found["serving"]["index"], found["stopped"]["index"]) == ("1", "1")
    assert (found["takeover"]["after"], found["takeover"]["number"]) == ("killed", 1)
    assert (
        "the server before was killed, or has crashed; nobody served for"
        in (found["takeover"]["message"])
    )
    assert 0 < found["takeover"]["seconds"] < 60
    assert {"start", "taking over", "listening", "stopping"} <= set(found)


@pytest.mark.processes
def test_what_is_invalid_is_an_event_also_of_the_settings(
    database: Path, listener: socket.socket
) -> None:
    settings = {"FIB_LOG_FORMAT": "json", "FIB_PORT": "x"}
    with ServerProcess(database, listener, settings) as server:
        assert server.wait() == 78
    (found,) = lines(server)
    assert (found["event"], found["level"], found["status"]) == ("invalid", "critical", 78)


# Copies, and what is shed


def test_copies_are_logged_at_first_and_then_once_in_a_while(
    database: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    copy = BackupCopy(database)
    for index in range(3):
        database.unlink(missing_ok=True)
        sqlite_file.write(database, index)
        copy.refresh()
    assert [each.message.partition("; ")[2] for each in caplog.records] == ["1 made so far"]
    monkeypatch.setattr(backup, "SAID_SECONDS", 0)
    sqlite_file.write(database, 3)
    copy.refresh()
    assert "a verified backup copy at index 3; 4 made so far" in caplog.text


@pytest.mark.parametrize("bound", get_args(Bound))
def test_what_is_shed_is_logged_with_its_bound(
    bound: Bound, caplog: pytest.LogCaptureFixture
) -> None:
    error = Admission(max_waiting=1, max_in_flight=1).overloaded(bound, "it is full")
    (record,) = caplog.records
    assert str(error) == "it is full"
    assert record.getMessage().startswith(
        "A request is answered 503 and has not stepped: it is full"
    )
    assert record.__dict__["fields"] == {"by": bound}
    assert ("FIB_MAX_" in record.getMessage()) == (bound not in ("pages", "numbers"))


def test_one_bound_that_sheds_does_not_hide_another(caplog: pytest.LogCaptureFixture) -> None:
    admission = Admission(max_waiting=1, max_in_flight=1)
    limit = RateLimit(lambda: 0.0)
    caplog.handler.addFilter(limit)
    try:
        for _ in range(MOST_ALIKE + 5):
            admission.overloaded("waiting", "it is full")
        admission.overloaded("in_flight", "it is full")
    finally:
        caplog.handler.removeFilter(limit)
    assert len(caplog.messages) == MOST_ALIKE + 1
    assert "FIB_MAX_ANSWER_BYTES" in caplog.messages[-1]


@pytest.mark.processes
def test_a_server_says_that_it_sheds(database: Path, listener: socket.socket) -> None:
    with ServerProcess(database, listener, {"FIB_MAX_WAITING_STEPS": "1"}) as server:
        client = server.wait_until_it_serves().client
        with (
            closing(sqlite_file.connect(database)) as other,
            closing(client.raw()) as one,
            closing(client.raw()) as two,
        ):
            # The server is in the middle of a commit for as long.
            other.execute("BEGIN IMMEDIATE")
            for each in (one, two):
                each.sendall(b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
            server.log.expect("A request is answered 503 and has not stepped: ")


# Requests


def noted(access: AccessLog, caplog: pytest.LogCaptureFixture, count: int) -> None:
    async def note() -> None:
        for number in range(count):
            access.note("1.2.3.4:5", Request("GET", f"/{number}", "1.1"), 200)

    asyncio.run(note())
    caplog.set_level(logging.INFO)


def test_requests_are_handed_to_the_log_together(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.http.access_log.WAIT_SECONDS", PATIENCE)
    caplog.set_level(logging.INFO)
    access = AccessLog(as_json=False)
    noted(access, caplog, MOST_TOGETHER + 1)
    (record,) = caplog.records
    assert record.getMessage().count("\n") == MOST_TOGETHER
    access.push()
    access.push()
    assert len(caplog.records) == 2
    assert caplog.records[1].getMessage().endswith(f'"GET /{MOST_TOGETHER} HTTP/1.1" 200\n')


@pytest.mark.proves(
    "system",
    "nobody reads the log, and clients send targets of 15 kB, with an access log",
    "what waits is bounded in bytes, and a long target is cut",
)
@pytest.mark.parametrize(
    ("length", "logged"),
    [
        (MAX_TARGET, "/" + "x" * (MAX_TARGET - 1)),
        (MAX_TARGET + 1, "/" + "x" * (MAX_TARGET - 1) + "… (1025 characters)"),
        (15_000, "/" + "x" * (MAX_TARGET - 1) + "… (15000 characters)"),
    ],
)
def test_a_long_target_is_cut_and_its_length_is_logged(
    caplog: pytest.LogCaptureFixture, length: int, logged: str
) -> None:
    caplog.set_level(logging.INFO)

    async def note(access: AccessLog) -> None:
        access.info("", "1.2.3.4:5", "GET", "/" + "x" * (length - 1), "1.1", 200)
        access.push()

    for access in (AccessLog(as_json=False), AccessLog(as_json=True)):
        asyncio.run(note(access))
    text, as_json = (record.getMessage() for record in caplog.records)
    assert text.endswith(f'"GET {logged} HTTP/1.1" 200\n')
    assert json.loads(as_json)["target"] == logged


class Notes(AccessLog):
    """An access log that keeps what is noted."""

    def __init__(self) -> None:
        super().__init__(as_json=False)
        self.notes: list[tuple[str, bytes | None, int]] = []

    def note(self, client: str, asked: Head | Request | None, status: int) -> None:
        self.notes.append((client, asked.target if isinstance(asked, Head) else None, status))


def test_the_protocol_notes_what_it_has_answered_and_to_whom() -> None:
    step = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"
    with closing(Loop()) as loop:
        implementation = Implementation(
            "logged", lambda *what: LoggedProtocol.bound_to(Connections(*what))
        )
        served = InProcessService(loop, implementation, FakeStore(loop, blocking=True))
        access = Notes()
        for served.hub.access in (None, access):
            client, gone = served.connect(), served.connect()
            client.send(step)
            loop.settle()
            gone.send(step)
            loop.settle()
            gone.reset()
            for _ in range(2):
                served.store.finish()
                loop.settle()
            client.send(step)
            loop.settle()
            served.store.finish()
            loop.settle()
            client.send(b"nonsense\r\n\r\n")
            loop.settle()
            assert [each.status for each in answers_in(client.sent)] == [200, 200, 400]
        assert access.notes == [
            ("192.0.2.1:4711", b"/next", 200),
            ("192.0.2.1:4711", b"/next", 200),
            ("192.0.2.1:4711", None, 400),
        ]
        served.close()


@pytest.mark.processes
@pytest.mark.parametrize("form", ["text", "json"])
def test_each_request_is_logged_whoever_answers_it(
    database: Path, listener: socket.socket, form: str
) -> None:
    settings = {"FIB_ACCESS_LOG": "on", "FIB_LOG_FORMAT": form}
    with ServerProcess(database, listener, settings) as server:
        client = server.wait_until_it_serves().client
        for path in ("/next", "/next", "/", '/nowhere?a="'):
            client.get(path)
        with closing(client.raw()) as raw:
            raw.sendall(b"nonsense\r\n\r\n")
            assert raw.recv(12) == b"HTTP/1.1 400"
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    if form == "text":
        asked = [line.partition(" - ")[2] for line in server.log.text.splitlines() if " - " in line]
        assert asked == [
            '"GET /next HTTP/1.1" 200',
            '"GET /next HTTP/1.1" 200',
            '"GET / HTTP/1.1" 200',
            '"GET /nowhere?a=" HTTP/1.1" 404',
            '"-" 400',
        ]
        return
    found = [each for each in lines(server) if each["event"] == "access"]
    assert [(each["method"], each["target"], each["status"]) for each in found] == [
        ("GET", "/next", 200),
        ("GET", "/next", 200),
        ("GET", "/", 200),
        ("GET", '/nowhere?a="', 404),
        (None, None, 400),
    ]
    assert all(each["client"].startswith("127.0.0.1:") for each in found)
