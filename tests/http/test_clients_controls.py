"""The controls of ``test_clients``: each protection taken away, and what clients then get."""

import signal
import socket
import subprocess
from pathlib import Path

import pytest

from fibcore.stores import sqlite_file
from tests.faults.parser_variants import (
    takes_an_offer_of_an_upgrade_for_the_end,
    takes_trailers_for_headers,
)
from tests.faults.server_variants import (
    closes_when_the_client_has_sent_all,
    counts_what_was_sent,
    goes_on_at_a_stop,
    variant,
)
from tests.support.raw_clients import (
    locked,
    read_all,
    say,
    serving,
    statuses,
    upgrade,
    wait_until_all_is_read,
)
from tests.support.wire import HOST, READ, STEP

pytestmark = pytest.mark.processes


@pytest.mark.proves("pairs", "pipelining", "bytes in flight", control="what was sent still counted")
def test_pipelining_would_be_shed_if_what_was_sent_counted(
    database: Path, listener: socket.socket
) -> None:
    sqlite_file.create(database, 40_000)
    bound = str(2**20)
    with serving(
        database, listener, command=variant(counts_what_was_sent), FIB_MAX_ANSWER_BYTES=bound
    ) as server:
        assert set(statuses(say(server.client, STEP * 200))) == {200, 503}


@pytest.mark.proves(
    "pairs",
    "an offer of an upgrade",
    "a body that is a…",
    control="a body, and httptools is believed",
)
def test_an_upgrade_taken_for_the_end_would_step_without_body(
    database: Path, listener: socket.socket
) -> None:
    with serving(
        database, listener, command=variant(takes_an_offer_of_an_upgrade_for_the_end)
    ) as server:
        say(server.client, upgrade(b"Content-Length: 100"))
        assert server.client.index == 1


@pytest.mark.proves(
    "pairs", "pipelining", "a client that half-closes", control="that is taken for its end"
)
def test_a_half_close_taken_for_the_end_would_leave_no_answer(
    database: Path, listener: socket.socket
) -> None:
    with serving(
        database, listener, command=variant(closes_when_the_client_has_sent_all)
    ) as server:
        with locked(database), server.client.raw() as connection:
            connection.sendall(STEP)
            connection.shutdown(socket.SHUT_WR)
            assert read_all(connection) == b""
        assert server.client.get("/next").index == 2


@pytest.mark.proves(
    "processes",
    "the server is told to…",
    control="its connections did not know: what is piped steps, and half a request holds up "
    "the stop",
)
def test_a_stop_that_went_on_would_make_piped_steps(
    database: Path, listener: socket.socket
) -> None:
    """It would wait for half a request, too."""
    with (
        serving(
            database, listener, command=variant(goes_on_at_a_stop), FIB_STOP_TIMEOUT="60"
        ) as server,
        server.client.raw() as piped,
        server.client.raw() as half,
    ):
        half.sendall(STEP[:-2])
        with locked(database):
            piped.sendall(STEP + STEP)
            wait_until_all_is_read(server.client)
            server.signal(signal.SIGTERM)
            server.log.expect("Shutting down")
        received = b""
        while received.count(b'{"next": ') < 2:
            received += piped.recv(65536)
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(2)
        server.process.kill()
    assert sqlite_file.verify_file(database) == 2


@pytest.mark.proves("pairs", "trailers", control="that are taken for headers")
def test_trailers_taken_for_headers_would_change_the_request(
    database: Path, listener: socket.socket
) -> None:
    chunked = b"POST /next HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
    with serving(database, listener, command=variant(takes_trailers_for_headers)) as server:
        received = say(server.client, chunked + b'If-Match: "9"\r\n\r\n' + READ)
        assert statuses(received) == [412, 200]
