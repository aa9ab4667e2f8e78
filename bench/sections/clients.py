"""The heads of real clients, compared with the plainest head and with the peers.

A closed loop of 100 connections for each head and kind of request; the server has one core.
"""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack

from bench import heads, servers
from bench.load import loads
from bench.load.loads import Run
from bench.load.workloads import KINDS, Workload, base_of, of_clients, special
from bench.sections.throughput import CONNECTIONS, SMALL
from bench.servers import Server
from bench.suite import Suite

GROUP = 4  # heads that share one measurement of the plainest


def measure(suite: Suite) -> None:
    """Measure all heads, in groups; each group includes the plainest head.

    On a machine with other programs the conditions change within a minute, so a ratio is computed
    within a group, which counts as a round. The peers are measured in the first repetition only.
    """
    suite.log("heads: the heads of real clients, closed loop, small numbers")
    folder = suite.folder
    counter = itertools.count()
    with ExitStack() as stack:
        ours, go, stock = (
            stack.enter_context(start(folder, SMALL, "uint64"))
            for start in (servers.fibcore, servers.reference, servers.stock)
        )
        peers = {"current": [go, stock], "next": [go, stock], "404": [stock]}
        for server in (ours, go, stock):
            # The first run of a server differs from all later ones, and is discarded.
            load(suite, server, plainest("current"), next(counter))
        for repetition in range(suite.effort.head_rounds):
            for group in groups(suite.clients):
                number = next(counter)
                for asked in group:
                    suite.add(load(suite, ours, asked, number))
                for asked in group[:-1]:
                    for server in peers.get(asked.what, ()) if not repetition else ():
                        suite.add(load(suite, server, asked, number))
            number = next(counter)
            for asked in (plainest("next"), plainest("if-match")):
                suite.add(load(suite, ours, asked, number, connections=1))


def groups(clients: list[str]) -> Iterator[list[Workload]]:
    """The groups; each begins and ends with the plainest head, its reference."""
    others = [asked for asked in of_clients(clients) if asked.client != heads.PLAINEST]
    for kind in KINDS:
        alike = [asked for asked in others if asked.what == kind]
        base = plainest(base_of(kind))
        own = [] if base.what == kind else [plainest(kind)]
        for at in range(0, max(len(alike), 1), GROUP):
            yield [base, *own, *alike[at : at + GROUP], base]
            own = []
    for kind in ("current", "next"):
        alike = [asked for asked in special() if base_of(asked.what) == kind]
        yield [plainest(kind), *alike, plainest(kind)]


def plainest(what: str) -> Workload:
    return next(a for a in of_clients() if (a.client, a.what) == (heads.PLAINEST, what))


def load(
    suite: Suite,
    server: Server,
    asked: Workload,
    number: int,
    *,
    connections: int = CONNECTIONS,
    section: str = "heads",
    seconds: float | None = None,
) -> Run:
    """Run the workload, in the round of that number, for the seconds of a head by default."""
    kind = {"client": asked.client, "asked": asked.what}
    run = Run.of(section, server, asked.endpoint, connections, round=number, **kind)
    loads.recorded_load(
        suite.folder,
        run,
        server,
        [asked.endpoint],
        seconds=seconds or suite.effort.head_seconds,
        check_every=4,
        request=asked.request,
        expected=asked.expected,
    )
    return run
