"""The stores compared: steps and reads through several nodes, and their cost in the engine.

The engines are those of the tests, from Debian's packages, each configured to lose nothing. A node
and the engine have a core each. The other counts (messages, steps per batch, processor time of each
side) do not depend on the number of cores.
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from bench import machine, servers
from bench.load import loads
from bench.load.loads import Run
from bench.report.figures import select
from bench.report.tables import number, table
from bench.sections.throughput import CONNECTIONS, SMALL
from bench.servers import Server
from bench.suite import Suite
from fibcore.appliance.settings import Settings
from fibcore.stores.engine import EngineOpener
from tests.support.engines import ENGINES, Engine

EMBEDDED: Final = "sqlite"
NODES: Final = (1, 2, 4)
AWAITED: Final = "Go, Redis awaited"


@dataclass(frozen=True, slots=True)
class Measured:
    """Nodes of one store."""

    nodes: tuple[Server, ...]
    engine: Engine | None = None

    def store_seconds(self) -> float:
        """The processor time of the engine so far."""
        if self.engine is None or self.engine.process is None:
            return 0.0
        return machine.cpu_seconds(machine.tree(self.engine.process.pid))

    def messages(self) -> int:
        """Messages sent to the engine so far, on the connections that are open now.

        A batch or a read is one message to PostgreSQL and Redis, and several to etcd.
        """
        if self.engine is None:
            return 0
        shown = subprocess.run(
            ["ss", "-Htin", f"dport = :{self.engine.port}"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        return sum(map(int, re.findall(r"\bdata_segs_out:(\d+)", shown)))

    def batches(self) -> int:
        """Batches that the nodes have committed so far."""
        return sum(map(_batches, self.nodes))

    @contextmanager
    def counted(self, run: Run) -> Iterator[None]:
        """Add to the run what is counted inside the context."""
        batches, begun = self.batches(), time.monotonic()
        seconds, messages = self.store_seconds(), self.messages()
        yield
        run.store_busy = (self.store_seconds() - seconds) / (time.monotonic() - begun)
        run.messages = self.messages() - messages
        run.batches = self.batches() - batches


def _batches(node: Server) -> int:
    status, _, body = node.get("/status")
    if status != 200:  # peers have no /status
        return 0
    counts: Sequence[int] = json.loads(body)["batch_steps"]["counts"]
    return sum(counts)


@contextmanager
def _running(kind: type[Engine], suite: Suite) -> Iterator[Engine]:
    """The engine, on its own core: processes inherit the cores of their parent."""
    os.sched_setaffinity(0, {machine.STORE_CORE})
    try:
        with kind() as engine:
            os.sched_setaffinity(0, {machine.LOAD_CORE})
            if _file_system(engine.folder) == "tmpfs":
                suite.problem(
                    f"{engine.folder} is in memory, where a sync costs nothing. "
                    "Set TMPDIR to a folder on a disk"
                )
            yield engine
    finally:
        os.sched_setaffinity(0, {machine.LOAD_CORE})


def _file_system(folder: Path) -> str:
    command = ("stat", "-f", "-c", "%T", folder)
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def _nodes(suite: Suite, stack: ExitStack, engine: Engine, name: str) -> Iterator[Server]:
    store = {"FIB_STORE": engine.url, "FIB_SEQUENCE": "bench"}
    opener = Settings.from_environ(store).opener()
    assert isinstance(opener, EngineOpener)
    opener.create(SMALL)
    for place in range(max(NODES)):
        core = machine.NODE_CORES[place % len(machine.NODE_CORES)]
        starting = servers.node(suite.folder, name, store, "uint64", core)
        yield stack.enter_context(starting)


def stores(suite: Suite) -> None:
    """wrk on small numbers, as in the section small; each round measures every store."""
    suite.log(f"stores: nodes on cores {machine.NODE_CORES}, engines on {machine.STORE_CORE}")
    with ExitStack() as stack:
        embedded = stack.enter_context(servers.fibcore(suite.folder, SMALL, "uint64"))
        embedded.peer = EMBEDDED
        measured = [Measured((embedded,))]
        for kind in ENGINES:
            name = kind.__name__.lower()
            try:
                engine = stack.enter_context(_running(kind, suite))
            except OSError as error:
                suite.incomplete(f"{name} was not measured: {error}")
                continue
            nodes = tuple(_nodes(suite, stack, engine, name))
            measured += [Measured(nodes[:count], engine) for count in NODES]
            if name == "redis":
                peer = servers.reference_redis(suite.folder, engine.port)
                measured.append(Measured((stack.enter_context(peer),), engine))
        for turn in range((suite.effort.rounds + 1) // 2):
            for path in ("next", "current"):
                for each in measured:
                    for connections in (1, CONNECTIONS) if len(each.nodes) == 1 else (CONNECTIONS,):
                        suite.add(_measure(suite, each, path, connections, turn))


def _measure(suite: Suite, measured: Measured, path: str, connections: int, turn: int) -> Run:
    first, *others = measured.nodes
    count = len(measured.nodes)
    run = Run.of("stores", first, path, connections, "wrk", round=turn, nodes=count)
    loads.wrk(run, first, suite.effort.wrk_seconds, others, measured.counted(run))
    run.others_busy = max(0.0, run.others_busy - run.store_busy)
    return run


def costs(same: Sequence[Run]) -> dict[str, float]:
    """Medians over the rounds of one kind of run: costs of an answer and of a message, in us."""

    def middle(values: Iterator[float]) -> float:
        return median(list(values) or [0.0])

    return {
        "per second": middle(run.per_second for run in same),
        "answers per message": middle(run.requests / run.messages for run in same if run.messages),
        "steps per batch": middle(run.requests / run.batches for run in same if run.batches),
        "node us per answer": middle(
            1e6 * run.server_busy / run.per_second for run in same if run.per_second
        ),
        "store us per answer": middle(
            1e6 * run.store_busy / run.per_second for run in same if run.per_second
        ),
        "store us per message": middle(
            1e6 * run.store_busy * run.seconds / run.messages for run in same if run.messages
        ),
        "p50 us": middle(run.latency.get("50", 0.0) for run in same),
        "p99 us": middle(run.latency.get("99", 0.0) for run in same),
        "nodes busy": middle(run.server_busy for run in same),
        "store busy": middle(run.store_busy for run in same),
        "load busy": middle(run.load_busy for run in same),
        "others busy": middle(run.others_busy for run in same),
    }


def stores_table(runs: Sequence[Run]) -> str:
    """One line per store, number of nodes, path and number of connections."""
    kinds: dict[tuple[str, str, int, int], list[Run]] = {}
    for run in select(runs, section="stores"):
        kinds.setdefault((run.endpoint, run.peer, run.nodes, run.connections), []).append(run)
    if not kinds:
        return ""
    rows: list[tuple[str, ...]] = []
    headings: list[str] = []
    for (path, peer, nodes, connections), same in kinds.items():
        found = costs(same)
        headings = list(found)
        cells = (f"{v:.0%}" if what.endswith("busy") else number(v) for what, v in found.items())
        rows.append((f"/{path}", peer, str(nodes), str(connections), *cells))
    return table(("path", "store", "nodes", "connections", *headings), rows)
