"""Open loops: latency at fixed rates, from when each request was due.

The time that a request waits for a connection, because the server is behind, counts: there is no
coordinated omission. Reads and steps are also reported separately.
"""

from collections.abc import Callable

from bench import servers
from bench.load import loads
from bench.load.loads import Run
from bench.suite import Suite
from tests.support.checker import ENDPOINTS, Integers

CONNECTIONS = 100
REFERENCE_RATE = 1_000  # requests a second on each of the three endpoints
Start = Callable[..., servers.Starting]


def open_loop(suite: Suite) -> None:
    """The reference load, then other rates for a shorter time, each on a new server."""
    effort = suite.effort
    suite.log("open: open loops on /current, /next and /previous at once, at fixed rates")
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
            warm = Run.of("warm", server, "current", CONNECTIONS)
            loads.recorded_load(suite.folder, warm, server, ["current"], seconds=0.3)
            run = Run.of("open loop", server, "all", CONNECTIONS, round=number, rate=rate)
            # A rate may be more than a peer can handle; that is a figure, not a problem.
            loads.recorded_load(
                suite.folder,
                run,
                server,
                ENDPOINTS,
                seconds=seconds,
                may_fall_behind=start is not servers.fibcore,
            )
            suite.add(run)
