"""A crowd that keeps the one core of the whole appliance busy, beside newcomers and the watchdog.

1,500 clients ask on connections that they keep, again as soon as they are answered. None of them
is cut off, and whoever comes after them is served: tests/http/test_accepting.py has the control,
as how many are accepted in a turn of the event loop is a matter of counting.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.faults.conftest import Fault
from tests.support import requires
from tests.support.servers import Client
from tests.support.supervised import Supervised
from tests.support.waiting import PATIENCE, until

pytestmark = [pytest.mark.long, pytest.mark.processes, pytest.mark.usefixtures("descriptors")]

CROWD: Final = 1500

SECONDS: Final = 20

NEWCOMERS: Final = 64

CORES: Final = sorted(os.sched_getaffinity(0))
"""The first is the appliance's, the last is the crowd's."""


def established(port: int) -> int:
    """How many connections to ``port`` there are, accepted or not."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    connections = [line.split() for line in lines]
    return sum(each[2].endswith(f":{port:04X}") and each[3] == "01" for each in connections)


@contextlib.contextmanager
def on_one_core() -> Iterator[Supervised]:
    """The appliance, all of it on one core."""
    all_cores = os.sched_getaffinity(0)
    appliance = Supervised()
    os.sched_setaffinity(0, [CORES[0]])
    try:
        appliance.__enter__()
    finally:
        os.sched_setaffinity(0, all_cores)
    with contextlib.ExitStack() as stack:
        stack.push(appliance.__exit__)
        assert appliance.standby
        appliance.wait_until_all_run()
        yield appliance


@contextlib.contextmanager
def crowd(appliance: Supervised) -> Iterator[subprocess.Popen[str]]:
    """Yield when all of them have connected."""
    program = requires.program("wrk")
    with subprocess.Popen(
        [
            *("taskset", "-c", str(CORES[-1]), program, "-t1", f"-c{CROWD}", f"-d{SECONDS}"),
            *("--timeout", f"{PATIENCE:.0f}s", "-H", "X-One: ordinary header"),
            f"http://127.0.0.1:{appliance.port}/current",
        ],
        stdout=subprocess.PIPE,
        text=True,
    ) as wrk:
        try:
            until(lambda: established(appliance.port) >= CROWD, "the crowd has connected")
            yield wrk
        finally:
            wrk.kill()


def newcomers(appliance: Supervised, count: int) -> float:
    """Ask on so many new connections at once; return the seconds until all are answered."""
    client = Client(f"http://127.0.0.1:{appliance.port}")
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(client.raw()) for _ in range(count)]
        for each in connections:
            each.sendall(b"GET /current HTTP/1.1\r\nHost: x\r\n\r\n")
        for each in connections:
            assert each.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
    return time.monotonic() - began


@pytest.mark.proves(
    "clients",
    "keep the one core of all processes busy, 1,500 of them on connections that they keep",
    "nothing is killed, nobody is cut off, newcomers are answered: 16 are accepted in each turn "
    "of the event loop",
)
@pytest.mark.proves("load", "the watchdog")
@pytest.mark.proves("pairs", "a crowd", "the watchdog")
def test_a_crowd_keeps_no_newcomer_out(fault: Fault) -> None:
    """Nothing is killed for it."""
    with on_one_core() as appliance:
        server, standby = appliance.server, appliance.standby
        for _ in fault.tries(short=1, long=5, share=0.1):
            with crowd(appliance) as wrk:
                first, later = newcomers(appliance, 1), newcomers(appliance, NEWCOMERS)
                said, _ = wrk.communicate(timeout=SECONDS + PATIENCE)
            assert "Requests/sec" in said
            assert "Socket errors" not in said
            fault.saw(
                note=f"{CROWD} clients: with them a newcomer is answered after {first:.1f} s, "
                f"later {NEWCOMERS} at once after {later:.1f} s"
            )
        assert (appliance.server, appliance.standby) == (server, standby)
        assert "killed" not in appliance.log("watchdog").text
        assert "exited" not in appliance.log("supervisord").text
