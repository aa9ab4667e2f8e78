"""The share of the budget that the kernel has for a connection: it grows, shrinks, and is ended."""

import asyncio
import fcntl
import socket
from typing import Any, Final, cast

import pytest

from fibcore.admission import UNCOUNTED_DIGITS, Budget
from web.kernel import FLOOR, LEAST_SHARE, MOST_SHARE, RESET, Share, least_share

MEGABYTE: Final = 2**20
LIMIT: Final = 64 * MEGABYTE


class Transport:
    """One whose socket keeps what it is told."""

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


def test_half_of_the_budget_is_enough_for_the_least_shares() -> None:
    assert least_share(LIMIT, 100) == LEAST_SHARE
    assert least_share(LIMIT, 2_000) == LIMIT // 2 // 2_000 < LEAST_SHARE
    assert least_share(MEGABYTE, 2_000) == FLOOR


def test_a_share_grows_as_few_connections_leave_room(transport: Transport) -> None:
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


def test_shares_grow_as_long_as_there_is_something_to_be_lent(transport: Transport) -> None:
    budget = Budget(LIMIT)
    shares = [share_of(transport, budget) for _ in range(20)]
    for share in shares:
        share.grow(8)
    assert budget.lent == LIMIT // 2
    for share in shares:
        share.end()
    assert budget.lent == 0


def test_a_share_shrinks_when_its_connection_holds_no_more(transport: Transport) -> None:
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


def test_what_the_kernel_holds_counts_and_is_dropped_past_some_kilobytes(
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
