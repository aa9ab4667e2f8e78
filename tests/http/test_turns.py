"""A turn of the event loop is bounded in time, over all connections together.

The clock that bounds a turn is simulated: it stands still, or leaves no turn time for more.
"""

import asyncio
import os
from contextlib import closing

import pytest

from fibcore.appliance.heartbeat import BEAT_SECONDS, Beat, Heartbeat, beat_of
from tests.support.connections import Connection, Loop
from tests.support.served import Service, statuses
from tests.support.wire import HALF, READ, STEP
from web.http import hub, turns
from web.http.answers import PlainAnswer
from web.http.rendering import RENDERED_SECONDS, Renderings
from web.http.turns import AT_ONCE
from web.service import Service as Offered


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No turn has time for more than its first request."""
    monkeypatch.setattr(turns, "UNTIMED", 1)
    monkeypatch.setattr(turns, "TURN_SECONDS", -1.0)


def crowd(served: Service, count: int, data: bytes) -> list[Connection]:
    """This many clients, whose ``data`` is delivered in one turn of the loop."""
    clients = [served.connect() for _ in range(count)]
    for each in clients:
        each.protocol.data_received(data)
    return clients


def turn(loop: Loop) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


@pytest.mark.usefixtures("hurried")
def test_requests_past_the_time_of_a_turn_wait_for_the_next(loop: Loop) -> None:
    served = Service(loop)
    clients = crowd(served, 20, READ)
    answered: list[int] = []
    while sum(answered[-1:]) < 20:
        turn(loop)
        answered.append(sum(statuses(each) == [200] for each in clients))
        # In the order of their requests.
        answered_at = [bool(each.sent) for each in clients]
        assert answered_at == sorted(bool(e.sent) for e in clients)[::-1]
    assert len(answered) >= 10


def test_a_turn_with_time_left_defers_nobody(loop: Loop) -> None:
    served = Service(loop)
    served.hub.turns.left = 10_000
    assert all(statuses(each) == [200] for each in crowd(served, 100, READ))


@pytest.mark.usefixtures("hurried")
def test_a_newcomer_waits_for_one_round_of_the_others(loop: Loop) -> None:
    """However much each of them has sent."""
    served = Service(loop)
    clients = crowd(served, 8, READ * 100)
    newcomer = served.connect()
    newcomer.protocol.data_received(READ)
    while not newcomer.sent:
        turn(loop)
    assert all(len(statuses(each)) <= 3 * AT_ONCE for each in clients)
    loop.settle()
    assert [len(statuses(each)) for each in clients] == [100] * 8


@pytest.mark.usefixtures("hurried")
def test_an_error_closes_its_connection_and_the_others_continue(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    served = Service(loop)
    *_, broken, other = crowd(served, 5, HALF)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(broken.protocol, "_take", fail)
    other.send(b"\r\n")
    loop.settle()
    assert "Unexpected error on a connection; it is closed." in caplog.text
    assert (broken.lost, statuses(other)) == (True, [200])
    assert served.hub.kept == 0


@pytest.mark.parametrize("last", [READ, STEP], ids=["answered at once", "answered later"])
def test_a_deferred_connection_is_read_from_again(loop: Loop, last: bytes) -> None:
    served = Service(loop)
    # The last turn has only one request; the bytes waiting before it stop the reading.
    pipelined = READ * AT_ONCE * 10
    assert len(pipelined) > hub.ALWAYS_KEPT + len(READ) * AT_ONCE
    client = served.client(READ, READ, pipelined + last)
    assert len(statuses(client)) == 2 + AT_ONCE * 10 + 1
    client.send(READ)
    loop.settle()
    assert len(statuses(client)) == 2 + AT_ONCE * 10 + 2


# Deferred requests


def waits(loop: Loop, data: bytes) -> tuple[Service, Connection]:
    """A client whose request is deferred, behind those of others."""
    served = Service(loop)
    _, client = crowd(served, 2, READ)[0], served.connect()
    for _ in range(3):
        served.connect().protocol.data_received(READ)
    client.protocol.data_received(data)
    assert not client.sent
    return served, client


@pytest.mark.usefixtures("hurried")
def test_a_stop_answers_a_deferred_request(loop: Loop) -> None:
    served, client = waits(loop, STEP + STEP)
    served.stop()
    loop.settle()
    assert statuses(client) == [200]
    assert client.closed
    assert served.store.index == 1


@pytest.mark.usefixtures("hurried")
def test_a_stop_answers_a_deferred_request_for_a_number(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, client = waits(loop, b"GET /numbers/100001 HTTP/1.1\r\nHost: x\r\n\r\n")

    async def never(_: int) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(served.service.lookup._worker, "compute", never)
    served.stop()
    loop.pass_time(served.service.settings.stop_timeout / 2 + hub.SWEEP_SECONDS)
    assert statuses(client) == [503]


@pytest.mark.usefixtures("hurried")
def test_a_stop_closes_a_deferred_incomplete_request(loop: Loop) -> None:
    served, client = waits(loop, HALF)
    served.stop()
    loop.settle()
    assert (client.sent, client.closed) == (b"", True)


@pytest.mark.usefixtures("hurried")
def test_a_deferred_request_is_neither_late_nor_evicted(loop: Loop) -> None:
    served, client = waits(loop, READ)
    assert client.protocol.eviction_rank() is None  # type: ignore[attr-defined]
    served.hub.now += 3600
    client.protocol.check_deadline()  # type: ignore[attr-defined]
    loop.settle()
    assert statuses(client) == [200]


@pytest.mark.usefixtures("hurried")
def test_a_short_request_is_kept_whatever_the_crowd_has_sent(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the bound, the connections that sent much are closed."""
    monkeypatch.setattr(hub, "MAX_KEPT", 10_000)
    served = Service(loop)
    greedy = crowd(served, 20, READ * 100)
    modest = served.connect()
    modest.protocol.data_received(READ)
    assert served.hub.kept <= 10_000 + 20 * hub.ALWAYS_KEPT
    loop.settle()
    assert statuses(modest) == [200]
    assert {len(statuses(each)) for each in greedy} > {100}


# Bytes that arrive on a closing connection


def test_the_bytes_dropped_from_a_closing_connection_are_bounded(loop: Loop) -> None:
    served = Service(loop)
    client = served.client(b"rubbish\r\n\r\n")
    piece = bytes(65_536)
    client.send(*[piece] * 100)
    loop.settle()
    assert 0 < 100 * len(piece) - client.arriving <= hub.MAX_DROPPED + len(piece)
    loop.pass_time(2.0)
    assert client.lost


def test_a_client_without_a_slot_is_read_from_until_it_has_its_503(loop: Loop) -> None:
    served = Service(loop, max_connections=1, blocking=True)
    served.client(STEP)
    away = served.client(READ)
    assert statuses(away) == [503]
    # With unread bytes, the kernel would reset the connection, and the 503 would be lost.
    assert (away.arriving, away.closed, away.lost) == (0, True, False)
    away.end()
    loop.settle()
    assert away.lost
    silent = served.client()
    assert not silent.lost
    loop.pass_time(2.0)
    assert silent.lost


def test_connections_that_linger_after_their_503_are_bounded(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MAX_TURNED_AWAY", 2)
    served = Service(loop, max_connections=1, blocking=True)
    served.client(STEP)
    away = [served.client(READ) for _ in range(4)]
    assert [statuses(each) for each in away] == [[503]] * 4
    assert [each.lost for each in away] == [True, True, False, False]
    assert len(served.service.connections) == 1


# The heartbeat of a turn


def test_a_turn_beats_every_quarter_of_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("fibcore.appliance.heartbeat.time.monotonic", lambda: now)
    with closing(Heartbeat(lambda: 2.0)) as heartbeat:
        for number in (1, 2, 3):
            for _ in range(100):
                heartbeat.turned()
            assert beat_of(os.getpid()) == Beat(number, 2.0)
            now += BEAT_SECONDS


@pytest.mark.usefixtures("hurried")
def test_the_turns_of_a_flood_count_even_if_no_timer_runs(loop: Loop) -> None:
    served = Service(loop)
    made = 0

    def count() -> None:
        nonlocal made
        made += 1

    served.hub.turns.made = count
    crowd(served, 50, READ)
    for _ in range(10):
        turn(loop)
    assert made == 10


@pytest.mark.usefixtures("hurried")
def test_one_request_is_not_a_turn_however_long_it_takes(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test before: an endless loop must be noticed."""
    served = Service(loop)
    made = []
    served.hub.turns.made = lambda: made.append("a turn")

    def takes_long(_: object) -> None:
        made.append("begun")
        for _ in range(10_000):
            served.hub.turns.has_time(loop)
        made.append("done")

    monkeypatch.setattr(Offered, "reason", property(takes_long))
    crowd(served, 2, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    loop.settle()
    assert made[:2] == ["begun", "done"]
    assert "a turn" in made


# Costly answers


def test_a_costly_answer_is_rendered_every_quarter_of_a_second() -> None:
    now = [10.0]
    made: list[str] = []

    def make(form: str) -> PlainAnswer:
        made.append(form)
        return PlainAnswer(200, ())

    renderings = Renderings(lambda: now[0])
    for _ in range(3):
        for _ in range(1000):
            one = renderings.answer("a", lambda: make("a"))
            assert renderings.answer("a", lambda: make("a")) is one
            assert renderings.answer("b", lambda: make("b")) is not one
        now[0] += RENDERED_SECONDS
    assert made == ["a", "b"] * 3


@pytest.mark.parametrize("path", ["/status", "/metrics"])
def test_requests_at_the_same_moment_share_a_rendering(
    loop: Loop, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Service(loop)
    now = [10.0]
    monkeypatch.setattr(served.service.renderings, "clock", lambda: now[0])
    asked = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode()
    first, second = served.client(asked), served.client(STEP, asked)
    assert second.sent.endswith(first.sent)
    now[0] += RENDERED_SECONDS
    assert not second.sent.endswith(served.client(asked).sent)


def test_all_versions_share_a_rendering(loop: Loop) -> None:
    served = Service(loop)
    for version in ("1.0.0", "1.0.1", "2", "99.1", "0.0.4", "x", ""):
        for kind in ("text/plain", "application/openmetrics-text"):
            for escaping in ("", ";escaping=dots", ";escaping=allow-utf-8"):
                accept = f"Accept: {kind};version={version}{escaping}".encode()
                client = served.client(b"GET /metrics HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % accept)
                assert statuses(client) == [200]
    assert len(served.service.renderings._made) == 3
