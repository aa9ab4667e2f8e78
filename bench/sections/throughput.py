"""Closed loops: small numbers compared with the peers, and large numbers by index."""

from contextlib import ExitStack

from bench import servers
from bench.load import loads
from bench.load.loads import Run
from bench.servers import Server
from bench.suite import Suite

SMALL = 90  # F(90) has 19 digits
CONNECTIONS = 100
INDEXES = (30_000, 1_000_000)  # of large numbers
MAX_STEPS = 20_000  # in one run on large numbers


def small(suite: Suite) -> None:
    """wrk on all endpoints. Steps are modulo 2^64: exact numbers would soon be large."""
    folder, effort = suite.folder, suite.effort
    suite.log("small: small numbers, wrk, closed loop")
    with ExitStack() as stack:
        fixed, moving = (
            [
                stack.enter_context(start(folder, SMALL, integers))
                for start in (servers.fibcore, servers.stock)
            ]
            for integers in ("exact", "uint64")
        )
        others = [
            stack.enter_context(servers.reference(folder, SMALL, "uint64")),
            stack.enter_context(servers.nginx(folder, SMALL, static=False)),
        ]
        for number in range(effort.rounds):
            for connections in effort.connections:
                if connections != CONNECTIONS and number > effort.rounds // 2:
                    continue
                for endpoint in ("current", "previous", "health", "next"):
                    for server in (moving if endpoint == "next" else fixed) + others:
                        run = Run.of("small", server, endpoint, connections, "wrk", round=number)
                        suite.add(loads.wrk(run, server, effort.wrk_seconds))


def large(suite: Suite) -> None:
    """The load generator on large numbers: wrk reads 8 KB at a time and would measure itself.

    Reads are at one index; there are so few steps that they stay near the index.
    """
    suite.log("large: large numbers, closed loop, a limited number of steps")
    for index in INDEXES:
        _reads(suite, index)
        _steps(suite, index)


def _reads(suite: Suite, index: int) -> None:
    folder, effort = suite.folder, suite.effort
    with ExitStack() as stack:
        peers = [
            stack.enter_context(servers.fibcore(folder, index, "exact")),
            stack.enter_context(servers.reference(folder, index, "exact")),
            stack.enter_context(servers.nginx(folder, index, static=True)),
        ]
        for number in range(effort.rounds):
            for server in peers:
                _measure(suite, server, "current", index, number, effort.wrk_seconds)


def _steps(suite: Suite, index: int) -> None:
    """From at most a third below the index to a third above it: the mean is at the index."""
    steps = min(index * 2 // 3, MAX_STEPS)
    start = index - steps // 2
    for number in range(suite.effort.rounds):
        for starting in (
            servers.fibcore(suite.folder, SMALL, "uint64"),
            servers.fibcore(suite.folder, start, "exact"),
            servers.reference(suite.folder, start, "exact"),
            servers.nginx(suite.folder, index, static=True),
        ):
            with starting as server:
                # Warm up the new process with requests that do not step.
                warm = Run.of("warm", server, "current", CONNECTIONS)
                loads.recorded_load(suite.folder, warm, server, ["current"], seconds=0.2)
                _measure(suite, server, "next", index, number, 2.0, steps)


def _measure(
    suite: Suite,
    server: Server,
    endpoint: str,
    index: int,
    number: int,
    seconds: float,
    requests: int | None = None,
) -> None:
    run = Run.of("large", server, endpoint, CONNECTIONS, round=number, nominal_index=index)
    loads.recorded_load(
        suite.folder,
        run,
        server,
        # nginx answers /next with the bytes of /current, which are checked as such.
        [endpoint if server.integers else "current"],
        seconds=seconds,
        requests=requests,
        check_every=16,  # every index, but not every number: that would be slower than nginx
    )
    suite.add(run)
