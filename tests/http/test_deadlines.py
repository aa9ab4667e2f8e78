"""When a connection is closed: its client is late, slow or invalid, or the server stops.

Time is simulated; every moment is exact, except for the sweep, twice a second.
"""

import asyncio
import logging
import math

import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fibcore.admission import SHED_AT_ONCE
from fibcore.numbers.queue import NumberQueue
from tests.support.connections import Connection, Loop
from tests.support.served import LONG, Service, answer, statuses
from tests.support.wire import HALF, HOST, READ, STEP
from web.http import hub
from web.http.hub import IDLE_SECONDS, SWEEP_SECONDS
from web.http.protocol import Protocol

ASKED = [100_001, 100_002, 100_002]
"""Indexes of numbers that the worker computes."""

BODY = b"POST /next HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1234"
UPGRADE = b"POST /next HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
CHUNK = b"POST /next HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n"

LATE = 2 * SWEEP_SECONDS
"""The tolerance of a deadline: the time between two sweeps, at either end."""


def assert_closed_after(loop: Loop, seconds: float, client: Connection) -> None:
    """Let the time pass after which it must be closed."""
    loop.pass_time(seconds - 0.01)
    assert not client.closed, "too early"
    loop.pass_time(0.01 + LATE)
    assert client.lost, "too late"


@pytest.mark.parametrize("said", [b"", HALF, STEP[:1], BODY, CHUNK])
def test_an_incomplete_request_is_closed_at_its_deadline(loop: Loop, said: bytes) -> None:
    served = Service(loop, receive_timeout=3.0)
    client = served.client(said)
    assert_closed_after(loop, 3.0, client)
    assert client.sent == b""
    assert served.store.index == 0


def test_more_bytes_do_not_extend_the_deadline_of_a_request(loop: Loop) -> None:
    served = Service(loop, receive_timeout=3.0)
    client = served.client(HALF)
    for _ in range(29):
        loop.pass_time(0.1)
        client.send(b"a: b\r\n")
    assert not client.closed
    loop.pass_time(0.1 + LATE)
    assert client.lost


def test_only_idle_connections_are_closed(loop: Loop) -> None:
    served = Service(loop)
    client = served.client(STEP)
    for _ in range(3):
        loop.pass_time(IDLE_SECONDS - 0.1)
        client.send(STEP)
        loop.settle()
    assert statuses(client) == [200] * 4
    assert_closed_after(loop, IDLE_SECONDS, client)


def test_a_later_request_has_its_own_deadline(loop: Loop) -> None:
    served = Service(loop, receive_timeout=3.0)
    client = served.client(STEP)
    loop.pass_time(IDLE_SECONDS - 1)
    client.send(HALF)
    loop.settle()
    # The clock is that of the last sweep.
    assert_closed_after(loop, 3.0 - SWEEP_SECONDS, client)


def test_after_a_long_answer_the_idle_time_starts_anew(loop: Loop) -> None:
    served = Service(loop, LONG, receive_timeout=3.0)
    client = served.client(READ, room=10)
    loop.pass_time(8)
    client.take()
    assert_closed_after(loop, IDLE_SECONDS, client)


def test_a_step_that_waits_has_no_deadline(loop: Loop) -> None:
    served = Service(loop, blocking=True)
    client = served.client(STEP)
    loop.pass_time(3600)
    assert not client.closed
    served.commit()
    assert statuses(client) == [200]


def test_a_client_that_reads_nothing_of_its_answer_is_closed(loop: Loop) -> None:
    """A client that reads some of it gets more time."""
    served = Service(loop, LONG, send_timeout=3.0)
    none, some = served.client(READ, room=10), served.client(READ, room=10)
    loop.pass_time(2.9)
    some.take(1)
    loop.settle()
    assert not none.lost
    loop.pass_time(0.1 + LATE)
    assert none.lost
    assert not some.lost
    loop.pass_time(2.0)
    assert not some.lost
    loop.pass_time(1.0 + LATE)
    assert some.lost
    assert served.hub.budget.used == 0


def all_clients_are_served_after_the_server_stood_still(loop: Loop) -> bool:
    """A server is paused (with its container, or by Ctrl-Z) while its clients continue."""
    served = Service(loop, LONG, receive_timeout=3.0, send_timeout=3.0)
    idle, half, reader = served.client(READ), served.client(HALF), served.client(READ, room=10)
    asked_before = len(statuses(idle))
    loop.now += 3600
    # Timers run first; data that has arrived meanwhile is read after them.
    loop.settle()
    for client, rest in (idle, STEP), (half, b"\r\n"):
        client.send(rest)
    reader.take()
    loop.settle()
    return [statuses(idle)[asked_before:], statuses(half), reader.is_gone] == [[200], [200], False]


def test_pauses_of_the_server_do_not_count_against_clients(loop: Loop) -> None:
    assert all_clients_are_served_after_the_server_stood_still(loop)


def test_with_a_clock_that_continues_pauses_would_count(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "CHARGED_SECONDS", math.inf)
    assert not all_clients_are_served_after_the_server_stood_still(loop)


def test_an_error_at_a_deadline_affects_only_its_connection(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    served = Service(loop, receive_timeout=3.0)
    broken, other = served.client(HALF), served.client(HALF)

    def fail() -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(broken.protocol, "check_deadline", fail)
    with caplog.at_level(logging.ERROR):
        loop.pass_time(SWEEP_SECONDS)
    assert "A connection's deadline can't be checked; it is closed." in caplog.text
    assert broken.lost
    assert not other.lost
    assert_closed_after(loop, 3.0 - SWEEP_SECONDS, other)
    assert len(caplog.records) == 1
    assert not served.hub._open


def test_without_connections_the_hub_sweeps_nothing(loop: Loop) -> None:
    served = Service(loop)
    served.client(HALF).reset()
    loop.pass_time(10)
    assert served.hub._sweeping is None
    late = served.client()
    assert_closed_after(loop, 10.0, late)


# Their ends


def test_after_a_400_the_server_keeps_reading_for_a_second(loop: Loop) -> None:
    served = Service(loop)
    client = served.client(b"rubbish\r\n\r\n", b"more")
    assert statuses(client) == [400]
    assert client.closed
    for _ in range(9):
        client.send(b"and more")
        loop.pass_time(0.1)
        assert not client.lost
    loop.pass_time(0.1 + LATE)
    assert client.lost


def test_a_stop_closes_idle_connections_and_incomplete_requests(loop: Loop) -> None:
    """A client that reads fast enough gets the rest of its answer."""
    served = Service(loop, LONG, stop_timeout=10.0, send_timeout=600.0)
    beside = UPGRADE + b"Content-Length: 5\r\n\r\n1234", UPGRADE + CHUNK.partition(HOST)[2]
    idle = [served.client(each) for each in (READ, b"", HALF, BODY, CHUNK, *beside)]
    quick, slow, none = (served.client(READ, room=1000) for _ in range(3))
    loop.pass_time(SWEEP_SECONDS)
    served.stop()
    loop.settle()
    assert [each.lost for each in idle] == [True] * 7
    assert [each.lost for each in (quick, slow, none)] == [False] * 3
    # At these paces one has everything in 5 s, and the other in 20 s.
    for _ in range(10):
        quick.take(65_000)
        slow.take(16_000)
        loop.pass_time(SWEEP_SECONDS)
    assert [each.lost for each in (quick, slow, none)] == [True] * 3
    assert len(answer(quick).body) > 600_000
    assert quick.taken == quick.sent
    assert slow.is_gone
    assert served.store.index == LONG


def test_during_a_stop_the_pace_is_measured_from_its_start(loop: Loop) -> None:
    served = Service(loop, LONG, stop_timeout=10.0, send_timeout=600.0)
    before, after, late, tires = (served.client(READ, room=1000) for _ in range(4))
    before.take(600_000)
    loop.pass_time(100)
    served.stop()
    for count in range(14):
        after.take(65_000)
        late.take(100_000 if count > 0 else 0)
        tires.take(100_000 if count < 3 else 0)
        loop.pass_time(SWEEP_SECONDS)
    assert before.is_gone
    assert tires.is_gone
    for each in (after, late):
        assert len(answer(each).body) > 600_000
        assert each.taken == each.sent


def test_a_page_under_way_at_a_stop_is_the_last_answer(loop: Loop) -> None:
    served = Service(loop)
    may_answer = asyncio.Event()

    async def page(_scope: Scope, _receive: Receive, send: Send) -> None:
        await may_answer.wait()
        await Response()(_scope, _receive, send)

    served.config.loaded_app = page
    client = served.client(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + STEP)
    served.stop()
    may_answer.set()
    loop.settle()
    assert statuses(client) == [200]
    assert answer(client).field(b"connection") == b"close"
    assert client.closed
    assert served.store.index == 0


def test_an_answer_under_way_at_a_stop_is_the_last(loop: Loop) -> None:
    served = Service(loop, blocking=True)
    one, more = served.client(STEP), served.client(STEP + STEP)
    still_more = served.client(STEP + STEP, STEP)
    assert still_more.arriving == len(STEP)
    served.stop()
    assert served.hub.kept == 0
    loop.settle()
    assert still_more.arriving == 0
    served.commit()
    clients = (one, more, still_more)
    assert [statuses(each) for each in clients] == [[200]] * 3
    assert [answer(each).field(b"connection") for each in clients] == [b"close"] * 3
    assert [each.closed for each in clients] == [True] * 3
    # With unread bytes, the kernel would reset the connection.
    assert [each.lost for each in clients] == [True, False, False]
    loop.pass_time(1.0 + LATE)
    assert [each.lost for each in clients] == [True] * 3
    assert served.hub.kept == 0
    assert served.store.index == 3


@pytest.mark.parametrize("half_closed", [False, True])
@pytest.mark.parametrize("pipelined", [b"", STEP, READ + STEP, STEP + STEP[:20]])
def test_a_stop_answers_a_step_but_makes_none_pipelined_behind_it(
    loop: Loop, pipelined: bytes, half_closed: bool
) -> None:
    served = Service(loop, blocking=True)
    client = served.client(READ + STEP + pipelined)
    if half_closed:
        client.end()
    loop.settle()
    served.stop()
    served.commit()
    assert statuses(client) == [200, 200]
    assert client.sent.count(b"connection: close\r\n") == 1
    assert client.sent.endswith(b'{"next": 1}')
    assert (client.closed, served.store.index) == (True, 1)


def test_connections_that_ignored_a_stop_would_make_pipelined_steps(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Protocol, "shutdown", lambda _: None)
    served = Service(loop, blocking=True)
    pipelined, half = served.client(STEP + STEP), served.client(HALF)
    served.stop()
    served.commit()
    assert statuses(pipelined) == [200, 200]
    assert not half.closed


def test_a_stop_answers_the_steps_that_wait_for_their_503(loop: Loop) -> None:
    served = Service(loop, max_waiting_steps=1, blocking=True)
    steps = [served.client() for _ in range(6 * SHED_AT_ONCE)]
    for step in steps:
        step.send(STEP)
    loop.settle()
    assert any(not step.sent for step in steps[1:])
    served.stop()
    loop.pass_time(3)
    assert [statuses(step) for step in steps] == [[], *[[503]] * (len(steps) - 1)]
    served.commit()
    assert statuses(steps[0]) == [200]
    assert all(step.closed for step in steps)


def wait_in_vain(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """Clients that wait for numbers that are never computed, while the server stops."""
    served = Service(loop, stop_timeout=10.0)
    begun: list[int] = []

    async def never(index: int) -> bytes:
        begun.append(index)
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(served.service.lookup._worker, "compute", never)
    clients = [
        served.client(b"GET /numbers/%d HTTP/1.1\r\nHost: x\r\n\r\n" % each) for each in ASKED
    ]
    served.stop()
    loop.pass_time(4.9)
    assert [each.sent for each in clients] == [b""] * 3
    assert begun == ASKED[:1]
    return clients


def test_a_stop_leaves_time_to_answer_clients_that_wait_in_vain(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their number is not computed in that time."""
    clients = wait_in_vain(loop, monkeypatch)
    loop.pass_time(0.2)
    told = [answer(each) for each in clients]
    assert [(each.status, each.field(b"retry-after")) for each in told] == [(503, b"1")] * 3
    assert all(b"the server is stopping" in each.body for each in told)
    assert [each.lost for each in clients] == [True] * 3


def test_without_stopping_the_queue_waiting_clients_would_get_no_answer(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NumberQueue, "stop", lambda *_: None)
    clients = wait_in_vain(loop, monkeypatch)
    loop.pass_time(5.0)
    assert [each.sent for each in clients] == [b""] * 3
