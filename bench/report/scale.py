"""A model of many nodes on one sequence, made of what one node was measured to cost.

    node, an answer          a + r / k      k: the steps, or reads, that share a round trip
    store, an answer         s / k
    batches a second         1 / h          at the most: those of one sequence come one by one

With c connections a node, all of which step as soon as they are answered, a node needs c a + r of
its processor for a batch of c, and gets its turn at the store every N h. Where the first is the
longer the nodes are what bounds, and twice as many do twice as much. Past that the steps of a
second are c / h however many nodes there are, and each waits N h.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from bench.load.loads import Run
from bench.report.figures import select
from bench.report.tables import number, table
from bench.sections import stores
from bench.sections.throughput import CONNECTIONS

SIZES: Final = (1, 2, 4, 10, 100, 1_000)
"""Numbers of nodes."""


@dataclass(frozen=True, slots=True)
class Model:
    """Costs in microseconds: of the processors, but for ``hold``, which is of the clock."""

    answer: float
    """Of a node, for an answer, without its part of a round trip: a."""
    turn: float
    """Of a node, for a round trip: r."""
    store: float
    """Of the store, for a round trip: s."""
    hold: float
    """How long a batch keeps the next one of the sequence waiting, at the most: h. It is the median
    wait of one connection, in the round in which others have disturbed the disk least."""
    shared: float
    """How many answers shared a round trip at a hundred connections of one node."""

    @classmethod
    def of(cls, one: Sequence[Run], hundred: Sequence[Run]) -> Self | None:
        """Made of runs of one node, with one connection and with a hundred; None without them."""
        if not one or not hundred:
            return None
        alone, many = stores.costs(one), stores.costs(hundred)
        if not alone["answers a message"]:
            return None
        # Of one connection each answer has a round trip to itself.
        shared = many["answers a message"] / alone["answers a message"]
        if shared <= 1:
            return None
        turn = (alone["nodes us an answer"] - many["nodes us an answer"]) / (1 - 1 / shared)
        return cls(
            answer=many["nodes us an answer"] - turn / shared,
            turn=turn,
            store=many["store us an answer"] * shared,
            hold=min(run.latency.get("50", 0.0) for run in one),
            shared=shared,
        )

    def node_us(self, nodes: int) -> float:
        """What an answer costs the nodes when a hundred connections are spread over so many."""
        return self.answer + self.turn * nodes / self.shared

    def store_us(self, nodes: int) -> float:
        """The same of the store."""
        return self.store * nodes / self.shared

    def rate(self, nodes: int, connections: int) -> float:
        """Steps a second of nodes with a core each, and so many connections at each of them."""
        return 1e6 * nodes * connections / self.period(nodes, connections)

    def period(self, nodes: int, connections: int) -> float:
        """Microseconds from a batch of a node to its next one: what a step waits, about."""
        return max(connections * self.answer + self.turn, nodes * self.hold)

    def store_busy(self, nodes: int, connections: int) -> float:
        """Of one core."""
        return self.store * nodes / self.period(nodes, connections)


def _models(runs: Sequence[Run], path: str) -> dict[str, Model]:
    same = select(runs, section="stores", endpoint=path)
    found = {}
    for store in dict.fromkeys(run.peer for run in same if run.nodes > 1):
        here = select(same, peer=store, nodes=1)
        model = Model.of(select(here, connections=1), select(here, connections=CONNECTIONS))
        if model is not None:
            found[store] = model
    return found


def predictions_table(runs: Sequence[Run]) -> str:
    """What the model says of more nodes, beside what was measured of them; nothing without runs."""
    rows = []
    for path in ("next", "current"):
        for store, model in _models(runs, path).items():
            same = select(runs, section="stores", endpoint=path, peer=store)
            for nodes in sorted({run.nodes for run in same}):
                found = stores.costs(select(same, nodes=nodes, connections=CONNECTIONS))
                rows.append(
                    (
                        f"/{path}",
                        store,
                        str(nodes),
                        number(model.node_us(nodes)),
                        number(found["nodes us an answer"]),
                        number(model.store_us(nodes)),
                        number(found["store us an answer"]),
                    )
                )
    headings = ("path", "store", "nodes", *("nodes us, model", "measured"))
    return table((*headings, "store us, model", "measured"), rows) if rows else ""


def scale_table(runs: Sequence[Run]) -> str:
    """What the model says of nodes with a core each, and a hundred or a thousand connections."""
    rows = []
    for store, model in _models(runs, "next").items():
        for nodes in SIZES:
            cells = []
            for connections in (CONNECTIONS, 10 * CONNECTIONS):
                cells += [
                    number(model.rate(nodes, connections)),
                    number(model.period(nodes, connections) / 1e3),
                    f"{model.store_busy(nodes, connections):.0%}",
                ]
            rows.append((store, str(nodes), *cells))
    headings = [
        f"{what}, {connections:,} a node"
        for connections in (CONNECTIONS, 10 * CONNECTIONS)
        for what in ("steps a second", "wait ms", "store busy")
    ]
    return table(("store", "nodes", *headings), rows) if rows else ""
