"""A connection's share of the budget for bytes in the kernel: it grows, shrinks, and ends."""

import asyncio
import fcntl
import socket
from typing import Any, Final, cast

import pytest

from fibcore.admission import UNCOUNTED_DIGITS, Budget
from fibcore.appliance import process
from tests.support.connections import Loop
from tests.support.served import LATE, LONG, Service
from tests.support.wire import READ
from web.http.hub import IDLE_SECONDS, LINGER_SECONDS, PATIENCE_SECONDS, SWEEP_SECONDS
from web.http.kernel import FLOOR, LEAST_SHARE, MOST_SHARE, RESET, Share, least_share

MEGABYTE: Final = 2**20
LIMIT: Final = 64 * MEGABYTE


class Transport:
    """A transport whose socket records its options."""

    def __init__(self, family: socket.AddressFamily = socket.AF_INET) -> None:
        self.family = family
        self.unsent = 0
        self.options: dict[int, Any] = {}

    def get_extra_info(self, _: str) -> "Transport":
        return self

    def setsockopt(self, _: int, name: int, value: Any) -> None:
        self.options[name] = value

    def fileno(self) -> int:
        return 7

    @property
    def allowed(self) -> int:
        return int(self.options[socket.TCP_NOTSENT_LOWAT])


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> Transport:
    made = Transport()
    monkeypatch.setattr(fcntl, "ioctl", lambda *_: made.unsent.to_bytes(4, "little"))
    return made


def share_of(transport: Transport, budget: Budget, least: int = LEAST_SHARE) -> Share:
    return Share(cast("asyncio.Transport", transport), budget, least)


def test_half_of_the_budget_covers_the_smallest_shares() -> None:
    assert least_share(LIMIT, 100) == LEAST_SHARE
    assert least_share(LIMIT, 2_000) == LIMIT // 2 // 2_000 < LEAST_SHARE
    assert least_share(MEGABYTE, 2_000) == FLOOR


def test_a_share_grows_when_few_connections_leave_room(transport: Transport) -> None:
    budget = Budget(LIMIT)
    share = share_of(transport, budget)
    assert transport.allowed == LEAST_SHARE
    share.grow(LIMIT // 2 // LEAST_SHARE)
    assert (transport.allowed, budget.lent) == (LEAST_SHARE, 0)
    share.grow(100)
    assert transport.allowed == budget.lent == LIMIT // 2 // 100
    share.grow(60)  # not for a little more
    assert transport.allowed == LIMIT // 2 // 100
    share.grow(0)
    assert transport.allowed == budget.lent == MOST_SHARE
    share.end()
    assert budget.lent == 0
    share.end()
    assert budget.lent == 0


def test_shares_grow_while_the_budget_lasts(transport: Transport) -> None:
    budget = Budget(LIMIT)
    shares = [share_of(transport, budget) for _ in range(20)]
    for share in shares:
        share.grow(8)
    assert budget.lent == LIMIT // 2
    for share in shares:
        share.end()
    assert budget.lent == 0


def test_a_share_shrinks_when_its_connection_holds_nothing(transport: Transport) -> None:
    budget = Budget(LIMIT)
    share = share_of(transport, budget)
    share.grow(8)
    share.shrink(16)  # not for a little less
    assert transport.allowed == budget.lent == MOST_SHARE
    smaller = LIMIT // 2 // 100
    transport.unsent = smaller + 1
    share.shrink(100)
    assert (transport.allowed, budget.lent) == (smaller, MOST_SHARE)
    transport.unsent = smaller
    share.shrink(100)
    assert transport.allowed == budget.lent == smaller


def test_shares_shrink_for_waiting_answers(transport: Transport) -> None:
    budget = Budget(LIMIT)
    share = share_of(transport, budget)
    share.grow(8)
    waiting = bytes(LIMIT // 2 - 16 * LEAST_SHARE)
    budget.hold(waiting)
    share.shrink(4)  # Of twice as much as is free there is an eighth each.
    assert transport.allowed == budget.lent == 8 * LEAST_SHARE
    more = bytes(16 * LEAST_SHARE)
    budget.hold(more)
    transport.unsent = LEAST_SHARE
    share.shrink(4)
    assert (transport.allowed, budget.lent) == (LEAST_SHARE, 0)
    share.grow(1)
    assert (transport.allowed, budget.lent) == (LEAST_SHARE, 0)
    budget.release(more)
    budget.release(waiting)
    share.grow(8)
    assert transport.allowed == budget.lent == MOST_SHARE


def test_bytes_in_the_kernel_count_and_are_limited(
    transport: Transport,
) -> None:
    share = share_of(transport, Budget(LIMIT))
    transport.unsent = UNCOUNTED_DIGITS - 1
    assert share.held == 0
    share.drop()
    assert socket.SO_LINGER not in transport.options
    transport.unsent = UNCOUNTED_DIGITS
    assert share.held == UNCOUNTED_DIGITS
    share.drop()
    assert transport.options[socket.SO_LINGER] == RESET


def test_a_closed_socket_holds_nothing(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(fcntl, "ioctl", fail)
    assert share_of(transport, Budget(LIMIT)).held == 0


def test_a_unix_socket_has_no_share() -> None:
    transport, budget = Transport(socket.AF_UNIX), Budget(LIMIT)
    share = share_of(transport, budget)
    share.grow(1)
    share.shrink(1)
    share.drop()
    assert (transport.options, budget.lent, share.held) == ({}, 0, 0)


# Connections


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The bytes that the kernel holds for each connection."""
    held = {"bytes": 0}
    monkeypatch.setattr(Share, "held", property(lambda _: held["bytes"]))
    return held


def test_a_client_that_still_reads_its_answer_is_not_idle(loop: Loop, held: dict[str, int]) -> None:
    """It is not late as long as it reads something within each ``FIB_SEND_TIMEOUT``."""
    served = Service(loop, send_timeout=3.0)
    client = served.client(READ)
    for held["bytes"] in range(30_000, 10_000, -2_000):
        loop.pass_time(3 - LINGER_SECONDS)
        assert not client.lost
    loop.pass_time(3 + LINGER_SECONDS + LATE)
    assert client.lost


def test_an_idle_connection_is_closed_when_the_kernel_holds_nothing(
    loop: Loop, held: dict[str, int]
) -> None:
    served = Service(loop)
    client = served.client(READ)
    held["bytes"] = 10_000
    loop.pass_time(4 * IDLE_SECONDS)
    assert not client.lost
    held["bytes"] = 0
    loop.pass_time(LINGER_SECONDS + LATE)
    assert client.lost


def test_a_last_answer_is_waited_for_until_it_is_received(loop: Loop, held: dict[str, int]) -> None:
    """The sending side is closed at once."""
    served = Service(loop, send_timeout=3.0)
    held["bytes"] = 10_000
    ended, stays = (
        served.client(READ.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")) for _ in range(2)
    )
    assert (ended.closed, ended.lost, stays.closed) == (True, False, True)
    ended.end()
    loop.settle()
    assert ended.lost
    loop.pass_time(3)
    assert not stays.lost
    loop.pass_time(2 * LINGER_SECONDS + LATE)
    assert stays.lost


def test_a_stop_does_not_wait_for_bytes_in_the_kernel(loop: Loop, held: dict[str, int]) -> None:
    """The kernel sends it without the process."""
    served = Service(loop)
    client = served.client(READ)
    held["bytes"] = 10_000
    served.stop()
    assert client.lost


def test_unread_bytes_are_dropped_when_a_newcomer_needs_the_slot(
    loop: Loop, held: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[Share] = []
    monkeypatch.setattr(Share, "drop", lambda share: dropped.append(share))
    served = Service(loop, max_connections=1)
    client = served.client(READ)
    loop.pass_time(1)
    held["bytes"] = 10_000
    served.client(READ)
    assert client.lost
    assert len(dropped) == 1
    held["bytes"] = 0
    loop.pass_time(1)
    served.client(READ)
    assert len(dropped) == 1


def test_bytes_lent_to_the_kernel_leave_fewer_for_slow_readers(loop: Loop) -> None:
    for lent, closed in ((0, False), (626_963, False), (626_965, True)):
        served = Service(loop, LONG, max_answer_bytes=3 * 626_963, send_timeout=600.0)
        assert served.hub.budget.lend(lent)
        slow = served.client(READ, room=10)
        loop.pass_time(PATIENCE_SECONDS + LATE)
        assert slow.lost == closed
        slow.take()
        loop.settle()
        served.close()


def test_a_share_grows_with_a_reading_client_and_shrinks_with_a_crowd(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown: list[int] = []
    shrunk: list[int] = []
    monkeypatch.setattr(Share, "grow", lambda _, connections: grown.append(connections))
    monkeypatch.setattr(Share, "shrink", lambda _, connections: shrunk.append(connections))
    served = Service(loop, LONG)
    other = served.client(READ)
    reader = served.client(READ, room=10)
    assert grown == []
    loop.pass_time(SWEEP_SECONDS)
    assert set(shrunk) == {2}
    assert grown == []
    reader.take(1_000)
    loop.pass_time(SWEEP_SECONDS)
    assert grown == [2]
    other.reset()
    loop.settle()
    reader.take()
    loop.settle()
    assert grown == [2, 1]


def test_memory_is_released_once_after_a_crowd(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[float] = []
    monkeypatch.setattr(process, "KEPT_MEMORY", 600_000)
    monkeypatch.setattr(process, "give_back_memory", lambda: given_back.append(loop.now))
    served = Service(loop, LONG)
    for times in (1, 2):
        slow = served.client(READ, room=10)
        loop.pass_time(LATE)
        assert len(given_back) == times - 1
        slow.take()
        loop.pass_time(LATE)
        assert len(given_back) == times
        loop.pass_time(LATE)
        assert len(given_back) == times
