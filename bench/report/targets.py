"""The targets, in the order in which they are stated, with the figures reached."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from bench import heads
from bench.load import workloads
from bench.load.loads import Run
from bench.load.workloads import KINDS, of_clients
from bench.report.figures import (
    Figure,
    Value,
    described,
    nanoseconds,
    p99,
    paired,
    per_cpu_second,
    select,
    throughput,
)
from bench.report.ratios import against_peer, against_plainest
from bench.sections.counting import COUNTED, LOGGED, UNCOUNTED
from bench.sections.flood import BEFORE, BESIDE
from bench.sections.stores import AWAITED, EMBEDDED
from bench.sections.throughput import CONNECTIONS
from bench.suite import Suite

PLAIN = "the plainest head"


def _ratio(
    what: str,
    against: str,
    target: float,
    ours: Sequence[Run],
    theirs: Sequence[Run],
    value: Value = throughput,
    *,
    most: bool = False,
) -> Figure:
    """The ratio of our runs to theirs, with the conditions of ours."""
    reached = paired(ours, theirs, value)
    return Figure(what, against, target, reached, most=most, conditions=described(ours))


def _small(runs: Sequence[Run]) -> Iterator[Figure]:
    reads = (("nginx constant", 1.0), ("Go uint64", 1.8))
    steps = (("Go uint64", 1.2), ("nginx constant", 0.75), ("stock", 4.0))
    for endpoint in ("current", "previous", "health", "next"):
        same = select(runs, section="small", endpoint=endpoint, connections=100)
        ours = select(same, peer="fibcore")
        for peer, target in steps if endpoint == "next" else reads:
            what = f"/{endpoint}, small numbers, 100 connections"
            yield _ratio(what, peer, target, ours, select(same, peer=peer))


def _stores(runs: Sequence[Run]) -> Iterator[Figure]:
    """For one node and 100 connections."""
    same = select(runs, section="stores", connections=CONNECTIONS, nodes=1)
    for store, target in (("postgresql", 0.8), ("redis", 0.8), ("etcd", 0.5)):
        for path, least in (("next", target), ("current", 0.5)):
            here = select(same, endpoint=path)
            ours, embedded = (select(here, peer=peer) for peer in (store, EMBEDDED))
            yield _ratio(f"/{path}, {store}", EMBEDDED, least, ours, embedded)
    redis, awaited = (select(same, endpoint="next", peer=peer) for peer in ("redis", AWAITED))
    yield _ratio("/next, redis", AWAITED, 3.0, redis, awaited)


def _large(runs: Sequence[Run], core: Sequence[dict[str, Any]]) -> Iterator[Figure]:
    def at(index: int, peer: str, endpoint: str, **wanted: object) -> list[Run]:
        same = select(runs, section="large", nominal_index=index, peer=peer)
        return select(same, endpoint=endpoint, **wanted)

    for index, target in ((30_000, 1.2), (1_000_000, 0.8)):
        read, static = (at(index, peer, "current") for peer in ("fibcore", "nginx static"))
        yield _ratio(f"/current at n = {index:,}", "nginx static", target, read, static)
    thousands, million = (
        at(index, "fibcore", "next", integers="exact") for index in (30_000, 1_000_000)
    )
    what = "/next at n = 30,000"
    small = at(30_000, "fibcore", "next", integers="uint64")
    yield _ratio(what, "/next, uint64-sized", 0.75, thousands, small)
    yield _ratio(what, "Go math/big", 20, thousands, at(30_000, "Go math/big", "next"))
    what = "/next at n = 1,000,000"
    yield _ratio(what, "nginx static", 0.4, million, at(1_000_000, "nginx static", "next"))
    python = nanoseconds(core, "Python int", 1_000_000)
    reached = median(map(throughput, million)) * python / 1e9 if million and python else None
    yield Figure(what, "Python int, the step alone", 100, reached, conditions=described(million))


def _core(core: Sequence[dict[str, Any]]) -> Iterator[Figure]:
    for index in (30_000, 100_000, 1_000_000, 10_000_000):
        ours, gmpy2, memory = (
            nanoseconds(core, name, index) for name in ("fibcore", "gmpy2", "pass")
        )
        what = f"core step at n = {index:,}"
        yield Figure(what, "gmpy2 add and digits", 30, gmpy2 / ours if gmpy2 and ours else None)
        ratio = ours / memory if ours and memory else None
        yield Figure(what, "a pass over the digits", 2, ratio, most=True)


def _latency(runs: Sequence[Run]) -> Iterator[Figure]:
    same = select(runs, section="open loop", rate=1_000)
    for integers in ("uint64", "exact"):
        ours = select(same, peer="fibcore", integers=integers)
        what = f"open loop 3 x 1,000/s, p99, {integers}"
        yield _ratio(
            what, "Go uint64's p99", 1.0, ours, select(same, peer="Go uint64"), p99, most=True
        )


def _heads(runs: Sequence[Run]) -> list[Figure]:
    """The figures of ``clients``. The lowest ratio is of clients that keep their connections."""
    closing = {asked.client for asked in of_clients() if asked.closes}
    measured = select(runs, section="heads", peer="fibcore")
    names = sorted({run.client for run in measured if run.asked in KINDS} - closing)

    def least(what: str, among: str, target: float, ratios: Mapping[str, float | None]) -> Figure:
        reached = {name: ratio for name, ratio in ratios.items() if ratio is not None}
        short = [f"{name} {ratio:.2f}" for name, ratio in reached.items() if ratio < target]
        conditions = f"lowest of {len(reached)} {among}" + f"; missed: {', '.join(short)}" * bool(
            short
        )
        return Figure(
            what, PLAIN, target, min(reached.values(), default=None), conditions=conditions
        )

    def one(what: str, asked: str, connections: int = CONNECTIONS) -> Figure:
        ours = select(measured, client=heads.PLAINEST, asked=asked, connections=connections)
        reached = against_plainest(runs, heads.PLAINEST, asked, connections)
        return Figure(what, PLAIN, 0.5, reached, conditions=described(ours))

    def peer(what: str, client: str, asked: str, name: str, target: float) -> Figure:
        ours = select(measured, client=client, asked=asked)
        reached = against_peer(runs, client, asked, name)
        return Figure(what, f"{name}, same head", target, reached, conditions=described(ours))

    found = []
    for path in ("current", "next"):
        ratios = {name: against_plainest(runs, name, path) for name in names}
        found.append(least(f"/{path}, heads of real clients", "clients", 0.85, ratios))
    for path in ("current", "next"):
        ratios = {
            name: against_plainest(runs, "nginx-requests", f"{path}, {name}")
            for name in workloads.VARYING
        }
        found.append(least(f"/{path}, a new head each time", "fields", 0.7, ratios))
    return [
        *found,
        peer("/next, head of python-requests", "requests", "next", "Go uint64", 1.1),
        one("/current, If-None-Match, 304", "304"),
        one("/next, a new If-Match each time, 412", "if-match, other"),
        one("/next, If-Match with the last ETag, 200 or 412", "if-match"),
        one("/next, the same, 1 connection, 200", "if-match", 1),
        one("/current, text/plain", "text"),
        one("/current, HEAD", "HEAD"),
        peer("/current, ab -k", "ab-k", "current", "Go uint64", 0.9),
        peer("unknown path (404), by Starlette", heads.PLAINEST, "404", "stock", 0.9),
    ]


def _takeover(found: Mapping[str, Any], what: str, target: float) -> list[Figure]:
    kills = ""
    if found:
        kills = (
            f"{found['durability']}, exact, {found['kills']} kills, "
            f"n = {found['first index']:,}-{found['last index']:,}, "
            f"{found['checked']:,} values checked"
        )
    gap, refused = found.get("longest gap ms"), found.get("refused connections")
    return [
        Figure(f"{what}, longest gap", "between answers", target, gap, " ms", True, kills),
        Figure(f"{what}, refused connections", "", 0, refused, "", True, kills),
    ]


def _flood(runs: Sequence[Run], found: Mapping[str, Any]) -> Iterator[Figure]:
    before, beside = (select(runs, section=name) for name in (BEFORE, BESIDE))
    what = "/next beside a flood of /numbers at 10,000,000"
    yield _ratio(what, "its rate without", 0.8, beside, before)
    yield _ratio(what, "its p99 without", 3, beside, before, p99, most=True)
    memory = found.get("PSS MB")
    yield Figure(what, "PSS of all processes", 150, memory, " MB", True, described(beside))


def _memory(found: Mapping[str, Any]) -> Figure:
    held = ""
    if found:
        held = (
            f"{found['durability']}, exact, {found['processes']} processes, "
            f"n = {found['first index']:,}-{found['last index']:,}"
        )
        if found["cgroup peak MB"] is not None:
            held += f", cgroup peak {found['cgroup peak MB']:.0f} MB with page cache"
    peak = found.get("peak MB")
    return Figure("memory, 1,000 connections", "PSS of all processes", 150, peak, " MB", True, held)


def _counting(runs: Sequence[Run]) -> Iterator[Figure]:
    for section, ours, peer, target in (
        ("counting", COUNTED, UNCOUNTED, 0.97),
        ("logged", LOGGED, COUNTED, 0.75),
    ):
        for endpoint in ("current", "next"):
            same = select(runs, section=section, endpoint=endpoint)
            upper, lower = (select(same, peer=each) for each in (ours, peer))
            what = f"/{endpoint}, {section}, by processor time"
            yield _ratio(what, peer, target, upper, lower, per_cpu_second)


def _keyed(runs: Sequence[Run]) -> Figure:
    same = select(runs, section="keyed")
    plain, keyed = (select(same, asked=what) for what in ("next", workloads.keyed().what))
    what = "/next with Idempotency-Key, processor time"
    reached = paired(plain, keyed, per_cpu_second)
    return Figure(what, "without a key", 1.25, reached, most=True, conditions=described(keyed))


def targets(suite: Suite) -> list[Figure]:
    """All targets, with the figures reached."""
    runs = suite.runs
    return [
        *_small(runs),
        *_stores(runs),
        *_heads(runs),
        *_large(runs, suite.core),
        *_core(suite.core),
        *_latency(runs),
        *_takeover(suite.takeover, "takeover after kill -9", 30),
        *_takeover(suite.large_takeover, "takeover at n = 10,000,000", 100),
        *_counting(runs),
        _keyed(runs),
        *_flood(runs, suite.flood),
        _memory(suite.memory),
    ]
