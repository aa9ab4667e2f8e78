"""The lines of the log: one for each event, as text or as JSON."""

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
from tests.support.servers import ServerProcess
from tests.support.waiting import until


def lines(server: ServerProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.text.splitlines()]


# JSON


def test_a_line_has_the_text_the_event_and_its_fields() -> None:
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


def test_a_record_of_a_library_has_the_name_of_its_logger() -> None:
    """A failure stays on one line."""
    with closing(Pipe()) as pipe:
        pipe.log.writer.formatter = JsonFormatter()
        try:
            raise ValueError("x")
        except ValueError:
            pipe.logger.exception("failed")
        (line,) = pipe.read_until(r"ValueError.*\n").splitlines()
    found = json.loads(line)
    assert (found["event"], found["level"]) == ("test", "error")
    assert found["message"].startswith("failed\nTraceback")


def test_the_count_of_repeated_records_is_a_field() -> None:
    with closing(Pipe()) as pipe:
        pipe.log.writer.formatter = JsonFormatter()
        for number in range(MOST_ALIKE + 5):
            pipe.logger.warning("so", extra=event("alike", number=number))
        pipe.now += WINDOW_SECONDS
        pipe.logger.info("the window is over")
        found = json.loads(pipe.read_until(r".*suppressed.*\n").splitlines()[-1])
    assert (found["event"], found["suppressed"], found["number"]) == ("alike", 5, 14)


@pytest.mark.processes
def test_starts_takeovers_and_stops_are_events(database: Path, listener: socket.socket) -> None:
    settings = {"FIB_LOG_FORMAT": "json"}
    with ServerProcess(database, listener, settings, name="first") as first:
        first.log.expect("listening at")
        with ServerProcess(database, listener, settings, name="second") as second:
            second.log.expect("standing by")
            first.client.get("/next")
            first.signal(signal.SIGKILL)
            # A separate thread logs the takeover, since it waits for the disk.
            said = ('"event": "takeover"', '"event": "listening"')
            until(lambda: all(each in second.log.text for each in said), "it has taken over")
            second.signal(signal.SIGTERM)
            assert second.wait() == 0
    events = [each["event"] for each in lines(first)]
    # The tests may keep their databases in memory.
    assert [each for each in events if each != "weakness"] == [
        "start",
        "new",
        "serving",
        "listening",
    ]
    found = {each["event"]: each for each in lines(second)}
    assert found["standby"]["server"] == first.pid
    assert (found["serving"]["index"], found["stopped"]["index"]) == ("1", "1")
    assert (found["takeover"]["after"], found["takeover"]["number"]) == ("killed", 1)
    assert (
        "the previous server was killed or crashed; nothing was served for"
        in (found["takeover"]["message"])
    )
    assert 0 < found["takeover"]["seconds"] < 60
    assert {"start", "taking over", "listening", "stopping"} <= set(found)


@pytest.mark.processes
def test_invalid_settings_are_a_critical_event(database: Path, listener: socket.socket) -> None:
    settings = {"FIB_LOG_FORMAT": "json", "FIB_PORT": "x"}
    with ServerProcess(database, listener, settings) as server:
        assert server.wait() == 78
    (found,) = lines(server)
    assert (found["event"], found["level"], found["status"]) == ("invalid", "critical", 78)


# Backup copies, and shed requests


def test_backup_copies_are_logged_at_first_and_then_occasionally(
    database: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    copy = BackupCopy(database)
    for index in range(3):
        database.unlink(missing_ok=True)
        sqlite_file.write(database, index)
        copy.refresh()
    assert [each.message.partition("; ")[2] for each in caplog.records] == ["1 made so far"]
    monkeypatch.setattr(backup, "LOGGED_SECONDS", 0)
    sqlite_file.write(database, 3)
    copy.refresh()
    assert "a verified backup copy at index 3; 4 made so far" in caplog.text


@pytest.mark.parametrize("bound", get_args(Bound))
def test_a_shed_request_is_logged_with_its_bound(
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
