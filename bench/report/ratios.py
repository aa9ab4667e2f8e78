"""The throughput of each head, as a ratio to the plainest head and to the peers."""

from collections.abc import Sequence

from bench import heads
from bench.load.loads import Run
from bench.load.workloads import KINDS, base_of
from bench.report.figures import Value, paired, per_cpu_second, select, throughput
from bench.report.tables import number, table
from bench.sections.throughput import CONNECTIONS

PEERS = ("Go uint64", "stock")


def against_plainest(
    runs: Sequence[Run],
    client: str,
    what: str,
    connections: int = CONNECTIONS,
    value: Value = per_cpu_second,
) -> float | None:
    """The throughput of the head, relative to the plainest head in the same round.

    By default per second of the server's processor time, so that the processor time of other
    programs does not count.
    """
    ours = select(runs, section="heads", peer="fibcore", connections=connections)
    plain = select(ours, client=heads.PLAINEST, asked=base_of(what))
    return paired(select(ours, client=client, asked=what), plain, value)


def against_peer(runs: Sequence[Run], client: str, what: str, peer: str) -> float | None:
    """The throughput of the head, relative to the peer's for the same head in the same round."""
    same = select(runs, section="heads", client=client, asked=what, connections=CONNECTIONS)
    return paired(select(same, peer="fibcore"), select(same, peer=peer), per_cpu_second)


def heads_table(runs: Sequence[Run]) -> str:
    """One line per head: ratios by processor time, and by elapsed time in brackets.

    On a quiet machine the two are the same.
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
        "Answers per second of processor time, x the plainest head (by elapsed time):\n"
        f"{table(headings, rows)}\n\n{table(('request', 'head', 'x plainest'), more)}\n{plain}"
    )


def _cell(runs: Sequence[Run], client: str, what: str) -> str:
    ratio = against_plainest(runs, client, what)
    by_time = against_plainest(runs, client, what, value=throughput)
    return "-" if ratio is None or by_time is None else f"{ratio:.2f} ({by_time:.2f})"


def _absolute(ours: Sequence[Run]) -> str:
    """The figures of the plainest head, to which the ratios refer."""
    lines = []
    for what in ("current", "next"):
        same = select(ours, client=heads.PLAINEST, asked=what)
        if same:
            best = max(map(throughput, same))
            lines.append(f"plainest head, /{what}: up to {number(best)} answers per second")
    return "\n".join(lines)
