"""The sections of the benchmark: each measures one thing, and yields its figures."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from bench import heads, load, machine, servers
from bench.figures import BESIDE, OURS, Figure, Name, alternate, cpu, p50, ratio
from bench.heads import Request
from bench.load import Load, Run
from bench.servers import Server
from tests.support.checker import ENDPOINTS, Integers
from tests.support.engines import ENGINES, Engine
from tests.support.supervised import Supervised

SMALL: Final = 90
"""F(90) has 19 digits."""
RATE: Final = 500
"""Requests per second of each stream of an open loop."""
KEPT_MEMORY: Final = str(2**26)
"""Of malloc, as in the server, which reuses the memory of long numbers."""


@dataclass(slots=True)
class Bench:
    """What all sections share.

    Args:
        folder: for the load's files.
        beside: another checkout to compare with.
        rounds: of each comparison.
    """

    folder: Path
    beside: Path | None = None
    rounds: int = 3
    runs: list[Run] = field(default_factory=list)
    """All that was measured."""

    @contextmanager
    def fibcore(
        self, integers: Integers, index: int = SMALL, store: Mapping[str, str] | None = None
    ) -> Iterator[dict[str, Server]]:
        """This checkout's server, and the other's, each with a sequence of its own."""
        checkouts = {OURS: machine.ROOT} | ({BESIDE: self.beside} if self.beside else {})
        with ExitStack() as stack:
            yield {
                name: stack.enter_context(
                    servers.fibcore(
                        path, index, integers, store and {**store, "FIB_SEQUENCE": name}
                    )
                )
                for name, path in checkouts.items()
            }

    def compare(
        self,
        contenders: Mapping[Name, tuple[Server, Request | None]],
        path: str,
        *,
        rounds: int | None = None,
        others: Mapping[Name, Callable[[], Run]] | None = None,
        **how: object,
    ) -> dict[Name, list[Run]]:
        """Closed loops on ``path``, each contender once in a round.

        Args:
            others: contenders that are measured in another way.
            how: arguments of ``load.run``.
        """

        def one(server: Server, request: Request | None) -> Run:
            # nginx answers every path with the bytes of /current, and they are checked as such.
            asked = path if server.integers else "current"
            return load.run(self.folder, server, asked, request, **how)  # type: ignore[arg-type]

        runs = {name: partial(one, *each) for name, each in contenders.items()}
        found = alternate({**runs, **(others or {})}, rounds or self.rounds)
        self.runs += [run for name in runs for run in found[name]]
        return found


def plain(peers: Mapping[str, Server]) -> dict[str, tuple[Server, Request | None]]:
    return {name: (server, None) for name, server in peers.items()}


def reads(bench: Bench) -> Iterator[Figure]:
    """Reads of a small number, 100 connections"""
    with bench.fibcore("exact") as ours, servers.nginx(SMALL) as nginx:
        for path in ("current", "previous"):
            rounds = bench.compare(plain({**ours, "nginx constant": nginx}), path)
            yield ratio("reads", f"/{path}", rounds, "nginx constant", 1.0)


def following(bench: Bench) -> Iterator[Figure]:
    """Steps, 100 connections, modulo 2^64: exact numbers would soon be large"""
    with bench.fibcore("uint64") as ours, servers.nginx(SMALL) as nginx:
        rounds = bench.compare(plain({**ours, "nginx constant": nginx}), "next")
        yield ratio("next", "/next", rounds, "nginx constant", 0.75)


def client_heads(bench: Bench) -> Iterator[Figure]:
    """The heads of real clients"""
    with bench.fibcore("uint64") as ours:
        for path in ("current", "next"):
            base = (ours[OURS], heads.request(heads.PLAIN, path=f"/{path}"))
            asked = {name: heads.request(name, path=f"/{path}") for name in heads.clients()[1:]}
            asked["a new X-Request-Id each time"] = heads.varying(f"/{path}")
            # Three heads share a measurement of the plain one: conditions change within a minute.
            for names in zip(*[iter(asked)] * 3, strict=True):
                contenders = {
                    (name, who): (server, asked[name])
                    for name in names
                    for who, server in ours.items()
                }
                rounds = bench.compare({**contenders, ("plain", OURS): base}, path, seconds=0.5)
                for name in names:
                    runs = {who: rounds[name, who] for who in ours}
                    runs["plain head"] = rounds["plain", OURS]
                    target = 0.7 if name.startswith("a new") else 0.85
                    yield ratio("heads", f"/{path}, {name}", runs, "plain head", target)


def lone(bench: Bench) -> Iterator[Figure]:
    """A single client, whose steps share their commit with no other"""

    def sync() -> Run:
        taken = machine.sync_microseconds(bench.folder)
        return Run(1e6 / taken, taken, taken, taken)

    with bench.fibcore("uint64") as ours:
        for path, target in (("next", 2.0), ("current", None)):
            rounds = bench.compare(plain(ours), path, connections=1, others={"a sync": sync})
            yield ratio("lone", f"/{path}, p50", rounds, "a sync", target, p50, most=True)


def large(bench: Bench) -> Iterator[Figure]:
    """Large numbers; the steps of a run are few, so that they stay near the index"""
    for index, steps, read, step in ((30_000, 5_000, 1.2, 0.75), (1_000_000, 2_000, 0.8, 0.4)):
        for path, target in (("current", read), ("next", step)):
            many = None if path == "current" else steps
            start = index - bench.rounds * steps // 2 if many else index
            alone = Bench(bench.folder, rounds=bench.rounds)
            with (
                alone.fibcore("exact", start) as ours,
                servers.nginx(index, static=True) as nginx,
            ):
                # Every index is checked, but not every number: that is slower than nginx.
                contenders = plain({**ours, "nginx static": nginx})
                runs = alone.compare(contenders, path, requests=many, check_every=16)
            bench.runs += alone.runs
            yield ratio("large", f"/{path} at n = {index:,}", runs, "nginx static", target)


def keyed(bench: Bench) -> Iterator[Figure]:
    """Steps with a new idempotency key each time"""
    without = "without a key, processor"
    with bench.fibcore("uint64") as ours:
        contenders = {name: (server, heads.keyed()) for name, server in ours.items()}
        step = heads.request(heads.PLAIN, path="/next")
        # The first one on a connection is 409: its index is 0, and keys of then may be forgotten.
        runs = bench.compare(
            {**contenders, without: (ours[OURS], step)}, "next", rounds=4, expected=(200, 409)
        )
        yield ratio("keyed", "/next, Idempotency-Key", runs, without, 1.25, cpu, most=True)


@contextmanager
def supervised(index: int) -> Iterator[tuple[Supervised, Server]]:
    """The whole appliance as ``make run`` starts it, on the server's core."""
    appliance = Supervised(inside=machine.pinned(machine.SERVER_CORE))
    settings = {"FIB_STATE": str(appliance.database)}
    servers.set_index(machine.ROOT, index, settings, appliance.folder)
    with appliance:
        assert appliance.standby
        yield appliance, Server(appliance.port, appliance.pid, "exact")


def takeover(bench: Bench) -> Iterator[Figure]:
    """kill -9 of the server under load, and how long no request was answered"""
    kills, apart = 5, 1.5
    with supervised(SMALL) as (appliance, server):
        began = time.monotonic()
        under = Load(
            bench.folder,
            server,
            {"next": None, "current": None},
            connections=100,
            seconds=(kills + 1) * apart * 2,
            rate=RATE,
        )
        times = []
        for _ in range(kills):
            time.sleep(apart)  # a gap is visible only between answers
            assert appliance.standby  # waits until there is one
            victim = appliance.server
            times.append(time.monotonic_ns())
            os.kill(victim, signal.SIGKILL)
        assert under.process.poll() is None, f"{time.monotonic() - began:.0f} s for {kills} kills"
        counts = under.wait()
        records = under.finish(counts, may_lose=True)
    gaps = [load.longest_gap(records, at, at + 10**9) / 1e6 for at in times]
    yield Figure("takeover", f"longest of {kills} gaps", "", max(gaps), 30, True, " ms")
    refused = counts["refused"]
    yield Figure("takeover", "refused connections", "", refused, 0, True, "")


def memory(bench: Bench) -> Iterator[Figure]:
    """All processes of the appliance while a thousand connections are served"""
    with supervised(100_000) as (appliance, server):
        appliance.wait_until_all_run()
        sizes = [machine.pss_bytes(machine.tree(appliance.pid))]
        under = Load(
            bench.folder,
            server,
            dict.fromkeys(ENDPOINTS),
            connections=1_000,
            seconds=5,
            rate=RATE,
        )
        while under.process.poll() is None:
            sizes.append(machine.pss_bytes(machine.tree(appliance.pid)))
            time.sleep(0.25)
        under.finish(under.wait())
    yield Figure("memory", "PSS, idle", "", sizes[0] / 1e6, unit=" MB")
    yield Figure("memory", "PSS, 1,000 connections", "", max(sizes) / 1e6, 150, True, " MB")


@contextmanager
def _engine(kind: type[Engine]) -> Iterator[dict[str, str]]:
    """The settings of nodes on this engine, which has a core of its own if there are three."""
    own = os.sched_getaffinity(0)
    engine = kind()
    # Processes inherit the cores of their parent.
    os.sched_setaffinity(0, {machine.ENGINE_CORE})
    with engine:
        os.sched_setaffinity(0, own)
        if machine.file_system(engine.folder) == "tmpfs":
            print(f"{engine.folder} is in memory: set TMPDIR to a disk", file=sys.stderr)
        yield {"FIB_STORE": engine.url}


def engines(bench: Bench) -> Iterator[Figure]:
    """Nodes on a shared store, which loses nothing, 100 connections to one node"""
    with bench.fibcore("uint64") as embedded:
        for kind in ENGINES:
            name = kind.__name__.lower()
            if not shutil.which(kind.programs[0], path=ENGINE_PATH):
                print(f"{name} is not installed, and not measured", file=sys.stderr)
                continue
            least = 0.5 if name == "etcd" else 0.8
            with _engine(kind) as store, bench.fibcore("uint64", store=store) as ours:
                contenders = plain({**ours, "sqlite": embedded[OURS]})
                for path, target in (("next", least), ("current", 0.5)):
                    runs = bench.compare(contenders, path, rounds=2, sleeps=True)
                    yield ratio("engines", f"/{path}, {name}", runs, "sqlite", target)


ENGINE_PATH: Final = os.pathsep.join(
    (os.environ["PATH"], *map(str, Path("/usr/lib/postgresql").glob("*/bin")))
)


def core(_: Bench) -> Iterator[Figure]:
    """The core's step without a server"""
    kept = {"MALLOC_TRIM_THRESHOLD_": KEPT_MEMORY, "MALLOC_MMAP_THRESHOLD_": KEPT_MEMORY}
    indexes = (30_000, 100_000, 1_000_000)
    command = (sys.executable, "-m", "bench.core", *map(str, indexes))
    done = subprocess.run(
        machine.pinned(machine.SERVER_CORE, *command),
        cwd=machine.ROOT,
        env={**os.environ, **kept},
        stdout=subprocess.PIPE,
        check=True,
    )
    for index, (step, least) in json.loads(done.stdout).items():
        what = f"a step at n = {int(index):,}, {step / 1e3:,.3g} us"
        yield Figure("core", what, "a pass over the digits", step / least, 2.5, most=True)


SECTIONS: Final[dict[str, Callable[[Bench], Iterator[Figure]]]] = {
    "reads": reads,
    "next": following,
    "heads": client_heads,
    "lone": lone,
    "large": large,
    "keyed": keyed,
    "takeover": takeover,
    "memory": memory,
    "engines": engines,
    "core": core,
}
COMPARED: Final = ("reads", "next", "heads", "lone", "keyed", "engines")
"""The sections that ``--beside`` compares."""
