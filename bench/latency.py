"""Open loops: latency at fixed rates, counted from when each request was due."""

from collections.abc import Callable

from bench import loads, servers
from bench.loads import Run
from bench.suite import Suite
from bench.values import ENDPOINTS, Integers

CONNECTIONS = 100
REFERENCE_RATE = 1_000  # on each of the three endpoints
Start = Callable[..., servers.Starting]


def open_loop(suite: Suite) -> None:
    """The reference load for long, then other rates for less long, on a fresh server each time."""
    effort = suite.effort
    suite.say("open loop: /current, /next and /previous at once at fixed rates")
    for number in range(effort.open_rounds):
        _round(suite, REFERENCE_RATE, effort.open_seconds, number)
    for rate in effort.rates:
        if rate != REFERENCE_RATE:
            for number in range(effort.open_rounds):
                _round(suite, rate, max(effort.open_seconds / 6, 3), number)


def _round(suite: Suite, rate: int, seconds: float, number: int) -> None:
    peers: list[tuple[Start, Integers]] = [
        (servers.fibcore, "uint64"),
        (servers.fibcore, "exact"),
        (servers.stock, "uint64"),
        (servers.reference, "uint64"),
    ]
    for start, integers in peers:
        with start(suite.folder, 90, integers) as server:
            warm = Run("warm", "", "", CONNECTIONS, "", "", "")
            loads.recorded_load(suite.folder, warm, server, ["current"], seconds=0.3)
            run = Run(
                section="open loop",
                peer=server.peer,
                endpoint="all",
                connections=CONNECTIONS,
                tool="load.c",
                integers=integers,
                synchronous=server.synchronous,
                rate=rate,
                round=number,
            )
            loads.recorded_load(suite.folder, run, server, ENDPOINTS, seconds=seconds)
            suite.add(run)
