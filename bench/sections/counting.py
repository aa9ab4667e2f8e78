"""The cost of counting, of an access log, and of an idempotency key.

Each is compared with the same server without it, alternating. The measure is the server's processor
time per request, which other programs affect least.
"""

from contextlib import ExitStack

from bench import servers
from bench.load import loads, workloads
from bench.load.loads import Run
from bench.sections.clients import load, plainest
from bench.sections.throughput import CONNECTIONS, SMALL
from bench.suite import Suite
from tests.support.checker import Integers

COUNTED, UNCOUNTED, LOGGED = "fibcore", "fibcore uncounted", "fibcore logged"
ROUNDS = 4  # for each of the suite's, so that a difference of 1% can be seen


def counting(suite: Suite) -> None:
    """The server, and one without its counting."""
    suite.log("counting: servers with and without counting, alternating")
    _in_turn(suite, "counting", servers.uncounted)


def logged(suite: Suite) -> None:
    """The server, and one that writes an access log."""
    suite.log("logged: servers with and without an access log, alternating")
    _in_turn(suite, "logged", servers.logged)


def keyed(suite: Suite) -> None:
    """Steps without a key, and with a new key each time, on one server."""
    suite.log("keyed: steps with and without an idempotency key, alternating")
    kinds = (plainest("next"), workloads.keyed())
    with servers.fibcore(suite.folder, SMALL, "uint64") as server:
        for number in range(ROUNDS * suite.effort.rounds):
            for asked in kinds[:: 1 if number % 2 else -1]:
                suite.add(load(suite, server, asked, number, section="keyed", seconds=1))


def _in_turn(suite: Suite, section: str, other: servers.Start) -> None:
    # Steps count modulo 2^64: exact ones would soon be large.
    kinds: dict[str, Integers] = {"current": "exact", "next": "uint64"}
    with ExitStack() as stack:
        pairs = {
            endpoint: [
                stack.enter_context(start(suite.folder, SMALL, integers))
                for start in (servers.fibcore, other)
            ]
            for endpoint, integers in kinds.items()
        }
        for number in range(ROUNDS * suite.effort.rounds):
            for endpoint, pair in pairs.items():
                for server in pair[:: 1 if number % 2 else -1]:
                    run = Run.of(section, server, endpoint, CONNECTIONS, "wrk", round=number)
                    suite.add(loads.wrk(run, server, 1))
