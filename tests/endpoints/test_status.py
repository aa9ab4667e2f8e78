"""``/status``: counts, durations, the process, and takeovers."""

import getpass
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from fibcore.appliance import takeover_history
from fibcore.appliance.takeover_history import Takeovers, note_ending
from fibcore.histogram import SECONDS, Histogram
from fibcore.stores import files, lock, sqlite_file
from fibcore.stores.lock import WriterLock, waiting_for
from tests.http.corpus import request
from tests.support.implementations import serving
from tests.support.invalid_databases import change
from tests.support.limits import limited, read_answer
from tests.support.openapi import assert_matches
from tests.support.programs import NEVER_OPENS
from tests.support.raw_clients import locked, read_all, say
from tests.support.reference import digits_of
from tests.support.servers import Client, ServerProcess, listening_socket
from tests.support.waiting import until
from web.endpoints.record import Status
from web.endpoints.schemas import schema_of

OPEN_STEP: Final = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with serving(tmp_path, 30_000) as client:
        yield client


def status(client: Client) -> dict[str, Any]:
    answer = client.status
    assert answer.status == 200
    found: dict[str, Any] = json.loads(answer.body)
    assert_matches(schema_of(Status), found)
    return found


@pytest.mark.processes
def test_status_has_the_exact_index_and_the_ends_of_its_number(client: Client) -> None:
    client.get("/next")
    now = status(client)
    assert (now["index"], now["digits"], now["max_index"]) == ("30001", 6270, "10000000")
    assert (now["healthy"], now["reason"]) == (True, None)
    digits = digits_of(30_001).decode()
    assert (now["first"], now["last"]) == (digits[:60], digits[-60:])


@pytest.mark.processes
def test_it_counts_answers_connections_and_waiting_steps(tmp_path: Path) -> None:
    with limited(tmp_path, MAX_WAITING_STEPS="2", MAX_CONNECTIONS="10") as served:
        for asked in (
            *(request("GET /next"), request("GET /current"), request("GET /previous")),
            *(request("GET /numbers/5"), request("GET /health"), request("GET /nowhere")),
            request("GET /current", "If-None-Match: *"),
            request("GET /next", 'If-Match: "x"'),
            request("GET /previous", 'If-Match: "x"'),
            request("PUT /next", "Content-Length: 0"),
            request("GET /next", "Purpose: prefetch"),
        ):
            say(served.client, asked)
        with locked(tmp_path / "fibcore.db"):
            for _ in range(2):
                served.connect(request("GET /next"))
            served.settle()
            assert read_answer(served.connect(request("GET /next")))[0] == 503
            now = json.loads(say(served.client, request("GET /status")).partition(b"\r\n\r\n")[2])
    assert (now["steps"], now["reads"], now["unavailable"]) == (1, 4, 2)
    rejected = {reason: n for reason, n in now["rejected_requests"].items() if n}
    assert rejected == {"path": 1, "condition": 2, "method": 1}
    shed = {bound: n for bound, n in now["shed_requests"].items() if n}
    assert (shed, now["waiting_steps"], now["limit"]["waiting"]) == ({"waiting": 1}, 2, 2)
    assert (now["connections"], now["accepted_connections"]) == (4, 15)


@pytest.mark.processes
def test_status_identifies_the_process_its_uptime_and_its_store(client: Client) -> None:
    first, second = status(client), status(client)
    assert first["process"]["pid"] == second["process"]["pid"] != os.getpid()
    assert first["process"]["began"] == second["process"]["began"] <= first["now"] < time.time()
    assert 0 < first["process"]["uptime"] < second["process"]["uptime"]
    assert 10e6 < first["memory_bytes"] < 512e6
    assert first["store"] == {
        "kind": "sqlite",
        "sequence": None,
        "synchronous": "full",
        "integers": "exact",
        "warnings": [],
    }


@pytest.mark.processes
def test_status_names_the_node_but_not_its_host(client: Client, tmp_path: Path) -> None:
    text = client.get("/status").body.decode()
    for told in (socket.gethostname(), getpass.getuser(), str(tmp_path)):
        assert told not in text
    node = json.loads(text)["process"]["node"]
    assert re.fullmatch("[0-9a-f]{8}", node)
    (tmp_path / "other").mkdir()
    with serving(tmp_path / "other", 1, FIB_PORT="9") as other:
        assert status(other)["process"]["node"] != node


@pytest.mark.processes
def test_status_has_the_time_of_the_backup_copy(database: Path, listener: socket.socket) -> None:
    with ServerProcess(database, listener) as server:
        client = server.wait_until_it_serves().client
        assert status(client)["backup_copy"] is None
        with closing(sqlite_file.connect(database, mode="ro")) as reader:
            sqlite_file.copy(reader, database, files.backup_copy_path(database))
        made = files.backup_copy_path(database).stat().st_mtime
        assert status(client)["backup_copy"] == {"at": made}


@pytest.mark.processes
def test_health_has_a_warning_while_no_backup_copy_can_be_made(
    database: Path, listener: socket.socket
) -> None:
    with ServerProcess(database, listener) as server:
        client = server.wait_until_it_serves().client
        assert status(client)["backup_failing"] is False
        problem = files.backup_problem_path(database)
        problem.write_text("The disk is full.")
        warning = "No backup copy is made. The disk is full."
        until(lambda: status(client)["backup_failing"], "the server has read the problem")
        healthy = {"status": "healthy", "warnings": [warning]}
        assert json.loads(client.get("/health").body) == healthy
        problem.unlink()
        until(lambda: not status(client)["backup_failing"], "it has seen that it is over")
        assert json.loads(client.get("/health").body) == {"status": "healthy"}


@pytest.mark.processes
def test_status_reports_an_unavailable_store_and_its_reason(tmp_path: Path) -> None:
    with listening_socket() as listener:
        command = (sys.executable, "-c", NEVER_OPENS)
        with ServerProcess(tmp_path / "x.db", listener, command=command) as server:
            server.log.expect("It is broken")
            now = status(server.client)
            assert now["healthy"] is False
            assert "the server's log has the reason" in now["reason"]
            assert "broken" not in str(now)
            assert (
                now["index"]
                is now["first"]
                is now["digits"]
                is now["commit_seconds"]
                is now["batch_wait_seconds"]
                is None
            )
            assert now["steps"] == 0


# Takeovers


def stops(server: ServerProcess) -> None:
    server.signal(signal.SIGTERM)


def is_killed(server: ServerProcess) -> None:
    server.signal(signal.SIGKILL)


def fails(server: ServerProcess) -> None:
    changed = f"UPDATE sequence SET n = 9, digest = x'{sqlite_file.index_digest(9).hex()}'"
    assert isinstance(server.database, Path)
    change(server.database, changed)
    with server.client.raw() as connection:
        connection.sendall(OPEN_STEP)
        assert read_all(connection) == b""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("ends", "after"), [(stops, "stopped"), (is_killed, "killed"), (fails, "failed")]
)
def test_a_takeover_is_counted_with_how_the_previous_server_ended(
    database: Path, listener: socket.socket, ends: Callable[[ServerProcess], None], after: str
) -> None:
    with ServerProcess(database, listener, name="first") as first:
        client = first.wait_until_it_serves().client
        assert status(client)["standby"] is False
        assert status(client)["takeovers"]["number"] == 0
        with ServerProcess(database, listener, name="second") as second:
            second.wait_until_it_stands_by()
            until(lambda: status(client)["standby"], "it waits for the lock")
            begun = time.time()
            ends(first)
            first.wait()
            until(lambda: status(client)["takeovers"]["number"] == 1, "it is counted")
            now = status(client)
            assert now["process"]["pid"] == second.pid
            assert now["steps"] == 0
            assert now["takeovers"]["after"] == after
            assert begun <= now["takeovers"]["at"] <= now["now"]
            assert 0 < now["takeovers"]["seconds"] < now["now"] - begun


@pytest.mark.processes
def test_a_start_after_no_server_is_not_a_takeover(database: Path, listener: socket.socket) -> None:
    """The previous takeover stays in the history."""
    known = takeover_history.record(database, 0.5)
    note_ending(database, "hung")
    with ServerProcess(database, listener) as server:
        client = server.wait_until_it_serves().client
        until(lambda: status(client)["takeovers"]["number"] == 1, "it has been read")
        assert status(client)["takeovers"] == known._asdict()
    # An ending is reported for one takeover only.
    assert takeover_history.record(database, 0.5).after == "stopped"


def test_a_takeover_after_a_hang_is_timed_from_the_last_answer(database: Path) -> None:
    note_ending(database, "hung", 27.0)
    seconds = takeover_history.record(database, 0.012).seconds
    assert seconds is not None
    assert seconds >= 27.0
    # The control: of a killed server only the duration is known.
    assert takeover_history.record(database, 0.012).seconds == 0.012


def test_setting_the_clock_does_not_lengthen_a_takeover(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note_ending(database, "killed")
    tomorrow = time.time() + 86_400
    monkeypatch.setattr("fibcore.appliance.takeover_history.time.time", lambda: tomorrow)
    known = takeover_history.record(database, 0.012)
    assert known.at == tomorrow
    assert known.seconds is not None
    assert known.seconds < 3_600


def test_the_ending_of_the_previous_server_is_reported_once(database: Path) -> None:
    for number, ending in enumerate(["hung", "failed", "stopped"], 1):
        note_ending(database, ending)  # type: ignore[arg-type]
        assert takeover_history.record(database, 0.1)[::2] == (number, ending)
    assert takeover_history.record(database, 0.1).after == "killed"
    assert takeover_history.record(database, None).number == 4


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", '{"takeovers": 1}', '{"takeovers": [], "x": 1}'),
        *(
            f'{{"takeovers": [{takeovers}], "ending": {ending}, "since": null}}'
            for takeovers, ending in (
                ('"a", null, null, null', "null"),
                ("1e999, null, null, null", "null"),
                ('1, "yesterday", null, null', "null"),
                ('1, null, "fell asleep", null', "null"),
                ("1, null, [], null", "null"),
                ("1, null, null, null", '"fell asleep"'),
            )
        ),
    ],
)
def test_an_unreadable_takeover_history_starts_again(database: Path, text: str) -> None:
    files.takeovers_path(database).write_text(text)
    assert takeover_history.record(database, None) == Takeovers()
    assert takeover_history.record(database, 0.1).number == 1


def test_an_unwritable_takeover_history_is_skipped(tmp_path: Path) -> None:
    database = tmp_path / "nowhere" / "fibcore.db"
    note_ending(database, "hung")
    assert takeover_history.record(database, 0.1).number == 1
    assert takeover_history.record(database, None).number == 0


def test_an_exiting_process_does_not_wait_for_a_hanging_disk(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover_history, "NOTE_SECONDS", 0.01)
    os.mkfifo(files.takeovers_path(database))  # Nothing ever writes to it.
    note_ending(database, "hung")


def test_processes_waiting_for_the_lock_are_found(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert waiting_for(database) is None
    held = WriterLock(database)
    held.acquire(wait=False)
    assert waiting_for(database) == []
    monkeypatch.setattr(lock, "LOCKS", Path("/nowhere"))
    assert waiting_for(database) is None
    held.release()


# Histograms


def test_an_observation_falls_into_its_bucket() -> None:
    """The first bucket whose bound is not exceeded."""
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1, 1.5, 2, 2.5, 7):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 2]
    assert histogram.total == 14.5
    assert list(SECONDS) == sorted(set(SECONDS))
