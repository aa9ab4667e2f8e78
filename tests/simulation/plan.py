"""What a seed stands for: a store, nodes, clients, and faults with their times."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

Fault: TypeAlias = tuple[Callable[[], object], Callable[[], object]]
"""What begins it, and what ends it."""

STORES: Final = ("etcd", "postgresql", "redis", "sqlite")
"""The last is the embedded one, on a machine with a disk."""

KINDS: Final = {
    "etcd": ("three members",),
    "postgresql": ("alone", "alone", "with a standby", "with a standby", "standby to come"),
    "redis": ("always", "everysec", "replicated", "replicated", "handed over"),
    "sqlite": ("",),
}
"""Of each store."""

ACTIVE_SECONDS: Final = 6.0
"""Faults begin within so much of a run at the most."""

FAULTS: Final = {
    "kill": 3,
    "stop": 2,
    "restart": 2,
    "cut": 3,
    "cut_there": 2,
    "cut_back": 3,
    "slow": 1,
    "engine_kill": 2,
    "engine_stop": 2,
    "engine_cut": 2,
    "lossy": 4,
    "late": 4,
    "engine": 4,
    "jump": 1,
    "forget": 2,
    "clock": 1,
}
"""Of nodes and their engine."""
MACHINE_FAULTS: Final = {
    "kill": 6,
    "restart": 2,
    "stop": 3,
    "stop_standby": 1,
    "power": 6,
    "failing_syncs": 4,
    "failing_writes": 1,
    "lying": 1,
    "full": 2,
    "denied": 2,
    "no_descriptors": 1,
    "failing_reads": 1,
    "slow": 2,
    "set_index": 2,
    "older_copy": 1,
    "wal_lost": 1,
    "deleted": 1,
    "reader": 2,
    "locked": 1,
    "stop_backup": 1,
}
"""Of one machine with the embedded store."""

Together: TypeAlias = dict[str, tuple[tuple[str, str, float, float], ...]]
"""What brings out more together than alone: each with its kind, which of that kind, when it begins
after the first, and for how long; the times at the most."""

TOGETHER: Final[Together] = {
    "a record removed in doubt": (("lossy", "lost_reply", 0.0, 3.0), ("forget", "", 1.5, 0.0)),
    "a right lost in doubt": (
        ("lossy", "lost_reply", 0.0, 3.0),
        ("engine", "no_right", 1.5, 4.0),
    ),
    "no right to keys": (
        ("engine", "no_right_to_keys", 1.0, 3.0),
        ("engine", "no_right_to_keys", 8.0, 3.0),
    ),
    "a right lost after no space": (
        ("engine", "no_space", 0.0, 9.0),
        ("engine", "no_right", 1.0, 0.2),
        ("engine", "no_right", 2.0, 0.2),
        ("engine", "no_right", 3.0, 0.2),
    ),
    "late beside a restart": (("late", "", 0.0, 1.5), ("restart", "", 8.0, 0.0)),
    "a standby that comes": (
        ("engine", "attach", 0.5, 0.0),
        ("engine", "failover", 4.0, 9.0),
        ("cut", "", 3.0, 9.0),
    ),
    "restarts": (("restart", "", 1.0, 0.0), ("restart", "", 3.0, 0.0)),
    "failover": (("engine", "failover", 2.0, 9.0),),
    "failover of one that was killed": (
        ("engine", "failover", 2.0, 9.0),
        ("engine_kill", "", 3.0, 1.0),
    ),
    "failover after a crash": (("engine", "failover_after_a_crash", 2.0, 9.0),),
    "a standby that comes and takes over": (
        ("engine", "attach", 0.1, 0.0),
        ("engine", "failover_after_a_cancel", 0.5, 9.0),
    ),
    "power": (("engine", "power_cut", 2.0, 1.0), ("engine", "power_cut", 4.0, 1.0)),
    "hand over": (("engine", "hand_over", 2.0, 0.0), ("engine", "hand_over", 6.0, 0.0)),
    "hand over beside a start": (("kill", "", 0.0, 0.0), ("engine", "hand_over", 1.2, 0.0)),
    "late replies": (("lossy", "late_reply", 1.0, 9.0),),
    "late questions": (("late", "", 1.0, 6.0),),
    "lost replies": (("lossy", "lost_reply", 1.0, 4.0), ("lossy", "lost_question", 1.0, 4.0)),
}
MACHINE_TOGETHER: Final[Together] = {
    "a failed sync before a power cut": (("failing_syncs", "", 0.0, 2.0), ("power", "", 3.0, 1.0)),
    "failed syncs before a power cut": (("failing_syncs", "3", 0.0, 4.0), ("power", "", 3.0, 1.0)),
    "a lie before a power cut": (("lying", "", 0.0, 4.0), ("power", "", 3.0, 1.0)),
    "a kill before a power cut": (("kill", "", 0.5, 0.0), ("power", "", 1.5, 1.0)),
    "a kill": (("kill", "", 2.0, 0.0), ("kill", "", 4.0, 0.0)),
    "a kill while stopped": (("stop", "", 0.5, 2.0), ("kill", "", 2.0, 0.0)),
    "kills beside a reader": (
        ("reader", "", 0.0, 9.0),
        ("kill", "", 2.0, 0.0),
        ("kill", "", 3.0, 0.0),
        ("power", "", 4.0, 1.0),
    ),
    "a kill beside a reader": (("reader", "", 0.0, 9.0), ("kill", "", 2.0, 0.0)),
    "a full disk": (("full", "", 0.5, 3.0), ("kill", "", 1.0, 0.0)),
    "a right lost at a start": (("denied", "", 0.0, 1.0), ("kill", "", 0.5, 0.0)),
    "a right lost at each start": (
        ("kill", "", 1.0, 0.0),
        ("denied", "", 1.0, 0.3),
        ("kill", "", 1.5, 0.0),
        ("denied", "", 1.5, 2.0),
    ),
    "a lost WAL": (("wal_lost", "", 2.0, 6.0),),
    "power cuts": (("power", "", 1.0, 1.0), ("power", "", 4.0, 1.0)),
    "a late power cut": (("power", "", 4.0, 1.0), ("power", "", 9.0, 1.0)),
}

CLIENTS: Final = {
    "stepper": 4,
    "reader": 2,
    "across": 3,
    "mixed": 2,
    "conditional": 2,
    "recipe": 2,
    "keyed": 3,
    "twins": 2,
    "leaver": 1,
    "piper": 2,
    "splitter": 1,
    "slow": 1,
    "crowd": 1,
}


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """A fault: which, on what, from when to when."""

    kind: str
    target: int
    begin: float
    end: float
    chance: float
    """Decides what else there is to decide of it."""
    which: str = ""
    """Of several of its kind, if that is not left to chance."""

    def __str__(self) -> str:
        return f"{self.begin:.3f} to {self.end:.3f} s: {self.kind} {self.which}({self.target})"


@dataclass(frozen=True, slots=True)
class ClientPlan:
    """A client: of what kind, of which node, and how often it asks."""

    kind: str
    node: int
    begin: float
    requests: int
    pause: float
    """Seconds between two requests, at the most."""
    roams: bool
    """Whether it asks any node each time, as through a proxy."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All of it."""

    seed: int
    store: str
    nodes: int
    latency: float
    max_index: int
    levels: tuple[str, ...]
    """The levels of durability that servers of the embedded store are started with, in turn."""
    wal_pages: int
    max_keys: int
    """Of how many keyed steps the last are kept, and how many a batch has at the most."""
    is_older: bool
    """Whether the sequence in an engine is from a version that kept no keys."""
    kind: str
    """Of the engine, of those that its cluster has."""
    clients: tuple[ClientPlan, ...]
    faults: tuple[FaultPlan, ...]

    def restricted(self, faults: tuple[int, ...] | None, clients: tuple[int, ...] | None) -> "Plan":
        """The same with some of the faults and clients alone; None: with all."""
        return replace(
            self,
            faults=self.faults
            if faults is None
            else tuple(each for at, each in enumerate(self.faults) if at in faults),
            clients=self.clients
            if clients is None
            else tuple(each for at, each in enumerate(self.clients) if at in clients),
        )


def plan_of(seed: int, stores: tuple[str, ...] = STORES, faults_of: str | None = None) -> Plan:
    """The plan of a seed.

    Args:
        seed: decides all that is left open.
        stores: one of these.
        faults_of: the name of faults that come together, for these.
    """
    chance = random.Random(seed)
    store = chance.choice(stores)
    nodes = 1 if store == "sqlite" else chance.choice((1, 2, 2, 3))
    clients = tuple(
        ClientPlan(
            kind=weighted(chance, CLIENTS),
            node=chance.randrange(nodes),
            begin=3 * chance.random(),
            requests=chance.randint(1, 16),
            pause=chance.choice((0.0, 0.01, 0.3, 1.0, 3.0)),
            roams=chance.random() < 0.3,
        )
        for _ in range(chance.choice((1, 2, 3, 4, 6)))
    )
    weights, sets = (MACHINE_FAULTS, MACHINE_TOGETHER) if store == "sqlite" else (FAULTS, TOGETHER)
    if faults_of is None and chance.random() < 0.4:
        faults_of = chance.choice(tuple(sets))
    faults = alone(chance, weights) if faults_of is None else together(chance, sets[faults_of])
    return Plan(
        seed=seed,
        store=store,
        nodes=nodes,
        latency=chance.choice((2e-4, 1e-3, 2e-2)),
        max_index=chance.choice((10**6, 10**6, 10**6, 20)),
        levels=chance.choice((("full",), ("full",), ("normal",), ("full", "normal"), ("off",))),
        wal_pages=chance.choice((5, 8, 20)),
        # The simulated file has room for few.
        max_keys=chance.choice((9, 9, 3, 8) if store == "sqlite" else (1_000, 1_000, 3, 8)),
        is_older=store != "sqlite" and chance.random() < 0.15,
        kind=chance.choice(KINDS[store]),
        clients=clients,
        faults=tuple(faults),
    )


def alone(chance: random.Random, weights: dict[str, int]) -> list[FaultPlan]:
    """Faults that come as they come."""
    # Mostly few kinds in a run, so that each is seen with each other one.
    kinds = [weighted(chance, weights) for _ in range(chance.randint(1, 4))]
    # Half of the time they come close together.
    spread = chance.choice((2.0, ACTIVE_SECONDS))
    first = chance.random() * (ACTIVE_SECONDS - spread)
    faults = []
    for _ in range(chance.choice((0, 1, 1, 2, 2, 3, 4, 6))):
        begin = first + spread * chance.random() ** 2
        seconds = chance.choice((0.05, 1.0, 4.0, 12.0)) * chance.random()
        faults.append(fault(chance, chance.choice(kinds), "", begin, seconds))
    return faults


def together(
    chance: random.Random, faults: tuple[tuple[str, str, float, float], ...]
) -> list[FaultPlan]:
    """Faults that come with each other."""
    first = 4 * chance.random()
    return [
        fault(chance, kind, which, first + begin * chance.random(), seconds * chance.random())
        for kind, which, begin, seconds in faults
    ]


def fault(chance: random.Random, kind: str, which: str, begin: float, seconds: float) -> FaultPlan:
    """One fault."""
    target = chance.randrange(6)
    return FaultPlan(kind, target, begin, begin + seconds, chance.random(), which)


def weighted(chance: random.Random, weights: dict[str, int]) -> str:
    """One of the names, by its weight."""
    (found,) = chance.choices(tuple(weights), tuple(weights.values()))
    return found
