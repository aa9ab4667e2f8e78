"""Two things at once that are each tested alone: docs/proofs.md has a row for each pair.

The bounds, two of them at their limits at once, are in ``tests/faults/test_bounds.py``.
"""

import itertools
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from fibcore.stores import sqlite_file
from tests.support.implementations import IMPLEMENTATIONS, serving
from tests.support.raw_clients import (
    LONG_INDEX,
    in_the_kernel,
    locked,
    read_all,
    say,
    statuses,
    upgrade,
    wait_until_all_is_read,
)
from tests.support.raw_clients import serving as serving_alone
from tests.support.servers import Client
from tests.support.waiting import until
from tests.support.wire import READ, STEP

pytestmark = pytest.mark.processes


# Pipelining, and a client that half-closes, and a stop


@pytest.mark.proves("pairs", "pipelining", "a client that half-closes, and a stop")
@pytest.mark.parametrize("half_closed", [False, True])
@pytest.mark.parametrize("piped", [b"", STEP, READ + STEP, STEP + STEP[:20]])
def test_a_stop_answers_a_step_and_makes_none_piped_behind_it(
    piped: bytes, half_closed: bool, database: Path, listener: socket.socket
) -> None:
    """The step was under way."""
    with (
        serving_alone(database, listener, FIB_STOP_TIMEOUT="60") as server,
        server.client.raw() as connection,
    ):
        with locked(database):
            connection.sendall(READ + STEP + piped)
            if half_closed:
                connection.shutdown(socket.SHUT_WR)
            wait_until_all_is_read(server.client)
            server.signal(signal.SIGTERM)
            server.log.expect("Shutting down")
        received = read_all(connection)
        assert server.wait() == 0
    assert statuses(received) == [200, 200]
    assert received.count(b"connection: close\r\n") == 1
    assert received.endswith(b'{"next": 1}')
    assert sqlite_file.verify_file(database) == 1


@pytest.mark.proves("pairs", "pipelining", "a client that half-closes, and…")
@pytest.mark.parametrize("half_closed", [False, True])
def test_a_stop_lets_an_answer_leave_and_steps_no_more(
    half_closed: bool, database: Path, listener: socket.socket
) -> None:
    """No step is made that is piped behind it."""
    sqlite_file.create(database, LONG_INDEX)
    with (
        serving_alone(database, listener, FIB_STOP_TIMEOUT="60") as server,
        server.client.raw(receive_buffer=4096) as connection,
    ):
        connection.sendall(READ + STEP)
        if half_closed:
            connection.shutdown(socket.SHUT_WR)
        until(lambda: in_the_kernel(server.client) > 0, "the answer has begun to leave")
        server.signal(signal.SIGTERM)
        server.log.expect("Shutting down")
        received = read_all(connection)
        assert server.wait() == 0
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"content-length: %d\r\n" % len(body) in head
    assert sqlite_file.verify_file(database) == LONG_INDEX


def request(*lines: bytes) -> bytes:
    more = b"".join(line + b"\r\n" for line in lines)
    return b"POST /next HTTP/1.1\r\nHost: x\r\n" + more + b"\r\n"


# An offer of another protocol, and all that may stand beside it

CHUNKED: Final = b"Transfer-Encoding: chunked"

BESIDE_UPGRADE: Final = {
    "nothing": (upgrade(), [200], 1),
    "a body": (upgrade(b"Content-Length: 5") + b"12345", [200], 1),
    "a body that is not whole": (upgrade(b"Content-Length: 5") + b"1234", [], 0),
    "a body in chunks": (upgrade(CHUNKED) + b"5\r\n12345\r\n0\r\n\r\n", [200], 1),
    "chunks without an end": (upgrade(CHUNKED) + b"5\r\n12345\r\n", [], 0),
    "chunks that are none": (upgrade(CHUNKED) + b"x\r\n", [400], 0),
    "a step in chunks": (
        upgrade(CHUNKED) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(STEP), STEP),
        [200],
        1,
    ),
    "a length that is none": (upgrade(b"Content-Length: 5x") + b"12345", [400], 0),
    "a length and chunks": (upgrade(b"Content-Length: 5", CHUNKED) + b"0\r\n\r\n", [400], 0),
    "a condition that holds": (upgrade(b'If-Match: "now"'), [200], 1),
    "one that does not": (upgrade(b'If-Match: "x"'), [412], 0),
    "a prefetch": (upgrade(b"Sec-Purpose: prefetch"), [503], 0),
    "a method that is not taken": (upgrade(method=b"PUT"), [405], 0),
    "the end of the connection": (upgrade(b"Connection: close") + STEP, [200], 1),
    "what is no host": (upgrade().replace(b"Host: x", b"Host: x/y"), [400], 0),
    "an older version": (upgrade().replace(b"HTTP/1.1", b"HTTP/1.0") + STEP, [200], 1),
    "a request, and rubbish": (upgrade() + STEP + b"rubbish\r\n\r\n", [200, 200, 400], 2),
}
"""What is sent, what is answered, and how many steps are made."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with serving(tmp_path_factory.mktemp("upgrade"), 0) as client:
        yield client


@pytest.mark.proves(
    "pairs",
    "an offer of an upgrade",
    "a body, whole or not, by length or in chunks; a condition; a prefetch; a close; an older "
    "version; rubbish",
)
@pytest.mark.parametrize("in_pieces", [False, True])
@pytest.mark.parametrize("beside", BESIDE_UPGRADE)
def test_an_upgrade_that_is_offered_changes_nothing(
    beside: str, in_pieces: bool, client: Client
) -> None:
    before = client.index
    sent, answered, steps = BESIDE_UPGRADE[beside]
    sent = sent.replace(b'"now"', b'"%d"' % before)
    pieces = [bytes([byte]) for byte in sent] if in_pieces else [sent]
    assert statuses(say(client, *pieces)) == answered
    assert client.index == before + steps


WAITING: Final = (b"Content-Length: 5", b"Expect: 100-continue")


@pytest.mark.proves("pairs", "an offer of an upgrade", "the wait for 100")
@pytest.mark.parametrize("head", [upgrade(*WAITING), request(*WAITING)], ids=["upgrade", "none"])
def test_100_is_sent_where_the_version_has_it(head: bytes, tmp_path: Path) -> None:
    """So it is whatever else the client offers."""
    with serving(tmp_path, 0) as client, client.raw() as newer, client.raw() as older:
        newer.sendall(head)
        assert newer.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        older.sendall(head.replace(b"HTTP/1.1", b"HTTP/1.0"))
        wait_until_all_is_read(client)
        assert client.index == 0
        for connection in (newer, older):
            connection.sendall(b"12345")
            connection.shutdown(socket.SHUT_WR)
            assert statuses(read_all(connection)) == [200]
        assert client.index == 2


@pytest.mark.proves("pairs", "an offer of an upgrade", "a stop")
@pytest.mark.parametrize("beside", ["a body that is not whole", "chunks without an end"])
def test_a_stop_does_not_wait_for_the_body_beside_an_upgrade(
    beside: str, database: Path, listener: socket.socket
) -> None:
    with (
        serving_alone(database, listener, FIB_STOP_TIMEOUT="60") as server,
        server.client.raw() as connection,
    ):
        connection.sendall(BESIDE_UPGRADE[beside][0])
        wait_until_all_is_read(server.client)
        server.signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        assert read_all(connection) == b""
    assert sqlite_file.verify_file(database) == 0


# A representation, and a condition

INDEX: Final = 100
"""Past the numbers that are the same in 64 bits, so that each has tags of its own."""

ACCEPTS: Final = {"json": "*/*", "text": "text/plain"}

OPAQUE: Final = {
    ("exact", "json"): "{}",
    ("exact", "text"): "{}-text",
    ("uint64", "json"): "{}-uint64",
    ("uint64", "text"): "{}-uint64-text",
}

FIELDS: Final = (
    '"{}"',
    '"{}-text"',
    '"{}-uint64"',
    '"{}-uint64-text"',
    'W/"{}"',
    'W/"{}-text"',
    '"x", "{}-text"',
    "*",
    '"9"',
    '"{}x"',
    "{}",
)
"""What the client says that it has; each with the index in it."""


def opaque_tags(field: str) -> list[str]:
    """What stands between the quotes, where ``field`` is a list of tags."""
    parts = field.split('"')
    return parts[1::2]


def expected(
    method: str, path: str, name: str, field: str, tag: str, index: int
) -> tuple[int, bool]:
    """The status by RFC 9110, 13.1, and whether it steps."""
    steps = path == "/next"
    tags = opaque_tags(field)
    if name == "If-Match":
        # Strongly, and any representation of the index will do.
        named = {each.format(index) for each in OPAQUE.values()}
        holds = field == "*" or (not field.startswith("W/") and bool(named & set(tags)))
        return (200, steps) if holds else (412, False)
    # Weakly, and only the representation that would be sent is one that the client has.
    if field != "*" and tag not in tags:
        return 200, steps
    return (412 if method == "POST" else 304), False


@pytest.mark.proves(
    "pairs", "each representation", "each condition, with each form of tag, on each path"
)
@pytest.mark.parametrize("integers", ["exact", "uint64"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_condition_is_judged_by_the_representation_to_be_sent(
    implementation: str, integers: str, tmp_path: Path
) -> None:
    with (
        serving(tmp_path, INDEX, implementation, FIB_INTEGERS=integers) as client,
        closing(client.connect()) as connection,
    ):
        index = INDEX
        for (representation, accept), form, name, (method, path) in itertools.product(
            ACCEPTS.items(),
            FIELDS,
            ("If-Match", "If-None-Match"),
            (("GET", "/current"), ("HEAD", "/previous"), ("GET", "/next"), ("POST", "/next")),
        ):
            field = form.format(index)
            tag = OPAQUE[integers, representation].format(index)
            status, steps = expected(method, path, name, field, tag, index)
            answer = client.request_on(connection, method, path, {"Accept": accept, name: field})
            said = f"{method} {path}, {accept}, {name}: {field}"
            assert answer.status == status, said
            index += steps
            assert answer.index == index, said
            if status in (200, 304):
                own = OPAQUE[integers, representation].format(index)
                assert answer.headers["etag"] == f'"{own}"', said
                assert answer.headers["vary"] == "accept", said
