"""Heartbeats: what the watchdog hears."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fibcore.settings import Settings
from supervise.watchdog import (
    LOOK_SECONDS,
    STOPPED_SECONDS,
    Beats,
)
from tests.test_watchdog import address_in
from web.heartbeat import BEAT_SECONDS, Heartbeat, longest_turn


@pytest.fixture
def beats(tmp_path: Path) -> Iterator[Beats]:
    with contextlib.closing(Beats(address_in(tmp_path))) as beats:
        yield beats


def test_a_beat_says_whose_it_is_and_how_long_there_may_be_none(
    tmp_path: Path, beats: Beats
) -> None:
    assert beats.heard() == {}
    with contextlib.closing(Heartbeat(address_in(tmp_path), lambda: 2.5)) as heartbeat:
        heartbeat.beat()
    assert beats.heard() == {os.getpid(): 2.5}
    assert beats.heard() == {}


def test_a_heartbeat_that_nobody_hears_disturbs_nobody(tmp_path: Path) -> None:
    Heartbeat(None, lambda: 2.0).beat()
    alone = Heartbeat(address_in(tmp_path), lambda: 2.0)
    alone.beat()
    with contextlib.closing(Beats(address_in(tmp_path))) as beats:  # and does not listen
        for _ in range(10_000):  # more than the kernel keeps
            alone.beat()
        assert beats.heard() == {os.getpid(): 2.0}
    with contextlib.closing(Beats(address_in(tmp_path))) as beats:  # another watchdog
        alone.beat()
        assert beats.heard() == {os.getpid(): 2.0}
    alone.close()
    alone.beat()


def test_messages_that_are_no_heartbeat_are_skipped(tmp_path: Path, beats: Beats) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        for message in (b"", b"\xff", b"READY=1", b"WATCHDOG_USEC=soon", b"xWATCHDOG_USEC=9"):
            stranger.sendto(message, address_in(tmp_path))
    assert beats.heard() == {}


def test_by_default_what_hangs_is_ended_within_three_seconds() -> None:
    assert BEAT_SECONDS + longest_turn(Settings.from_environ({})) + LOOK_SECONDS < 3
    assert STOPPED_SECONDS + LOOK_SECONDS < 3


def test_a_turn_may_take_longer_where_more_is_allowed_in_it() -> None:
    assert longest_turn(Settings.from_environ({})) == 2.0
    assert longest_turn(Settings.from_environ({"FIB_MAX_CONNECTIONS": "1000000"})) > 100
