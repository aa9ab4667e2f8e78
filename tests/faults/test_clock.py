"""The clock of all processes is set by a day, forwards and backwards, under load.

Durations use the monotonic clock; the time of day is only for logs and the ``Date`` of an answer,
which here shows that the clock was set.
"""

import os
import signal
import socket
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

import pytest

from fibcore.stores import files
from tests.faults.conftest import Fault
from tests.support.load import Load
from tests.faults.server_variants import keeps_deadlines_by_the_wall_clock, variant
from tests.faults.servers import Servers
from tests.support import requires
from tests.support.supervised import Supervised
from tests.support.waiting import PATIENCE, until

pytestmark = [pytest.mark.long, pytest.mark.processes]

DAY: Final = 86400


class Clock:
    """The time of day, as seen by programs started with its ``environment``."""

    def __init__(self, folder: Path) -> None:
        library = requires.file("/usr/lib/*/faketime/libfaketimeMT.so.1")
        self._file = folder / "clock"
        self.set(0)
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds: int) -> None:
        """Shift it from the real time from now on."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.rename(self._file)


def day_of(appliance: Supervised) -> int:
    return parsedate_to_datetime(appliance.client.get("/health").headers["Date"]).day


def test_setting_the_clock_does_no_harm(fault: Fault, tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    with Supervised(clock.environment) as appliance:
        today = day_of(appliance)
        backup_copy = files.backup_copy_path(appliance.database)
        with Load(appliance.port) as load:
            for at in fault.tries(short=2, long=2, share=0):
                standby = appliance.standby
                clock.set((DAY, -DAY)[at])
                until(lambda: day_of(appliance) != today, "an answer of another day")
                load.wait_for_steps(50)
                os.kill(appliance.server, signal.SIGKILL)
                load.wait_for_steps(50)
                assert appliance.server == standby
                copied = backup_copy.stat().st_ino if backup_copy.exists() else 0
                until(
                    lambda: backup_copy.exists() and backup_copy.stat().st_ino != copied,  # noqa: B023
                    "the listeners go on",
                )
            clock.set(0)
        last = appliance.index
    fault.check(load, last=last)
    assert load.refused == 0
    assert load.errors.total() == 0


def half_a_head(servers: Servers) -> socket.socket:
    connection = servers.client.raw()
    connection.sendall(b"GET /current HTTP/1.1\r\nHost: localhost")
    return connection


def survives_a_day(servers: Servers, clock: Clock) -> bool:
    """Whether an incomplete head may be completed after the clock was set."""
    with half_a_head(servers) as connection:
        today = servers.client.get("/health").headers["Date"][:16]
        clock.set(DAY)
        # The date is updated once a second, deadlines are checked more often.
        until(lambda: servers.client.get("/health").headers["Date"][:16] != today, "another day")
        try:
            connection.sendall(b"\r\n\r\n")
            return connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        except ConnectionError:
            return False


def test_setting_the_clock_moves_no_deadline(tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    long, short = {"FIB_RECEIVE_TIMEOUT": "60"}, {"FIB_RECEIVE_TIMEOUT": "2"}
    with Servers(tmp_path / "a.db", tmp_path, settings=clock.environment | long) as servers:
        assert survives_a_day(servers, clock)
    with (
        Servers(tmp_path / "b.db", tmp_path, settings=clock.environment | short) as servers,
        half_a_head(servers) as connection,
    ):
        clock.set(-DAY)
        connection.settimeout(PATIENCE)
        assert connection.recv(1000) == b""


def test_setting_the_clock_would_move_a_wall_clock_deadline(tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    settings = clock.environment | {"FIB_RECEIVE_TIMEOUT": "60"}
    command = variant(keeps_deadlines_by_the_wall_clock)
    with Servers(tmp_path / "fibcore.db", tmp_path, settings=settings, command=command) as servers:
        assert not survives_a_day(servers, clock)
