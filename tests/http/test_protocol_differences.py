"""Each difference between the protocol and uvicorn's own: both sides, and the RFC that decides."""

import re
from collections.abc import Iterator
from typing import Final

import pytest

from tests.support.connections import Loop
from tests.support.corpus import CHUNKED, HOST, STEP, UPGRADE, length, request
from tests.support.differences import DIFFERENCES, Difference
from tests.support.exchange import exchange
from tests.support.in_process import PLAIN_APPLICATION, PROTOCOL
from tests.support.parsing import parse
from web.http.answers import Header
from web.http.connection import Connection
from web.http.heads import Heads, RequestLine
from web.http.parser import Parser
from web.http.turns import AT_ONCE

RUBBISH = b"rubbish\r\n\r\n"


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.mark.processes
@pytest.mark.parametrize("difference", DIFFERENCES, ids=str)
def test_each_difference_from_uvicorn_is_required_by_http(
    loop: Loop, difference: Difference
) -> None:
    ours, uvicorns = (
        exchange(loop, implementation, [difference.shown_by], ends=difference.ends).outline
        for implementation in (PROTOCOL, PLAIN_APPLICATION)
    )
    assert (ours, uvicorns) == (difference.ours, difference.uvicorns)
    assert ours != uvicorns
    assert re.fullmatch(r"RFC \d+, [\dC][\d.]*", difference.wanted_by)


@pytest.mark.parametrize("difference", DIFFERENCES, ids=str)
def test_the_example_of_a_difference_is_recognized(difference: Difference) -> None:
    assert difference.ends or difference.concerns(parse(difference.shown_by))
    assert not difference.concerns(parse(STEP * 3))


def test_the_names_of_differences_are_unique() -> None:
    assert len({str(each) for each in DIFFERENCES}) == len(DIFFERENCES)


# Controls: a parser that trusted httptools, and a careless connection


class Credulous(Parser):
    """It takes an offered upgrade for the end of the request, as httptools does."""

    def _decline_upgrade(self) -> None: ...


class Merging(Parser):
    """Trailers count like fields of the head."""

    def __init__(self, heads: Heads) -> None:
        self.heads = heads
        super().__init__(heads)

    def begin(self) -> None:
        super().begin()
        self.fields: list[Header] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self.fields.append((name.lower(), value))
        if self.head is not None:
            said = RequestLine(self.head.method, self.head.target, self.head.version)
            line = repr(said).encode() + b" HTTP/1.1"
            self.head = self.heads.read(line, self.fields, self.head.keep_alive, lambda: said)


def difference(name: str) -> bytes:
    (found,) = (each.shown_by for each in DIFFERENCES if each.name.startswith(name))
    return found


def test_an_upgrade_taken_for_the_end_would_step_without_a_body(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.http.protocol.Parser", Credulous)
    assert outline(loop, difference("a step waits for its body")) == "200; 1 step; open"


def test_trailers_taken_for_headers_would_change_the_request(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.http.protocol.Parser", Merging)
    assert outline(loop, difference("trailers")) == "412; 0 steps; open"


# Differences of form, which no sent bytes show.


# Bounds, to the byte.


def outline(loop: Loop, data: bytes) -> str:
    return exchange(loop, PROTOCOL, [data]).outline


def test_requests_pipelined_past_the_bound_are_not_answered(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is anything after them."""
    monkeypatch.setattr("web.http.hub.MAX_KEPT", 10)
    monkeypatch.setattr("web.http.hub.ALWAYS_KEPT", 10)
    read = request("GET /current")
    at_once = ", ".join(["200"] * AT_ONCE)
    body = request("POST /next", length(STEP), body=STEP)
    for pieces, outline in (
        ([read * AT_ONCE], f"{at_once}; 0 steps; open"),
        ([read * AT_ONCE + body[:-5], body[-5:] + STEP], f"{at_once}; 0 steps; closed"),
        ([STEP + body[:-5], body[-5:] + STEP], "200; 1 step; closed"),
    ):
        assert exchange(loop, PROTOCOL, pieces).outline == outline


# 100 Continue


def statuses_after(loop: Loop, *pieces: bytes) -> list[str]:
    """The statuses after each piece."""
    return [
        exchange(loop, PROTOCOL, pieces[:count], patient=True).outline.partition(";")[0]
        for count in range(1, len(pieces) + 1)
    ]


def test_100_continue_is_sent_once_and_in_order(loop: Loop) -> None:
    waits = request("POST /next", "Content-Length: 2", "Expect: 100-continue")
    assert statuses_after(loop, waits, b"a", b"b") == ["100", "100", "100, 200"]
    assert statuses_after(loop, waits + b"a", b"b") == ["100", "100, 200"]
    assert statuses_after(loop, STEP + waits, b"ab" + waits) == ["200, 100", "200, 100, 200, 100"]
    chunked = request("POST /next", CHUNKED, "Expect: 100-continue")
    assert statuses_after(loop, chunked, b"0\r\n\r\n") == ["100", "100, 200"]


@pytest.mark.parametrize("offer", [(), UPGRADE], ids=["none", "upgrade"])
def test_100_is_sent_only_in_http_1_1(loop: Loop, offer: tuple[str, ...]) -> None:
    """An offered upgrade changes nothing."""
    waits = ("Content-Length: 5", "Expect: 100-continue")
    newer, older = (
        request(f"POST /next HTTP/{version}", *offer, *waits) for version in ("1.1", "1.0")
    )
    assert statuses_after(loop, newer, b"12345") == ["100", "100, 200"]
    assert statuses_after(loop, older, b"12345") == ["nothing", "200"]


# Offers of another protocol, in every combination


def upgrade(*fields: str, body: bytes = b"", line: str = "POST /next", host: str = HOST) -> bytes:
    return request(line, *UPGRADE, *fields, host=host, body=body)


BESIDE_UPGRADE: Final = {
    "nothing": (upgrade(), "200; 1 step; open"),
    "a body": (upgrade("Content-Length: 5", body=b"12345"), "200; 1 step; open"),
    "a body that is not whole": (
        upgrade("Content-Length: 5", body=b"1234"),
        "nothing; 0 steps; open",
    ),
    "a body in chunks": (upgrade(CHUNKED, body=b"5\r\n12345\r\n0\r\n\r\n"), "200; 1 step; open"),
    "chunks without an end": (upgrade(CHUNKED, body=b"5\r\n12345\r\n"), "nothing; 0 steps; open"),
    "chunks that are none": (upgrade(CHUNKED, body=b"x\r\n"), "400; 0 steps; closed"),
    "a step in chunks": (
        upgrade(CHUNKED, body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(STEP), STEP)),
        "200; 1 step; open",
    ),
    "steps as its body, and more behind it": (
        upgrade(length(STEP * 2), body=STEP * 2) + STEP + request("GET /current"),
        "200, 200, 200; 2 steps; open",
    ),
    "a length that is none": (upgrade("Content-Length: 5x"), "400; 0 steps; closed"),
    "a length and chunks": (upgrade("Content-Length: 5", CHUNKED), "400; 0 steps; closed"),
    "a condition that holds": (upgrade('If-Match: "5"'), "200; 1 step; open"),
    "one that does not": (upgrade('If-Match: "x"'), "412; 0 steps; open"),
    "a prefetch": (upgrade("Sec-Purpose: prefetch"), "503; 0 steps; open"),
    "a method that is not taken": (upgrade(line="PUT /next"), "405; 0 steps; open"),
    "the end of the connection": (upgrade("Connection: close") + STEP, "200; 1 step; closed"),
    "what is no host": (upgrade(host="Host: x/y"), "400; 0 steps; closed"),
    "an older version": (upgrade(line="POST /next HTTP/1.0") + STEP, "200; 1 step; closed"),
    "a request, and rubbish": (upgrade() + STEP + RUBBISH, "200, 200, 400; 2 steps; closed"),
}
"""The bytes that are sent, and the outline of the outcome."""


@pytest.mark.parametrize(("sent", "outline"), BESIDE_UPGRADE.values(), ids=BESIDE_UPGRADE)
def test_an_offered_upgrade_is_ignored(loop: Loop, sent: bytes, outline: str) -> None:
    for pieces in ([sent], [sent[at : at + 1] for at in range(len(sent))]):
        assert exchange(loop, PROTOCOL, pieces).outline == outline


# Half-closed


@pytest.mark.parametrize(
    ("data", "outline"),
    [
        (b"", "nothing; 0 steps; closed"),
        (STEP[:-1], "nothing; 0 steps; closed"),
        (STEP * 50, ", ".join(["200"] * 50) + "; 50 steps; closed"),
        (STEP + STEP[:-1], "200; 1 step; closed"),
        (request("POST /next", "Content-Length: 1"), "nothing; 0 steps; closed"),
        (STEP + request("GET /nowhere") + STEP, "200, 404, 200; 2 steps; closed"),
        (STEP + RUBBISH, "200, 400; 1 step; closed"),
        (request("GET /next", "Connection: close") + STEP, "200; 1 step; closed"),
    ],
)
def test_a_client_that_half_closes_gets_its_answers(loop: Loop, data: bytes, outline: str) -> None:
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        for patient in (False, True):
            assert exchange(loop, PROTOCOL, pieces, patient=patient, ends=True).outline == outline


def test_a_half_close_taken_for_the_end_would_lose_the_answers(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "eof_received", lambda _: False)
    told = exchange(loop, PROTOCOL, [STEP], ends=True).outline
    assert told == "nothing; 1 step; closed"
