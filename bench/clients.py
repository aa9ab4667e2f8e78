"""What your client gets: the heads of real clients, each beside the plainest head and the peers.

A closed loop of 100 connections for each head and what it asks, on one core for the server.
"""

from collections.abc import Sequence
from contextlib import ExitStack

from bench import heads, loads, servers
from bench.asking import KINDS, Asked, of_clients, special
from bench.figures import number, paired, per_cpu_second, select, table, throughput
from bench.loads import Run
from bench.servers import Server
from bench.suite import Suite
from bench.throughput import CONNECTIONS, SMALL

PEERS = ("Go uint64", "stock")


def measure(suite: Suite) -> None:
    """Every head in turn, in each round; the peers, whose turn is a long one, in the first."""
    suite.say("heads: what real clients send, closed loop, small numbers")
    folder = suite.folder
    with ExitStack() as stack:
        ours, go, stock = (
            stack.enter_context(start(folder, SMALL, "uint64"))
            for start in (servers.fibcore, servers.reference, servers.stock)
        )
        for round_number in range(suite.effort.head_rounds):
            for asked in (*of_clients(suite.clients), *special()):
                turn = [ours]
                if round_number == 0 and asked.what in ("current", "next"):
                    turn += [go, stock]
                elif round_number == 0 and asked.what == "404":
                    turn += [stock]
                for server in turn:
                    _one(suite, server, asked, round_number)
                if asked.what == "if-match" and asked.client == heads.PLAINEST:
                    _one(suite, ours, asked, round_number, connections=1)
                    _one(suite, ours, _plainest("next"), round_number, connections=1)


def _plainest(what: str) -> Asked:
    return next(a for a in of_clients() if (a.client, a.what) == (heads.PLAINEST, what))


def _one(
    suite: Suite, server: Server, asked: Asked, number: int, connections: int = CONNECTIONS
) -> None:
    run = Run(
        section="heads",
        peer=server.peer,
        endpoint=asked.endpoint,
        connections=connections,
        tool="load.c",
        integers=server.integers,
        synchronous=server.synchronous,
        round=number,
        client=asked.client,
        asked=asked.what,
    )
    loads.recorded_load(
        suite.folder,
        run,
        server,
        [asked.endpoint],
        seconds=suite.effort.head_seconds,
        check_every=4,
        request=asked.request,
        expected=asked.expected,
    )
    suite.add(run)


BASE = {"next": "next", "post": "next", "if-match": "next", "if-match, other": "next"}
"""With what of the plainest head a kind is compared, where it is not GET /current."""


def base_of(what: str) -> str:
    """What the plainest head asks where this is asked: "current" or "next"."""
    return BASE.get(what, "next" if what.startswith("next") else "current")


def against_plainest(
    runs: Sequence[Run], client: str, what: str, connections: int = CONNECTIONS
) -> float | None:
    """Answers a second, as a part of those that the plainest head gets in the same round."""
    ours = select(runs, section="heads", peer="fibcore", connections=connections)
    plain = select(ours, client=heads.PLAINEST, asked=base_of(what))
    return paired(select(ours, client=client, asked=what), plain, throughput)


def against_peer(runs: Sequence[Run], client: str, what: str, peer: str) -> float | None:
    """Answers a second, as a part of those that the peer gives to the same head."""
    same = select(runs, section="heads", client=client, asked=what, connections=CONNECTIONS)
    return paired(select(same, peer="fibcore"), select(same, peer=peer), throughput)


def heads_table(runs: Sequence[Run]) -> str:
    """A line for each head: what it gets, as ratios; by processor time in brackets.

    The ratio by processor time counts the answers for each second of processor that the server
    had, so that it holds on a machine on which other programs run, too.
    """
    ours = select(runs, section="heads", peer="fibcore", connections=CONNECTIONS)
    names = list(dict.fromkeys(run.client for run in ours if run.asked in KINDS))
    rows = []
    for client in names:
        cells = [client, *(_cell(runs, client, what) for what in KINDS)]
        for what in ("current", "next"):
            for peer in PEERS:
                ratio = against_peer(runs, client, what, peer)
                cells.append("-" if ratio is None else number(ratio))
        rows.append(cells)
    headings = ["head", *KINDS, *(f"{what} x {peer}" for what in KINDS[:2] for peer in PEERS)]
    others = dict.fromkeys((run.client, run.asked) for run in ours if run.asked not in KINDS)
    more = [[what, f"{client}'s", _cell(runs, client, what)] for client, what in others]
    plain = _absolute(ours)
    return (
        f"What a client gets, x the plainest head in the same round (by processor time):\n"
        f"{table(headings, rows)}\n\n{table(('asked', 'head', 'x plainest'), more)}\n{plain}"
    )


def _cell(runs: Sequence[Run], client: str, what: str) -> str:
    ours = select(runs, section="heads", peer="fibcore", connections=CONNECTIONS)
    ratio = against_plainest(runs, client, what)
    if ratio is None:
        return "-"
    plain = select(ours, client=heads.PLAINEST, asked=base_of(what))
    processor = paired(select(ours, client=client, asked=what), plain, per_cpu_second)
    return f"{ratio:.2f} ({processor:.2f})" if processor else f"{ratio:.2f}"


def _absolute(ours: Sequence[Run]) -> str:
    """The plainest head's own figures, to which the ratios refer."""
    lines = []
    for what in ("current", "next"):
        same = select(ours, client=heads.PLAINEST, asked=what)
        if same:
            best = max(map(throughput, same))
            lines.append(f"the plainest /{what}: {number(best)} answers a second at most")
    return "\n".join(lines)
