"""``fibcore serve`` and ``fibcore status``: a server of one process, and its status."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from fibcore import problems
from fibcore.appliance.settings import FILE
from fibcore.command import cli, server
from fibcore.stores import sqlite_opener
from tests.command.conftest import Fibcore, rows
from tests.support.ports import free_port
from tests.support.servers import Client, listening_socket
from tests.support.waiting import Log

PATIENCE: Final = 30


@contextmanager
def started(folder: Path, *arguments: object, **settings: str) -> Iterator["Started"]:
    """``fibcore serve`` in that folder; killed at the end unless it has exited."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("FIB_")}
    path = folder / f"{len(list(folder.glob('*.log')))}.log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "fibcore", "serve", *map(str, arguments)],
            cwd=folder,
            env={**others, **settings},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield Started(process, Log(path))
    finally:
        process.kill()
        process.wait()


class Started(NamedTuple):
    process: subprocess.Popen[bytes]
    log: Log

    def stops(self) -> None:
        """Interrupt it; it must exit with 0."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(PATIENCE) == 0


@pytest.mark.processes
def test_the_other_commands_find_a_server(tmp_path: Path, fibcore: Fibcore) -> None:
    port = free_port()
    with started(tmp_path, "--port", port) as server:
        server.log.expect("listening at")
        pid = server.process.pid
        client = Client(f"http://127.0.0.1:{port}")
        assert client.get("/next").body == b'{"next": 1}'
        status, output, complaint = fibcore("status")
        assert (status, complaint) == (0, "")
        found = rows(output)
        assert found["server"].startswith(f"http://127.0.0.1:{port}, process {pid}, serving for ")
        assert (found["health"], found["index"], found["number"]) == ("healthy", "1", "1 (1 digit)")
        assert found["steps"].startswith("1 by this process, 1 per commit, each ")
        assert found["store"] == "sqlite, integers=exact, synchronous=full"
        assert (found["standby"], found["takeovers"], found["backup copy"]) == ("none", "0", "none")
        assert rows(fibcore("show")[1])["served by"] == f"process {pid}"
        server.stops()
    assert sqlite_opener.verified_index(tmp_path / "var" / "fibcore.db") == 1
    (tmp_path / FILE).write_text(f"FIB_PORT={port}\n")
    status, output, complaint = fibcore("status")
    assert (status, output) == (os.EX_UNAVAILABLE, "")
    assert f"No server answers at http://127.0.0.1:{port} (connection refused). " in complaint


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--port", "x"), "--port: FIB_PORT is 'x'; it must be a whole number from 1 to 65535."),
        (("--store", "sqlite:"), "--store: FIB_STORE is 'sqlite:'; it must be "),
    ],
)
def test_invalid_options_of_serve_are_reported_before_it_starts(
    fibcore: Fibcore, tmp_path: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    status, output, complained = fibcore("serve", *arguments)
    assert (status, output) == (os.EX_CONFIG, "")
    assert complaint in complained
    assert "Nothing has been started or changed." in complained
    assert not (tmp_path / "var").exists()


class SomethingElse(BaseHTTPRequestHandler):
    body = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>", b"[]", b"{}", b"\xff", b"[" * 100_000),
        *(b'{"healthy": true}', b'{"healthy": false}', b'{"healthy": true, "process": 1}'),
    ],
    ids=lambda body: repr(body[:20]),
)
def test_an_answer_of_another_program_is_not_taken_for_a_status(
    fibcore: Fibcore, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SomethingElse, "body", body)
    with ThreadingHTTPServer(("127.0.0.1", 0), SomethingElse) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        status, output, _ = fibcore("status", "--url", url)
        each, line, _ = fibcore("status", "--all", url)
        server.shutdown()
        thread.join()
    assert (status, output) == (os.EX_UNAVAILABLE, "")
    assert (each, line) == (os.EX_UNAVAILABLE, f"{url:<31} does not answer\n")


def test_a_server_that_does_not_answer_is_reported_in_time(
    fibcore: Fibcore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ANSWER_SECONDS", 0.1)
    with listening_socket() as listener:
        port = listener.getsockname()[1]
        assert fibcore("status", "--url", f"http://127.0.0.1:{port}")[0] == os.EX_UNAVAILABLE


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:81"), ("::", "http://[::1]:81"), ("x", "http://x:81")],
)
def test_a_server_is_queried_at_its_own_address(
    host: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIB_HOST", host)
    monkeypatch.setenv("FIB_PORT", "81")
    assert server.configured_url() == url


SHARED: Final[dict[str, Any]] = {
    "now": 90_061.0,
    "healthy": True,
    "index": "9007199254740993",
    "digits": 20,
    "first": "12345678901234567890",
    "last": "",
    "steps": 0,
    "reads": 3,
    "rejected_requests": {"path": 1},
    "unavailable": 2,
    "waiting_steps": 0,
    "connections": 1,
    "limit": {"waiting": 5, "connections": 9},
    "memory_bytes": 40_000_000,
    "process": {"pid": 7, "began": 0.0, "uptime": 90_061.0},
    "takeovers": {"number": 0, "at": None, "after": None, "seconds": None},
    "backup_copy": None,
    "store": {
        "kind": "postgresql",
        "sequence": "fibonacci",
        "synchronous": None,
        "integers": "uint64",
        "warnings": ["It may lose steps."],
    },
    "standby": None,
}


def test_status_of_a_shared_store_omits_the_details_of_files() -> None:
    found = dict(server.rows("http://x", SHARED))
    assert found["server"] == "http://x, process 7, serving for 1 d 1 h"
    assert found["index"] == "9007199254740993"
    assert found["number"] == "12345678901234567890 (20 digits)"
    assert found["store"] == "postgresql, integers=uint64, sequence fibonacci"
    assert found["durability"] == "It may lose steps."
    assert found["steps"] == "0 by this process"
    assert not {"standby", "takeovers", "backup copy"} & set(found)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """The status that each URL returns; no server answers at other URLs."""
    nodes: dict[str, dict[str, Any]] = {}

    def ask(url: str) -> dict[str, Any]:
        if url not in nodes:
            raise problems.NotAnsweringError(f"No server answers at {url}.")
        return nodes[url]

    monkeypatch.setattr(server, "ask", ask)
    return nodes


def test_an_unhealthy_server_is_a_problem_with_its_reason(
    fibcore: Fibcore, nodes: dict[str, dict[str, Any]]
) -> None:
    nodes["http://a"] = SHARED | {"healthy": False, "reason": "It is broken.", "index": None}
    status, output, complaint = fibcore("status", "--url", "http://a")
    assert status == os.EX_UNAVAILABLE
    found = rows(output)
    assert [found[each] for each in ("health", "index", "number")] == [
        *("unavailable", "unknown", "unknown")
    ]
    assert "It is broken." in complaint


def test_the_status_of_all_nodes_is_a_line_each(
    fibcore: Fibcore, nodes: dict[str, dict[str, Any]]
) -> None:
    nodes["http://a"] = SHARED
    status, output, complaint = fibcore("status", "--all", "http://a", "http://b")
    assert status == os.EX_UNAVAILABLE
    healthy, dead = output.splitlines()
    assert healthy.split()[:4] == ["http://a", "healthy", "index", "9007199254740993"]
    assert dead.split(maxsplit=1) == ["http://b", "does not answer"]
    assert complaint.startswith("fibcore: No server answers at http://b.")
    status, output, complaint = fibcore("status", "--json", "--all", "http://a")
    assert (status, complaint) == (0, "")
    assert [each["index"] for each in json.loads(output)["nodes"]] == ["9007199254740993"]


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
@pytest.mark.parametrize("option", ["--url", "--all"])
def test_credentials_in_the_url_of_status_are_sent_but_never_shown(
    fibcore: Fibcore, option: str, form: tuple[str, ...]
) -> None:
    sent = []

    class Status(SomethingElse):
        body = json.dumps(SHARED).encode()

        def do_GET(self) -> None:
            sent.append(self.headers["Authorization"])
            super().do_GET()

    with ThreadingHTTPServer(("127.0.0.1", 0), Status) as there:
        thread = threading.Thread(target=there.serve_forever)
        thread.start()
        url = f"http://ann:s%2fcret@127.0.0.1:{there.server_port}"
        answered = fibcore("status", *form, option, url)
        there.shutdown()
        thread.join()
    unanswered = fibcore("status", *form, option, url)
    assert (answered[0], unanswered[0]) == (0, os.EX_UNAVAILABLE)
    assert sent == ["Basic YW5uOnMvY3JldA=="]
    assert "cret" not in "".join([*answered[1:], *unanswered[1:]])


def test_status_shows_the_ends_of_a_long_number() -> None:
    long = SHARED | {"digits": 6270, "first": "1" * 60, "last": "2" * 60}
    shown = dict(server.rows("http://x", long))["number"]
    assert shown == f"{'1' * 20}...{'2' * 20} (6270 digits)"


def test_status_shows_a_takeover_and_a_backup_copy() -> None:
    embedded = {
        **SHARED,
        "store": {**SHARED["store"], "sequence": None, "synchronous": "full", "warnings": []},
        "standby": True,
        "takeovers": {"number": 2, "at": 90_000.0, "after": "hung", "seconds": 0.1},
        "backup_copy": {"at": 90_058.0},
    }
    found = dict(server.rows("http://x", embedded))
    assert found["standby"] == "ready"
    assert (
        found["takeovers"]
        == "2, the last 1 min 1 s ago: the previous server hung and was ended by the watchdog"
    )
    assert found["backup copy"] == "3 s old"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_the_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--print-completion", shell])
    assert ended.value.code == 0
    script = capsys.readouterr().out
    assert all(name in script for name in ("serve", "status", "set-index", "lower"))


def test_version_and_help_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, told in ((["--version"], "fibcore 1."), (["--help"], "fibcore backup /backups")):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 0
        assert told in capsys.readouterr().out
