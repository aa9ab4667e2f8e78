"""A model of many nodes on one sequence, from the measured costs of one node.

    node, per answer         a + r / k      k: the steps, or reads, that share a round trip
    store, per answer        s / k
    batches per second       1 / h          at most: the batches of one sequence are serial

With c connections per node, in a closed loop, a node needs c a + r of processor time for a batch of
c, and commits a batch every N h. While the first is longer, the nodes are the bottleneck, and twice
as many make twice as many steps. Past that there are c / h steps per second whatever the number of
nodes, and each step waits N h.
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
    """Costs in microseconds of processor time; ``hold`` is elapsed time."""

    answer: float
    """Of a node, per answer, without its share of a round trip: a."""
    turn: float
    """Of a node, per round trip: r."""
    store: float
    """Of the store, per round trip: s."""
    hold: float
    """Upper bound of the time that a batch delays the next one of the sequence: h. It is the median
    latency of one connection, in the round in which it was lowest."""
    shared: float
    """Answers that shared a round trip, with 100 connections to one node."""

    @classmethod
    def of(cls, one: Sequence[Run], hundred: Sequence[Run]) -> Self | None:
        """From runs of one node, with one connection and with 100; None without them."""
        if not one or not hundred:
            return None
        alone, many = stores.costs(one), stores.costs(hundred)
        if not alone["answers per message"]:
            return None
        # With one connection, each answer has its own round trip.
        shared = many["answers per message"] / alone["answers per message"]
        if shared <= 1:
            return None
        turn = (alone["node us per answer"] - many["node us per answer"]) / (1 - 1 / shared)
        return cls(
            answer=many["node us per answer"] - turn / shared,
            turn=turn,
            store=many["store us per answer"] * shared,
            hold=min(run.latency.get("50", 0.0) for run in one),
            shared=shared,
        )

    def node_us(self, nodes: int) -> float:
        """Cost of an answer in the nodes, with 100 connections spread over ``nodes``."""
        return self.answer + self.turn * nodes / self.shared

    def store_us(self, nodes: int) -> float:
        """Cost of an answer in the store, with 100 connections spread over ``nodes``."""
        return self.store * nodes / self.shared

    def rate(self, nodes: int, connections: int) -> float:
        """Steps per second of nodes with a core and ``connections`` each."""
        return 1e6 * nodes * connections / self.period(nodes, connections)

    def period(self, nodes: int, connections: int) -> float:
        """Microseconds from a batch of a node to its next one: about the wait of a step."""
        return max(connections * self.answer + self.turn, nodes * self.hold)

    def store_busy(self, nodes: int, connections: int) -> float:
        """The share of a core that the store uses."""
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
    """The model's predictions for more nodes, and the measurements; empty without runs."""
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
                        number(found["node us per answer"]),
                        number(model.store_us(nodes)),
                        number(found["store us per answer"]),
                    )
                )
    headings = ("path", "store", "nodes", *("node us, model", "measured"))
    return table((*headings, "store us, model", "measured"), rows) if rows else ""


def scale_table(runs: Sequence[Run]) -> str:
    """The model's predictions for nodes with a core, and 100 or 1,000 connections, each."""
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
        f"{what}, {connections:,} per node"
        for connections in (CONNECTIONS, 10 * CONNECTIONS)
        for what in ("steps per second", "wait ms", "store busy")
    ]
    return table(("store", "nodes", *headings), rows) if rows else ""
