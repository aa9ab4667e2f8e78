"""Descriptors run out: new connections are closed, the others continue, and nothing is lost.

A commit needs no new descriptor. The event loop keeps one in reserve, to accept and close a
connection: otherwise it would be notified of that connection repeatedly.
"""

import itertools
import select
import time
from contextlib import ExitStack, closing, suppress
from http.client import RemoteDisconnected
from pathlib import Path
from typing import Final

import pytest

from bench.machine import cpu_seconds
from fibcore.appliance.ending import (
    EXIT_COMMIT_FAILED,
    EXIT_DATABASE_INVALID,
    EXIT_SETTINGS_INVALID,
)
from fibcore.appliance.process import SPARE_DESCRIPTORS
from fibcore.stores import sqlite_file
from tests.faults.conftest import Fault
from tests.support.load import Load
from tests.faults.server_variants import (
    checkpoints_often,
    opens_its_database_at_each_commit,
    takes_connections_without_descriptors,
    variant,
)
from tests.faults.servers import Servers, no_descriptor_from, until_idle
from tests.support.raw_clients import read_first
from tests.support.servers import SERVER, ServerProcess, listening_socket
from tests.support.waiting import until
from tests.support.wire import STEP

pytestmark = pytest.mark.processes


# While the server runs


def test_steps_continue_without_free_descriptors(tmp_path: Path) -> None:
    command = variant(checkpoints_often)
    with (
        Servers(tmp_path / "fibcore.db", tmp_path, command=command) as servers,
        closing(servers.client.connect()) as kept,
    ):
        assert servers.client.request_on(kept, "GET", "/next").index == 1
        server, log = servers.server.pid, servers.server.log.text
        with no_descriptor_from(max(servers.descriptors) + 1 + 10, server), ExitStack() as stack:
            connections = [stack.enter_context(servers.client.raw()) for _ in range(100)]
            for connection in connections:
                with suppress(ConnectionError):
                    connection.sendall(STEP)
            answers = [read_first(connection) for connection in connections]
            answered = [answer for answer in answers if answer]
            assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answered)
            assert 10 <= len(answered) < 50
            # Enough for the WAL to be moved into the database several times.
            reached = 1 + len(answered)
            for index in range(reached + 1, reached + 31):
                assert servers.client.request_on(kept, "GET", "/next").index == index
            used = cpu_seconds([server])
            time.sleep(1)  # in which it has nothing to do
            assert cpu_seconds([server]) - used < 0.2
        assert servers.client.get("/next").index == reached + 31
        assert servers.server.log.text == log


def test_without_free_descriptors_a_commit_that_needed_one_would_fail(tmp_path: Path) -> None:
    command = variant(opens_its_database_at_each_commit)
    with (
        Servers(tmp_path / "fibcore.db", tmp_path, command=command) as servers,
        servers.client.raw() as kept,
    ):
        kept.sendall(STEP)
        assert read_first(kept).startswith(b"HTTP/1.1 200 ")
        server = servers.server
        with no_descriptor_from(max(servers.descriptors) + 1, server.pid), ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(servers.client.raw())
            kept.sendall(STEP)
            assert read_first(kept) == b""
            assert server.wait() == EXIT_COMMIT_FAILED
        assert sqlite_file.verify_file(tmp_path / "fibcore.db") == 1


def test_steps_continue_without_even_the_reserved_descriptor(tmp_path: Path) -> None:
    """The server is busy with a connection that it can't accept."""
    with (
        Servers(tmp_path / "fibcore.db", tmp_path) as servers,
        closing(servers.client.connect()) as kept,
    ):
        server = servers.server.pid
        indexes = itertools.count(1)

        def step() -> None:
            assert servers.client.request_on(kept, "GET", "/next").index == next(indexes)

        def step_until_it_is_busy() -> bool:
            # Without a request for a while the connection would be closed.
            step()
            return cpu_seconds([server]) - used > 0.5

        step()
        with no_descriptor_from(3, server), servers.client.raw() as waiting:
            used = cpu_seconds([server])
            until(step_until_it_is_busy, "it is busy with a connection")
            for _ in range(30):
                step()
            waiting.sendall(STEP)
        last = next(indexes)
        until(lambda: servers.client.get("/current").index == last, "it has taken the connection")


@pytest.mark.long
def test_descriptors_run_out_under_load_and_become_free(fault: Fault, tmp_path: Path) -> None:
    command = variant(checkpoints_often)
    with Servers(tmp_path / "fibcore.db", tmp_path, command=command) as servers:
        server = servers.server.pid
        with Load(servers.port) as load:
            for _ in fault.tries(short=2, long=2, share=0):
                load.wait_for_steps(50)
                with no_descriptor_from(max(servers.descriptors) + 1, server), ExitStack() as stack:
                    for _ in range(100):
                        stack.enter_context(servers.client.raw())
                    load.wait_for_steps(50)
            load.wait_for_steps(50)
        last = servers.client.index
        assert servers.server.pid == server
    fault.saw(
        lost=load.lost(last),
        gap=load.longest_gap,
        note=f"{load.unanswered} steps got no answer: their connections were closed",
    )
    load.check(first=0, last=last)
    assert load.unanswered > 0
    assert load.errors.total() == 0


# At the start

FEW: Final = SPARE_DESCRIPTORS + 50


def limited(count: int, command: tuple[str, ...] | list[str] = SERVER) -> list[str]:
    """A command that runs the server with this many descriptors."""
    return ["prlimit", f"--nofile={count}:{count}", *command]


def test_fewer_descriptors_than_connections_shut_nobody_out(tmp_path: Path) -> None:
    with (
        Servers(tmp_path / "fibcore.db", tmp_path, command=limited(FEW)) as servers,
        ExitStack() as stack,
    ):
        connections = [stack.enter_context(servers.client.raw()) for _ in range(4 * FEW)]
        # As many as there are slots stay. The others must connect first, too: those queued in the
        # kernel arrive later, as newcomers for which others are evicted.
        closed = select.poll()
        for connection in connections:
            closed.register(connection, select.POLLIN)
        gone = len(connections) - (FEW - SPARE_DESCRIPTORS)
        until(lambda: len(closed.poll(0)) == gone, "all are accepted, and most have been evicted")
        until_idle()
        with Load(servers.port, clients=8, rate=400) as load:
            load.wait_for_steps(100)
        assert len(servers.descriptors) < FEW
        load.check(first=0, last=servers.client.index)
        assert load.refused == load.unanswered == load.errors.total() == 0


@pytest.mark.long
def test_connections_beyond_the_descriptors_would_shut_others_out(tmp_path: Path) -> None:
    command = limited(FEW, variant(takes_connections_without_descriptors))
    with (
        Servers(tmp_path / "fibcore.db", tmp_path, command=command) as servers,
        ExitStack() as stack,
    ):
        for _ in range(4 * FEW):
            stack.enter_context(servers.client.raw())
        with pytest.raises((ConnectionError, RemoteDisconnected)):
            servers.client.get("/current")


@pytest.mark.long
@pytest.mark.parametrize("index", [None, 7])
def test_too_few_descriptors_at_the_start_are_reported(index: int | None, tmp_path: Path) -> None:
    """If it exits, it is restarted."""
    database = tmp_path / "fibcore.db"
    if index is not None:
        sqlite_file.create(database, index)
    ends = set()
    with listening_socket() as listener:
        for count in range(3, SPARE_DESCRIPTORS):
            command = limited(count)
            with ServerProcess(database, listener, name=f"{count}", command=command) as server:

                def is_clear() -> bool:
                    has_ended = server.process.poll() is not None
                    text = server.log.text
                    return has_ended or "listening at" in text or "retries" in text

                until(is_clear, "it has started, or not")
                ends.add(server.process.poll())
                if "serving from" in server.log.text:
                    break
        assert f"serving from index {index or 0};" in server.log.text
        assert None in ends, "it has waited for descriptors"
        # supervisord does not restart it after these.
        assert not ends & {0, EXIT_DATABASE_INVALID, EXIT_SETTINGS_INVALID}
    assert sqlite_file.verify_file(database) == (index or 0)
