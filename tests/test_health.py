"""The health listener alone: what counts as an answer, whom it kills and when."""

import contextlib
import io
import logging
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path
from xmlrpc.server import SimpleXMLRPCDispatcher, SimpleXMLRPCRequestHandler

import pytest

from fibcore.settings import Settings
from fibcore.stores.files import lock_path
from fibcore.stores.lock import WriterLock
from supervise import health
from supervise.health import Patience, Role, Supervisord, Symptom, Watch, ask
from tests.support.supervised import free_port, until
from tests.test_events import event

HEALTHY = b'HTTP/1.1 200 OK\r\ncontent-length: 21\r\n\r\n{"status": "healthy"}'
FULL = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"

SERVER = Role(pid=100, serves=True)
STANDBY = Role(pid=101, serves=False)
SILENT = Symptom("does not answer", may_be_starting=True)
STOPPED = Symptom("is stopped", may_be_starting=False)


@contextlib.contextmanager
def answering(*pieces: bytes, pause: float = 0.0, close: bool = True) -> Iterator[int]:
    """A server that gives every client ``pieces``; yields its port."""
    kept: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                kept.append(client)
                client.recv(4096)
                for piece in pieces:
                    client.sendall(piece)
                    time.sleep(pause)
                if close:
                    client.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    for client in kept:
        client.close()


# What counts as an answer.


@pytest.mark.parametrize("answer", [HEALTHY, FULL], ids=["200", "503"])
def test_healthy_and_honestly_unwell_are_answers(answer: bytes) -> None:
    with answering(answer) as port:
        assert ask("127.0.0.1", port, 5) is None


def test_an_answer_in_pieces_is_an_answer() -> None:
    with answering(*(HEALTHY[i : i + 1] for i in range(len(HEALTHY)))) as port:
        assert ask("127.0.0.1", port, 5) is None


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 Internal Server Error\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\n",
        b"",
    ],
    ids=["500", "404", "another protocol", "endless", "half a head", "nothing"],
)
def test_anything_else_is_not(answer: bytes) -> None:
    with answering(answer) as port:
        assert ask("127.0.0.1", port, 5) is not None


def test_a_refused_connection_is_no_answer() -> None:
    complaint = ask("127.0.0.1", free_port(), 5)
    assert complaint is not None
    assert "refused" in complaint


def test_silence_is_no_answer() -> None:
    with answering(close=False) as port:
        assert ask("127.0.0.1", port, 0.1) == "no answer within 0.1 s"


def test_an_answer_that_drips_in_has_no_longer_than_another() -> None:
    with answering(*[b"x"] * 40, pause=0.05) as port:
        assert ask("127.0.0.1", port, 0.3) == "no answer within 0.3 s"


# Whom it kills.


def test_a_server_is_ended_after_so_many_failures_in_a_row() -> None:
    patience = Patience(failures=3, grace=30)
    assert patience.tick({SERVER: None}, 0) == []
    assert patience.tick({SERVER: SILENT}, 5) == []
    assert patience.tick({SERVER: SILENT}, 10) == []
    assert patience.tick({SERVER: SILENT}, 15) == [SERVER]


def test_one_answer_makes_up_for_all_failures() -> None:
    patience = Patience(failures=2, grace=30)
    for now in range(0, 50, 10):
        assert patience.tick({SERVER: None}, now) == []
        assert patience.tick({SERVER: SILENT}, now + 5) == []


def test_a_server_that_has_not_answered_yet_has_a_longer_time() -> None:
    patience = Patience(failures=2, grace=30)
    assert [now for now in range(0, 45, 5) if patience.tick({SERVER: SILENT}, now)] == [30, 35, 40]


def test_a_standby_that_takes_over_begins_anew() -> None:
    patience = Patience(failures=2, grace=30)
    taken_over = Role(STANDBY.pid, serves=True)
    patience.tick({SERVER: None, STANDBY: None}, 0)
    patience.tick({SERVER: SILENT, STANDBY: None}, 5)
    assert patience.tick({SERVER: SILENT, STANDBY: None}, 10) == [SERVER]
    for now in (15, 20, 25):
        assert patience.tick({taken_over: SILENT}, now) == []


def test_a_stopped_process_is_not_taken_for_one_that_starts() -> None:
    patience = Patience(failures=2, grace=30)
    patience.tick({SERVER: STOPPED, STANDBY: STOPPED}, 0)
    assert patience.tick({SERVER: STOPPED, STANDBY: STOPPED}, 5) == [SERVER, STANDBY]


def test_one_that_can_not_be_ended_is_ended_again_at_each_tick() -> None:
    patience = Patience(failures=1, grace=0)
    assert [patience.tick({SERVER: SILENT}, now) for now in (0, 5)] == [[SERVER], [SERVER]]


class FakeSupervisor:
    """A supervisord that runs what it is told to run, and keeps a list of the killed."""

    def __init__(self, running: dict[int, str]) -> None:
        self.processes = running
        self.killed: list[str] = []
        self.error: Exception | None = None

    def running(self, group: str) -> dict[int, str]:
        assert group == "web"
        if self.error:
            raise self.error
        return self.processes

    def kill(self, name: str) -> None:
        self.killed.append(name)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "fibcore.db"


def watch(state: Path, port: int, supervisor: FakeSupervisor, failures: int = 1) -> Watch:
    settings = Settings.from_environ({"FIB_STATE": str(state), "FIB_PORT": str(port)})
    return Watch(supervisor, "web", settings, Patience(failures, grace=0), seconds=0.1)


def test_the_holder_of_the_lock_is_killed_when_it_does_not_answer(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    WriterLock(state).acquire(wait=False)
    supervisor = FakeSupervisor({os.getpid(): "web:web_1", os.getppid(): "web:web_0"})
    with answering(close=False) as port:
        watching = watch(state, port, supervisor, failures=2)
        watching.tick()
        assert supervisor.killed == []
        watching.tick()
    assert supervisor.killed == ["web:web_1"]
    assert f"web:web_1 (pid {os.getpid()}), the server, does not answer" in caplog.text
    assert "No answered step is lost" in caplog.text


def test_a_server_that_says_that_its_disk_is_full_is_left_alone(state: Path) -> None:
    WriterLock(state).acquire(wait=False)
    supervisor = FakeSupervisor({os.getpid(): "web:web_0"})
    with answering(FULL) as port:
        watch(state, port, supervisor).tick()
    assert supervisor.killed == []


@pytest.mark.parametrize("content", [f"{os.getppid()}\n", "", "garbage\n", None])
def test_a_stale_or_senseless_lock_file_kills_nobody(
    state: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    if content is not None:
        lock_path(state).write_text(content)
    supervisor = FakeSupervisor({os.getpid(): "web:web_0"})
    watch(state, free_port(), supervisor).tick()
    assert supervisor.killed == []
    assert "no running process of web holds the lock" in caplog.text


def test_a_standby_that_is_stopped_is_killed_though_the_server_answers(state: Path) -> None:
    WriterLock(state).acquire(wait=False)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as standby:
        supervisor = FakeSupervisor({os.getpid(): "web:web_0", standby.pid: "web:web_1"})
        with answering(HEALTHY) as port:
            watching = watch(state, port, supervisor)
            watching.tick()
            assert supervisor.killed == []
            standby.send_signal(signal.SIGSTOP)
            until(lambda: health._is_stopped(standby.pid), "the standby is stopped")
            watching.tick()
        standby.kill()
    assert supervisor.killed == ["web:web_1"]
    assert not health._is_stopped(standby.pid)


def test_a_supervisord_that_can_not_be_asked_is_asked_again(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    WriterLock(state).acquire(wait=False)
    supervisor = FakeSupervisor({os.getpid(): "web:web_0"})
    watching = watch(state, free_port(), supervisor)
    supervisor.error = FileNotFoundError("no socket")
    watching.tick()
    assert "supervisord can't be asked: no socket. Nothing is killed now" in caplog.text
    supervisor.error = None
    watching.tick()
    assert supervisor.killed == ["web:web_0"]


def test_a_supervisord_that_stops_everything_is_no_error(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = FakeSupervisor({})
    supervisor.error = xmlrpc.client.Fault(6, "SHUTDOWN_STATE")
    watch(state, free_port(), supervisor).tick()
    assert caplog.text == ""


def test_the_end_of_a_hang_is_logged(state: Path, caplog: pytest.LogCaptureFixture) -> None:
    WriterLock(state).acquire(wait=False)
    port = free_port()
    watching = watch(state, port, FakeSupervisor({os.getpid(): "web:web_0"}), failures=9)
    watching.tick()
    with socket.create_server(("127.0.0.1", port)) as listener, caplog.at_level(logging.INFO):
        thread = threading.Thread(target=_answer_once, args=(listener,))
        thread.start()
        watching.tick()
        thread.join()
    assert "/health is answered again, by web:web_0" in caplog.text


def _answer_once(listener: socket.socket) -> None:
    client, _ = listener.accept()
    with client:
        client.recv(4096)
        client.sendall(HEALTHY)


# supervisord, asked over its socket.


class _Handler(SimpleXMLRPCRequestHandler):
    rpc_paths = ("/RPC2",)
    disable_nagle_algorithm = False  # a Unix socket has none

    def address_string(self) -> str:
        return "unix"


class _Server(socketserver.ThreadingUnixStreamServer, SimpleXMLRPCDispatcher):
    logRequests = False  # noqa: N815

    def __init__(self, path: Path) -> None:
        SimpleXMLRPCDispatcher.__init__(self, allow_none=True, encoding="utf-8")
        super().__init__(str(path), _Handler)


def test_running_processes_of_the_group_are_listed_and_killed_by_name(tmp_path: Path) -> None:
    signals = []

    def signal_process(*arguments: object) -> bool:
        signals.append(arguments)
        return True

    def info(group: str, name: str, state: str, pid: int) -> dict[str, object]:
        return {"group": group, "name": name, "statename": state, "pid": pid}

    path = tmp_path / "supervisor.sock"
    with _Server(path) as server:
        server.register_function(signal_process, "supervisor.signalProcess")
        server.register_function(
            lambda: [
                info("web", "web_0", "RUNNING", 10),
                info("web", "web_1", "STOPPING", 11),
                info("health", "health", "RUNNING", 12),
            ],
            "supervisor.getAllProcessInfo",
        )
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        supervisord = Supervisord(f"unix://{path}")
        assert supervisord.running("web") == {10: "web:web_0"}
        supervisord.kill("web:web_0")
        server.shutdown()
        thread.join()
    assert signals == [("web:web_0", "KILL")]


# The whole program.


def run_main(monkeypatch: pytest.MonkeyPatch, stdin: str) -> tuple[int, str]:
    """Run it to the end of its events; return its exit status and what it said to supervisord."""
    stdout = io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    monkeypatch.setattr(sys, "stdout", stdout)
    return health.main(["web", "--timeout", "1"]), stdout.getvalue()


def test_it_speaks_the_protocol_alone_and_ends_with_supervisord(
    monkeypatch: pytest.MonkeyPatch, state: Path
) -> None:
    monkeypatch.setenv("FIB_STATE", str(state))
    monkeypatch.setenv("FIB_PORT", str(free_port()))
    monkeypatch.setenv("SUPERVISOR_SERVER_URL", f"unix://{state}.nobody")
    status, said = run_main(monkeypatch, 2 * event("TICK_5", "when:5"))
    assert status == 0
    assert said == "READY\n" + 2 * "RESULT 2\nOKREADY\n"


def test_refused_settings_end_it_before_it_takes_an_event(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FIB_PORT", "many")
    assert run_main(monkeypatch, "") == (os.EX_CONFIG, "")
    assert "FIB_PORT must be" in caplog.text
