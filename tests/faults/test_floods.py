"""Floods: 1,900 hostile clients, of each kind or of all, and an honest one that is answered soon.

The appliance has the memory of its unit, the default bounds and deadlines, and a number of 1 MB.
"""

import http.client
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

import pytest

from tests.faults.conftest import Fault
from tests.faults.crowds import KINDS, Crowd
from tests.support import requires
from tests.support.servers import Answer
from tests.support.supervised import Supervised
from tests.support.waiting import until

pytestmark = [pytest.mark.long, pytest.mark.processes, pytest.mark.usefixtures("descriptors")]

INDEX: Final = 4_800_000
"""Of a number of 1,003,134 digits."""

MOST_BYTES: Final = 300 * 2**20
"""Of all processes and their sockets."""

WAIT_SECONDS: Final = 1.0

SHED_SECONDS: Final = 2.0
"""A crowd of steps gets its 503 at a thousand a second; the honest step waits behind these."""

HOLD_SECONDS: Final = 8.0


class Memory:
    """The peak memory of the appliance until ``__exit__``: its pages, and its sockets' buffers."""

    def __init__(self, appliance: Supervised) -> None:
        self._appliance = appliance
        self.most = 0
        self._ending = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="memory")

    def __enter__(self) -> Self:
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._sampler.join()

    def _sample(self) -> None:
        while not self._ending.wait(0.2):
            pids = [self._appliance.pid]
            for pid in pids:
                pids += children_of(pid)
            self.most = max(self.most, sum(map(pss, pids)) + buffers(self._appliance.port))


def children_of(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def pss(pid: int) -> int:
    """Its proportional share of memory, in bytes."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(1024 * int(size) for size in re.findall(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE))


def buffers(port: int) -> int:
    """The kernel's memory for the connections of a listening port; see ss(8)."""
    command = [requires.program("ss"), "--no-header", "--oneline", "-tmn", f"sport = :{port}"]
    shown = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found = re.findall(r"skmem:\(r(\d+),.*?,f(\d+),w(\d+),", shown)
    return sum(5 * 1024 + sum(map(int, each)) for each in found)


class Honest:
    """A client that opens a connection, asks, and waits; it asks again where it is evicted."""

    def __init__(self, appliance: Supervised) -> None:
        self._client = appliance.client
        self.waits: dict[str, list[float]] = {"/health": [], "/next": []}
        self.steps: list[int] = []

    def ask(self, path: str) -> bool:
        """Wait for an answer; return whether it is 200. It may be a 503 that says when to retry."""
        begun = time.monotonic()
        answers: list[Answer] = []

        def is_answered() -> bool:
            with suppress(OSError, http.client.HTTPException):
                answers.append(self._client.get(path))
            return bool(answers)

        until(is_answered, f"{path} is answered")
        self.waits[path].append(time.monotonic() - begun)
        (answer,) = answers
        assert answer.status == 200 or (answer.status, answer.headers["Retry-After"]) == (503, "1")
        if path == "/next" and answer.status == 200:
            self.steps.append(answer.index)
        return answer.status == 200

    def usual_wait(self, path: str) -> float:
        """Of nine answers in ten."""
        waits = sorted(self.waits[path])
        return waits[len(waits) * 9 // 10]


@contextmanager
def appliance_at(index: int, settings: Mapping[str, str] | None = None) -> Iterator[Supervised]:
    appliance = Supervised(settings)
    subprocess.run(
        [f"{appliance.folder}/.venv/bin/python", "-m", "fibcore", "set-index", str(index)],
        env={**os.environ, "FIB_STATE": str(appliance.database)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    with appliance:
        appliance.wait_until_all_run()
        yield appliance


@pytest.mark.parametrize("kind", [*KINDS, "all of them"])
def test_a_flood_shuts_no_honest_client_out_and_fills_no_memory(kind: str, fault: Fault) -> None:
    kinds = list(KINDS) if kind == "all of them" else [kind]
    with appliance_at(INDEX) as appliance, Memory(appliance) as memory:
        server = appliance.server
        honest = Honest(appliance)
        with Crowd(appliance.port, *kinds) as crowd:
            crowd.wait_until_it_is_there()
            end = time.monotonic() + HOLD_SECONDS
            while time.monotonic() < end:
                until(lambda: honest.ask("/health"), "/health is answered 200 beside the crowd")
                honest.ask("/next")
                time.sleep(0.05)  # so that it asks as often as a person might
            until(lambda: honest.ask("/next"), "a step is made beside the crowd")
        until(lambda: honest.ask("/next"), "a step is made when the crowd has gone")
        assert honest.steps == sorted(set(honest.steps))
        assert appliance.server == server, appliance.report()
        assert "killed" not in appliance.log("watchdog").text
    health, step = honest.usual_wait("/health"), honest.usual_wait("/next")
    fault.tried += 1
    fault.saw(
        note=f"{kind}: {memory.most / 2**20:.0f} MB; /health waits {health:.2f} s, at the most "
        f"{max(honest.waits['/health']):.2f} s; /next {step:.2f} s"
    )
    assert health <= WAIT_SECONDS
    assert step <= WAIT_SECONDS + SHED_SECONDS
    assert memory.most <= MOST_BYTES


def test_with_a_bound_out_of_reach_slow_readers_would_fill_memory() -> None:
    """The control: the measurement sees what the bound prevents."""
    settings = {"FIB_MAX_ANSWER_BYTES": str(2**40), "FIB_SEND_TIMEOUT": "600"}
    with (
        appliance_at(INDEX, settings) as appliance,
        Memory(appliance) as memory,
        Crowd(appliance.port, "slow readers"),
    ):
        until(lambda: memory.most > MOST_BYTES, "the memory is full")
