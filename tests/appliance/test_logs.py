"""The log: it is written, nothing waits for it, and no source drowns out the others."""

import contextlib
import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fibcore.appliance.logs import MAX_QUEUED, MOST_ALIKE, RECORD_BYTES, WINDOW_SECONDS, Log
from tests.appliance.conftest import Pipe
from tests.faults.server_variants import variant, writes_its_log_itself
from tests.support.servers import ServerProcess, listening_socket
from tests.support.waiting import PATIENCE
from tests.support.wire import READ

MOST_RECORDS = MAX_QUEUED // (RECORD_BYTES + 1000)
"""This many records of 1,000 characters fill the queue, or a few more."""


def test_records_are_written_line_by_line(pipe: Pipe) -> None:
    pipe.logger.info("so %s", "it is")
    try:
        raise ValueError("\udc80 of a name")
    except ValueError:
        pipe.logger.exception("failed")
    text = pipe.read_until(r"ValueError.*\n")
    assert text.startswith("INFO so it is\nERROR failed\nTraceback")
    assert text.endswith("ValueError: \\udc80 of a name\n")


def test_an_unread_log_is_not_waited_for(pipe: Pipe) -> None:
    """Dropped records are counted."""
    in_the_pipe = 2**16 // len(f"INFO {'x' * 1000}\n") + 2
    logged = in_the_pipe + 2 * MOST_RECORDS
    for _ in range(logged):
        pipe.logger.info("x" * 1000)
    text = pipe.read_until(r"WARNING \d+ records of this log were dropped.*\n")
    dropped = int(re.findall(r"(\d+) records", text)[0])
    assert dropped >= MOST_RECORDS - in_the_pipe
    assert text.count("INFO x") == logged - dropped


def test_the_log_queue_is_bounded_in_bytes(pipe: Pipe) -> None:
    size, logged = MAX_QUEUED // 10, 30
    for _ in range(logged):
        pipe.logger.info("x" * size)
    text = pipe.read_until(r"WARNING \d+ records of this log were dropped.*\n")
    # One is being written, and the last one exceeds the bound.
    assert text.count("INFO x") <= 10 + 2
    dropped = int(re.findall(r"(\d+) records", text)[0])
    assert text.count("INFO x") == logged - dropped


def test_without_a_bound_the_log_queue_would_fill_memory(pipe: Pipe) -> None:
    pipe.log.queue.maxsize = sys.maxsize
    for _ in range(30):
        pipe.logger.info("x" * (MAX_QUEUED // 10))
    assert pipe.log.dropped == 0
    assert pipe.log.queue.qsize() > 2 * MAX_QUEUED


def test_warnings_are_limited_and_counted_per_line_of_code(pipe: Pipe) -> None:
    """Other warnings are neither."""
    for number in range(MOST_ALIKE + 7):
        pipe.logger.warning("client %d has sent nonsense", number)
        pipe.logger.info("request %d", number)
    pipe.logger.warning("the disk is slow")
    pipe.log.flush()
    text = pipe.read()
    assert text.count("has sent nonsense") == MOST_ALIKE
    assert text.count("INFO request") == MOST_ALIKE + 7
    assert "WARNING the disk is slow" in text
    pipe.now = WINDOW_SECONDS
    pipe.logger.info("woken up")
    last = f"client {MOST_ALIKE + 6} has sent nonsense"
    pipe.read_until(f"WARNING 7 more suppressed in 10 s: {last}\n")


def test_suppressed_records_are_reported_even_if_no_more_follow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fibcore.appliance.logs.WINDOW_SECONDS", 0.01)
    read_end, write_end = os.pipe()
    logger = logging.Logger("test")
    logger.addHandler(Log(logging.Formatter("%(message)s"), write_end))
    for _ in range(MOST_ALIKE + 10_000):
        logger.warning("alike")
    with open(read_end, "rb") as log:  # noqa: PTH123
        assert any(b"more suppressed" in line for line in log)


def test_a_line_of_code_may_warn_again_after_its_window(pipe: Pipe) -> None:
    for pipe.now in (0.0, WINDOW_SECONDS):
        pipe.logger.info("woken up")
        pipe.log.flush()
        for _ in range(MOST_ALIKE + 1):
            pipe.logger.error("failed")
    pipe.log.flush()
    assert pipe.read().count("ERROR failed") == 2 * MOST_ALIKE


def test_a_critical_record_is_written_when_the_call_returns(pipe: Pipe) -> None:
    for _ in range(3):
        pipe.logger.info("before")
        pipe.logger.critical("the end")
        assert pipe.read().endswith("the end\n")


def test_a_critical_record_is_waited_for_only_for_a_while(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fibcore.appliance.logs.FLUSH_SECONDS", 0.1)
    for _ in range(2 * MOST_RECORDS):
        pipe.logger.info("x" * 1000)
    pipe.logger.critical("the end")
    assert "the end" not in pipe.read()


def test_a_log_whose_reader_has_exited_does_no_harm() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    log = Log(logging.Formatter(), write_end)
    for _ in range(3):
        log.handle(logging.LogRecord("test", logging.CRITICAL, "", 0, "the end", (), None))
    assert log.queue.unfinished_tasks == 0


def test_a_flush_waits_only_for_a_while_for_the_lock_of_the_queue(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler flushes the log, whatever the thread was doing when it was interrupted."""
    (log,) = (each for each in pipe.logger.handlers if isinstance(each, Log))
    monkeypatch.setattr("fibcore.appliance.logs.FLUSH_SECONDS", 0.01)
    with log.queue.mutex:
        flushing = threading.Thread(target=log.flush, daemon=True)
        flushing.start()
        flushing.join(PATIENCE)
        assert not flushing.is_alive()


# The server.


@contextlib.contextmanager
def unread(tmp_path: Path, *options: str) -> Iterator[ServerProcess]:
    """A server whose log is a pipe that nobody reads."""
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    command = ("sh", "-c", f'exec "$0" "$@" >{fifo} 2>&1', sys.executable, *options)
    settings = {"FIB_ACCESS_LOG": "on"}
    with (
        listening_socket() as listener,
        ServerProcess(tmp_path / "fibcore.db", listener, settings, command=command) as server,
    ):
        yield server
    os.close(reader)


def ask_often(server: ServerProcess, seconds: float) -> None:
    """Send more requests than the pipe and the queue have room for lines of the access log."""
    for _ in range(2000):
        with server.client.raw() as connection:
            connection.settimeout(seconds)
            connection.sendall(READ)
            assert connection.recv(4096).split()[1] == b"200"
            # No port is kept.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@pytest.mark.processes
def test_a_server_with_an_unread_log_serves_and_stops(tmp_path: Path) -> None:
    with unread(tmp_path, "-m", "web") as server:
        ask_often(server, PATIENCE)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


@pytest.mark.processes
def test_writing_the_log_in_the_event_loop_would_stall_the_server(tmp_path: Path) -> None:
    with unread(tmp_path, *variant(writes_its_log_itself)[1:]) as server:
        assert server.client.get("/current").status == 200
        with pytest.raises(TimeoutError):
            ask_often(server, 2)
        server.process.kill()
