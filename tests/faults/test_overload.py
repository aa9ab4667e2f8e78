"""Offered load far beyond the capacity of one core: as many steps are made as before.

The server has one core, wrk another. Rounds with a few clients, which show the peak, alternate with
rounds of a crowd that exceeds the bound on waiting steps, and retries at once when shed. The
integers are ``uint64``: growing numbers would make each round slower than the one before.
"""

import json
import os
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.faults.conftest import Fault
from tests.faults.server_variants import sheds_at_any_pace, variant
from tests.faults.servers import Servers
from tests.support import requires
from tests.support.servers import SERVER
from tests.support.waiting import PATIENCE

pytestmark = [pytest.mark.long, pytest.mark.processes, pytest.mark.usefixtures("descriptors")]

SCRIPT: Final = Path(__file__).with_name("overload.lua")

CORES: Final = sorted(os.sched_getaffinity(0))
"""The first is the server's, the last is wrk's."""

SETTINGS: Final = {"FIB_INTEGERS": "uint64", "FIB_MAX_WAITING_STEPS": "256"}

COMFORTABLE: Final = 64
"""Enough clients for the highest rate of steps."""

CROWD: Final = 1500
"""Clients that always have a request under way: six times the bound on waiting steps."""

ROUNDS: Final = 3

SECONDS: Final = 3


class Round(NamedTuple):
    """The answers that wrk got."""

    made: int
    """Steps."""
    twice: int
    """Steps whose index had been answered before."""
    lowest: int
    highest: int
    shed: int
    """With 503 and ``Retry-After``."""
    other: int
    seconds: float

    @property
    def goodput(self) -> float:
        """Steps a second."""
        return self.made / self.seconds


def wrk(servers: Servers, clients: int) -> Round:
    """Let this many clients step for a round."""
    program = requires.program("wrk")
    done = subprocess.run(
        [
            *("taskset", "-c", str(CORES[-1]), program, "-t1", f"-c{clients}", f"-d{SECONDS}"),
            *(
                "--timeout",
                f"{PATIENCE:.0f}s",
                "-s",
                SCRIPT,
                f"http://127.0.0.1:{servers.port}/next",
            ),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS + PATIENCE,
    )
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return Round(**said)


class Outcome(NamedTuple):
    """The rounds with few clients, those with a crowd, and the next client after each of these."""

    few: list[Round]
    many: list[Round]
    tries: list[int]
    """How often a client had to request a step after the crowd had left."""

    @property
    def ratio(self) -> float:
        """The goodput under overload, as a share of the peak."""
        few, many = (
            statistics.median(each.goodput for each in rounds) for rounds in (self.few, self.many)
        )
        return many / few


def overload(tmp_path: Path, command: Sequence[str]) -> Outcome:
    """Alternate rounds, and check that no step is lost and no index answered twice."""
    outcome = Outcome([], [], [])
    pinned = ("taskset", "-c", str(CORES[0]), *command)
    with Servers(tmp_path / "fibcore.db", tmp_path, settings=SETTINGS, command=pinned) as servers:
        highest = unanswered = 0
        for _ in range(ROUNDS):
            for clients, rounds in ((COMFORTABLE, outcome.few), (CROWD, outcome.many)):
                seen = wrk(servers, clients)
                rounds.append(seen)
                assert seen.other == 0
                assert seen.twice == 0
                assert highest < seen.lowest
                highest = seen.highest
                # wrk leaves without the last answers.
                unanswered += clients
            outcome.tries.append(step(servers))
        made = sum(each.made for each in outcome.few + outcome.many) + ROUNDS
        assert made <= servers.client.index <= made + unanswered
    return outcome


def step(servers: Servers) -> int:
    """Step on a new connection, with ``Retry-After``; return the number of attempts."""
    tries = 1
    while (answer := servers.client.get("/next")).status != 200:
        assert answer.status == 503
        time.sleep(int(answer.headers["retry-after"]))
        tries += 1
    return tries


def test_as_many_steps_are_made_under_overload(fault: Fault, tmp_path: Path) -> None:
    seen = overload(tmp_path, SERVER)
    fault.tried += ROUNDS
    fault.saw(
        lost=0,
        note=f"{CROWD} clients: {seen.ratio:.2f} of the steps that {COMFORTABLE} get, which is "
        f"{statistics.median(each.goodput for each in seen.few):.0f} a second",
    )
    assert all(each.shed for each in seen.many)
    assert not any(each.shed for each in seen.few)
    assert seen.ratio > 0.5
    # At the first attempt, unless the disk was slow just then.
    assert max(seen.tries) <= 2


def test_unlimited_shedding_would_leave_no_time_for_steps(fault: Fault, tmp_path: Path) -> None:
    seen = overload(tmp_path, variant(sheds_at_any_pace))
    fault.tried += ROUNDS
    fault.saw(note=f"{CROWD} clients: {seen.ratio:.2f} of the steps that {COMFORTABLE} get")
    assert seen.ratio < 0.5
