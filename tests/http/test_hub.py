"""Which connection is evicted, and the common bounds of all connections.

``test_deadlines`` covers the deadlines of one connection, ``test_any_order`` events in any order.
"""

import itertools
import json
from typing import Any, Final

import pytest

from tests.support.connections import Connection, Loop
from tests.support.corpus import key, request
from tests.support.served import LONG, Service, answer, statuses
from tests.support.wire import HALF, READ, STEP
from web.http import hub
from web.http.hub import (
    GRACE_SECONDS,
    LEAST_RATE,
    MAX_KEPT,
    MAX_PARTS,
    PATIENCE_SECONDS,
    SWEEP_SECONDS,
)
from web.http.parser import MAX_BODY, MAX_HEAD
from web.http.routing import ELSEWHERE

PREVIOUS = READ.replace(b"current", b"previous")

# Eviction


def full(loop: Loop, **settings: Any) -> Service:
    return Service(loop, LONG, max_connections=2, send_timeout=600.0, **settings)


def test_the_longest_idle_connection_is_evicted(loop: Loop) -> None:
    served = full(loop)
    first, second = served.client(READ), served.client(READ)
    loop.pass_time(1)
    first.send(READ)
    loop.settle()
    third = served.client(READ)
    assert (first.lost, second.lost) == (False, True)
    loop.pass_time(0.1)
    served.client(READ)
    assert (first.lost, third.lost) == (True, False)
    assert served.service.admission.shed["connections"] == 0


def test_a_connection_used_since_the_last_scan_is_not_evicted(loop: Loop) -> None:
    served = Service(loop, max_connections=3)
    first, second, third = (served.client(READ) for _ in range(3))
    loop.pass_time(1)
    served.client(HALF)
    assert [each.lost for each in (first, second, third)] == [True, False, False]
    second.send(READ)
    loop.settle()
    served.client(HALF)
    assert [each.lost for each in (second, third)] == [False, True]


def test_a_silent_connection_is_idle_since_it_was_opened(loop: Loop) -> None:
    served = full(loop)
    silent = served.client()
    loop.pass_time(1)
    asked = served.client(READ)
    loop.pass_time(0.4)
    newcomer = served.client()
    assert (silent.lost, asked.lost) == (True, False)
    loop.pass_time(1)
    served.client()
    assert (asked.lost, newcomer.lost) == (True, False)
    newcomer.send(READ)
    loop.settle()
    assert statuses(newcomer) == [200]


KINDS: Final[dict[str, tuple[bytes, int | None]]] = {
    "closing": (b"rubbish\r\n\r\n", None),
    "idle": (READ, None),
    "arriving": (HALF, None),
    "slow": (READ, 10),
}
"""The bytes that a client sends, and how many it reads; of two, the first listed is evicted."""


@pytest.mark.parametrize(("first", "second"), [*itertools.pairwise(KINDS)])
def test_idle_connections_are_evicted_before_busy_ones(loop: Loop, first: str, second: str) -> None:
    served = full(loop)
    later, sooner = (served.client(KINDS[kind][0], room=KINDS[kind][1]) for kind in (second, first))
    loop.pass_time(PATIENCE_SECONDS if second == "slow" else SWEEP_SECONDS)
    served.client(READ)
    assert (sooner.lost, later.lost) == (True, False)


def test_the_slot_of_an_evicted_connection_is_given_once(loop: Loop) -> None:
    served = full(loop, blocking=True)
    served.client(STEP)
    idle = served.client()
    loop.pass_time(1)
    # In one turn of the loop.
    first = served.connect()
    first.protocol.data_received(STEP)
    second = served.connect()
    loop.settle()
    assert (idle.lost, first.closed) == (True, False)
    assert statuses(second) == [503]


@pytest.mark.parametrize("less", [0, 1])
def test_a_client_at_the_least_rate_is_not_evicted(loop: Loop, less: int) -> None:
    served = Service(loop, LONG, max_connections=1, send_timeout=600.0)
    client = served.client(READ, room=10)
    loop.pass_time(PATIENCE_SECONDS + SWEEP_SECONDS)
    client.take(int(LEAST_RATE * (PATIENCE_SECONDS + SWEEP_SECONDS)) - less)
    loop.settle()
    assert statuses(served.client(READ)) == [200 if less else 503]
    assert client.lost == bool(less)


def test_a_connection_being_answered_is_not_evicted(loop: Loop) -> None:
    served = full(loop, blocking=True)
    waiting = [served.client(STEP) for _ in range(2)]
    turned_away = served.client(READ)
    shed = answer(turned_away)
    assert (shed.status, shed.field(b"retry-after")) == (503, b"1")
    assert shed.field(b"content-type") == b"application/problem+json"
    assert shed.field(b"connection") == b"close"
    assert b"at its limit of connections" in shed.body
    assert turned_away.closed
    assert served.service.admission.shed["connections"] == 1
    assert served.service.accepted == 3
    assert len(served.service.connections) == 2
    assert served.service.answered[ELSEWHERE][503] == 1
    served.commit()
    assert [statuses(each) for each in waiting] == [[200], [200]]


def test_a_slow_reader_of_a_long_number_is_evicted_in_time(loop: Loop) -> None:
    """By then it has had enough time to read its answer."""
    served = full(loop)
    slow, quick = (served.client(READ, room=10) for _ in range(2))
    assert statuses(served.client(READ)) == [503]
    for _ in range(int(PATIENCE_SECONDS / SWEEP_SECONDS)):
        slow.take(int(LEAST_RATE * SWEEP_SECONDS * 0.9))
        quick.take(int(LEAST_RATE * SWEEP_SECONDS * 1.2))
        loop.pass_time(SWEEP_SECONDS)
    loop.pass_time(SWEEP_SECONDS)
    quick.take(LEAST_RATE)
    loop.settle()
    newcomer = served.client(READ)
    assert (slow.lost, quick.lost) == (True, False)
    assert newcomer.sent.startswith(b"HTTP/1.1 200 OK")


def test_slow_readers_that_were_never_evicted_would_shut_all_out(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub.Hub, "_make_room", lambda _: False)
    served = full(loop)
    for _ in range(2):
        served.client(READ, room=10)
    loop.pass_time(10 * PATIENCE_SECONDS)
    assert statuses(served.client(READ)) == [503]


def test_clients_that_leave_before_their_eviction_shut_no_newcomer_out(loop: Loop) -> None:
    """Each client leaves before its eviction, and reconnects."""
    served = full(loop)
    unread = [served.client(READ, room=10) for _ in range(2)]
    loop.pass_time(GRACE_SECONDS)
    assert statuses(served.client(READ)) == [503]
    loop.pass_time(0.1)
    newcomer = served.client(READ)
    assert newcomer.sent.startswith(b"HTTP/1.1 200 OK")
    assert sorted(each.lost for each in unread) == [False, True]


def test_newcomers_are_evicted_last(loop: Loop) -> None:
    """It has not had time to send a request, and a crowd keeps coming."""
    served = full(loop)
    unread, came = served.client(READ, room=10), served.client()
    loop.pass_time(GRACE_SECONDS + 0.1)
    came.reset()
    loop.settle()
    came, newcomer = served.client(), served.client(READ)
    assert (unread.lost, came.lost) == (True, False)
    assert newcomer.sent.startswith(b"HTTP/1.1 200 OK")


def test_each_of_many_newcomers_scans_few_candidates(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "FEW", 2)
    served = Service(loop, max_connections=6, blocking=True)
    busy = [served.client(STEP) for _ in range(3)]
    ranked: list[Connection] = []
    for each in busy:
        monkeypatch.setattr(each.protocol, "eviction_rank", lambda each=each: ranked.append(each))
    looked_at = [served.client(HALF) for _ in range(3)]
    loop.pass_time(1)
    # The first scan covers all connections; its candidates are used up before the next scan.
    for count in range(3):
        served.client(STEP)
        assert [each.lost for each in looked_at] == [index <= count for index in range(3)]
    assert ranked == busy
    # Now there is no candidate left, and each scan covers two connections.
    assert statuses(served.client()) == [503]
    assert ranked == busy + busy[:2]
    assert statuses(served.client()) == [503]
    assert ranked == busy + busy[:2] + busy[2:]


def test_the_pace_of_a_client_is_measured_from_its_answer(loop: Loop) -> None:
    served = full(loop, receive_timeout=600.0)
    early = [served.client() for _ in range(2)]
    loop.pass_time(100)
    for each in early:
        each.room = 10
        each.send(READ)
    loop.settle()
    assert statuses(served.client()) == [503]
    assert not any(each.lost for each in early)


# Common bounds


def test_past_the_bound_on_waiting_steps_a_step_is_503_and_a_read_is_200(loop: Loop) -> None:
    served = Service(loop, max_waiting_steps=2, blocking=True)
    waiting = [served.client(STEP) for _ in range(2)]
    for step in (STEP, STEP[:-2] + b"Connection: close\r\n\r\n"):
        shed = answer(served.client(step))
        assert (shed.status, shed.field(b"retry-after"), shed.index) == (503, b"1", 0)
        assert b"2 steps already wait for the disk" in shed.body
    assert answer(served.client(READ)).body == b'{"current": 0}'
    served.commit()
    assert [statuses(each) for each in waiting] == [[200], [200]]


def test_past_the_bound_on_bytes_in_flight_a_new_number_is_503(loop: Loop) -> None:
    """A number that an answer in flight already holds is sent."""
    served = Service(loop, LONG, max_answer_bytes=2 * 626_964 + 1_000)
    first = served.client(READ, room=10)
    assert statuses(served.client(STEP)) == [200]
    served.client(READ, room=10)
    shed = answer(served.client(STEP))
    assert (shed.status, shed.field(b"retry-after"), shed.index) == (503, b"1", LONG + 1)
    assert b"use all the memory" in shed.body
    assert statuses(served.client(READ)) == statuses(served.client(PREVIOUS)) == [200]
    # An answer that was read no longer counts, though its connection stays open.
    first.take()
    loop.settle()
    assert statuses(served.client(STEP)) == [200]
    assert not first.closed


def test_a_503_for_a_key_reports_that_its_step_was_made(loop: Loop) -> None:
    served = Service(loop, 30_000)
    keyed = request("POST /next", key("a", since=30_000))
    assert answer(served.client(keyed)).index == 30_001
    served.hub.budget.limit = 10_000
    made = answer(served.client(keyed))
    assert made.status == 503
    assert json.loads(made.body)["detail"] == (
        "The step for this Idempotency-Key was made earlier and led to index 30001, but its number "
        "can't be sent: 37620 bytes are needed, and FIB_MAX_ANSWER_BYTES is 10000. No other step "
        "was made. Retrying does not help until the limit is raised."
    )
    served.hub.budget.limit = 1_000
    new = answer(served.client(request("POST /next", key("b", since=30_000))))
    assert b"This request has not stepped. Retrying does not help" in new.body
    assert new.field(b"retry-after") is None
    assert served.store.index == 30_001


@pytest.mark.parametrize("last", [b"\r\n", b"Connection: close\r\n\r\n"])
def test_a_number_for_a_client_that_left_is_not_in_flight(loop: Loop, last: bytes) -> None:
    served = Service(loop, LONG, blocking=True)
    gone = served.client(STEP[:-2] + last)
    gone.reset()
    loop.settle()
    served.commit()
    assert (served.store.index, served.hub.budget.used) == (LONG + 1, 0)


def test_the_bounds_on_parts_and_pipelined_bytes_fit_the_memory() -> None:
    """Together a sixteenth of the memory; each at least fifty times the largest request."""
    largest = MAX_HEAD + MAX_BODY
    assert 50 * largest < min(MAX_KEPT, MAX_PARTS)
    # A partial request takes up to four times its size.
    assert 4 * MAX_PARTS + MAX_KEPT <= 320 * 2**20 / 16


def test_past_the_bound_on_parts_the_oldest_are_evicted(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only incomplete requests count."""
    monkeypatch.setattr(hub, "MAX_PARTS", 3 * len(HALF))
    served = Service(loop)
    idle = served.client(READ)
    halves = [served.client(HALF) for _ in range(3)]
    assert served.hub.parts == 3 * len(HALF)
    fourth = served.client(b"G")
    assert [each.lost for each in (idle, *halves, fourth)] == [False, True, False, False, False]
    assert served.hub.parts == 2 * len(HALF) + 1
    # A completed request no longer counts; one that arrives at once never did.
    halves[1].send(b"\r\n")
    loop.settle()
    assert statuses(halves[1]) == [200]
    assert served.hub.parts == len(HALF) + 1
    assert statuses(served.client(STEP)) == [200]
    # One that grows is counted once.
    fourth.send(*(bytes([byte]) for byte in HALF[1:]))
    loop.settle()
    assert served.hub.parts == 2 * len(HALF)
    halves[2].reset()
    loop.settle()
    assert served.hub.parts == len(HALF)


def test_unread_pipelined_requests_stay_with_the_client(loop: Loop) -> None:
    served = Service(loop, blocking=True)
    client = served.client()
    for _ in range(2):
        client.send(STEP, READ, READ, READ)
        loop.settle()
        assert served.hub.kept == len(READ)
        assert client.arriving == 2 * len(READ)
        served.store.finish()
        loop.settle()
    assert statuses(client) == [200] * 8
