"""The plan that a seed determines: store, nodes, clients, and faults with their times."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeAlias

Fault: TypeAlias = tuple[Callable[[], object], Callable[[], object]]
"""The calls that begin and end a fault."""

STORES: Final = ("etcd", "postgresql", "redis", "sqlite")
"""``sqlite`` is the embedded store, on a machine with a disk."""

VARIANTS: Final = {
    "etcd": ("three members",),
    "postgresql": ("alone", "alone", "with a standby", "with a standby", "standby attached later"),
    "redis": ("always", "everysec", "replicated", "replicated", "handover"),
    "sqlite": ("",),
}
"""Engine variants of each store; repeated ones are more likely."""

ACTIVE_SECONDS: Final = 6.0
"""Faults begin within this time."""

FAULTS: Final = {
    "kill": 3,
    "stop": 2,
    "restart": 2,
    "cut": 3,
    "cut_to_engine": 2,
    "cut_from_engine": 3,
    "slow_network": 1,
    "engine_kill": 2,
    "engine_stop": 2,
    "engine_cut": 2,
    "lossy_link": 4,
    "late_requests": 4,
    "engine_fault": 4,
    "raise_index": 1,
    "remove_records": 2,
    "wrong_clock": 1,
}
"""Faults of nodes and their engine, with weights. Seeds depend on the order."""
MACHINE_FAULTS: Final = {
    "kill": 6,
    "restart": 2,
    "stop": 3,
    "stop_standby": 1,
    "power_cut": 6,
    "failing_syncs": 4,
    "failing_writes": 1,
    "lying_disk": 1,
    "full_disk": 2,
    "folder_denied": 2,
    "no_descriptors": 1,
    "failing_reads": 1,
    "slow_disk": 2,
    "set_index": 2,
    "killed_set_index": 2,
    "older_copy": 1,
    "lost_wal": 1,
    "deleted_files": 1,
    "open_reader": 2,
    "locked_database": 1,
    "stop_backup": 1,
}
"""Faults of a machine with the embedded store, with weights. Seeds depend on the order."""

Combinations: TypeAlias = dict[str, tuple[tuple[str, str, float, float], ...]]
"""Faults that do more harm together: kind, subkind, latest begin after the first fault, longest
duration (seconds)."""

COMBINATIONS: Final[Combinations] = {
    "record removed in doubt": (
        ("lossy_link", "lost_reply", 0.0, 3.0),
        ("remove_records", "", 1.5, 0.0),
    ),
    "permission lost in doubt": (
        ("lossy_link", "lost_reply", 0.0, 3.0),
        ("engine_fault", "no_permission", 1.5, 4.0),
    ),
    "no permission for keys": (
        ("engine_fault", "no_permission_for_keys", 1.0, 3.0),
        ("engine_fault", "no_permission_for_keys", 8.0, 3.0),
    ),
    "permission lost after no space": (
        ("engine_fault", "no_space", 0.0, 9.0),
        ("engine_fault", "no_permission", 1.0, 0.2),
        ("engine_fault", "no_permission", 2.0, 0.2),
        ("engine_fault", "no_permission", 3.0, 0.2),
    ),
    "late requests and a restart": (("late_requests", "", 0.0, 1.5), ("restart", "", 8.0, 0.0)),
    "a standby is attached": (
        ("engine_fault", "standby_attached", 0.5, 0.0),
        ("engine_fault", "failover", 4.0, 9.0),
        ("cut", "", 3.0, 9.0),
    ),
    "restarts": (("restart", "", 1.0, 0.0), ("restart", "", 3.0, 0.0)),
    "failover": (("engine_fault", "failover", 2.0, 9.0),),
    "failover of a killed primary": (
        ("engine_fault", "failover", 2.0, 9.0),
        ("engine_kill", "", 3.0, 1.0),
    ),
    "failover after a crash": (("engine_fault", "failover_after_crash", 2.0, 9.0),),
    "an attached standby takes over": (
        ("engine_fault", "standby_attached", 0.1, 0.0),
        ("engine_fault", "failover_after_cancel", 0.5, 9.0),
    ),
    "power": (("engine_fault", "power_cut", 2.0, 1.0), ("engine_fault", "power_cut", 4.0, 1.0)),
    "handovers": (("engine_fault", "handover", 2.0, 0.0), ("engine_fault", "handover", 6.0, 0.0)),
    "a handover during a start": (("kill", "", 0.0, 0.0), ("engine_fault", "handover", 1.2, 0.0)),
    "late replies": (("lossy_link", "late_reply", 1.0, 9.0),),
    "late requests": (("late_requests", "", 1.0, 6.0),),
    "lost replies": (
        ("lossy_link", "lost_reply", 1.0, 4.0),
        ("lossy_link", "lost_request", 1.0, 4.0),
    ),
}
MACHINE_COMBINATIONS: Final[Combinations] = {
    "a failed sync before a power cut": (
        ("failing_syncs", "", 0.0, 2.0),
        ("power_cut", "", 3.0, 1.0),
    ),
    "failed syncs before a power cut": (
        ("failing_syncs", "3", 0.0, 4.0),
        ("power_cut", "", 3.0, 1.0),
    ),
    "a lying disk before a power cut": (("lying_disk", "", 0.0, 4.0), ("power_cut", "", 3.0, 1.0)),
    "a kill before a power cut": (("kill", "", 0.5, 0.0), ("power_cut", "", 1.5, 1.0)),
    "a kill": (("kill", "", 2.0, 0.0), ("kill", "", 4.0, 0.0)),
    "a kill while stopped": (("stop", "", 0.5, 2.0), ("kill", "", 2.0, 0.0)),
    "kills with a reader": (
        ("open_reader", "", 0.0, 9.0),
        ("kill", "", 2.0, 0.0),
        ("kill", "", 3.0, 0.0),
        ("power_cut", "", 4.0, 1.0),
    ),
    "a kill with a reader": (("open_reader", "", 0.0, 9.0), ("kill", "", 2.0, 0.0)),
    "a full disk": (("full_disk", "", 0.5, 3.0), ("kill", "", 1.0, 0.0)),
    "a full disk after a stopped backup": (
        ("stop_backup", "", 0.5, 2.0),
        ("full_disk", "", 2.5, 4.0),
    ),
    "permission lost at a start": (("folder_denied", "", 0.0, 1.0), ("kill", "", 0.5, 0.0)),
    "permission lost at each start": (
        ("kill", "", 1.0, 0.0),
        ("folder_denied", "", 1.0, 0.3),
        ("kill", "", 1.5, 0.0),
        ("folder_denied", "", 1.5, 2.0),
    ),
    "restarts before a power cut": (
        ("restart", "", 3.0, 0.0),
        ("restart", "", 3.0, 0.0),
        ("power_cut", "", 5.0, 0.5),
    ),
    "killed set-index": (
        ("killed_set_index", "", 4.0, 0.0),
        ("killed_set_index", "", 9.0, 0.0),
    ),
    "a lost WAL": (("lost_wal", "", 2.0, 6.0),),
    "power cuts": (("power_cut", "", 1.0, 1.0), ("power_cut", "", 4.0, 1.0)),
    "a late power cut": (("power_cut", "", 4.0, 1.0), ("power_cut", "", 9.0, 1.0)),
}

LEVELS: Final = (
    ("full",),
    ("full",),
    ("normal",),
    ("full", "normal"),
    ("full", "off"),
    ("full", "normal", "off"),
    ("off",),
)
"""Levels of durability that the servers of a machine have in turn."""

CLIENTS: Final = {
    "stepper": 4,
    "reader": 2,
    "cross_reader": 3,
    "mixed": 2,
    "conditional": 2,
    "retrier": 2,
    "keyed": 3,
    "twins": 2,
    "ahead": 2,
    "abandoner": 1,
    "pipeliner": 2,
    "splitter": 1,
    "slow_reader": 1,
    "crowd": 1,
}


@dataclass(frozen=True, slots=True)
class FaultPlan:
    kind: str
    target: int
    begin: float
    end: float
    seed: float
    """Seed of the fault's own random choices."""
    subkind: str = ""
    """The subkind; empty: chosen at random."""

    def __str__(self) -> str:
        return f"{self.begin:.3f} to {self.end:.3f} s: {self.kind} {self.subkind}({self.target})"


@dataclass(frozen=True, slots=True)
class ClientPlan:
    kind: str
    node: int
    begin: float
    requests: int
    pause: float
    """Longest pause between two requests, seconds."""
    roams: bool
    """Whether each request goes to a random node, as through a proxy."""


@dataclass(frozen=True, slots=True)
class Plan:
    seed: int
    store: str
    nodes: int
    latency: float
    max_index: int
    levels: tuple[str, ...]
    """Synchronous levels that servers of the embedded store start with, in turn."""
    wal_pages: int
    max_keys: int
    """How many keys are kept, and the limit of keyed steps in a batch."""
    predates_keys: bool
    """Whether the sequence in the engine was made by a version without keys."""
    variant: str
    """Of the engine; see ``VARIANTS``."""
    clients: tuple[ClientPlan, ...]
    faults: tuple[FaultPlan, ...]

    def subset(self, faults: tuple[int, ...] | None, clients: tuple[int, ...] | None) -> "Plan":
        """Return the plan with only these faults and clients, by number; None: all."""
        return replace(
            self,
            faults=self.faults
            if faults is None
            else tuple(each for at, each in enumerate(self.faults) if at in faults),
            clients=self.clients
            if clients is None
            else tuple(each for at, each in enumerate(self.clients) if at in clients),
        )


def plan_of(seed: int, stores: tuple[str, ...] = STORES, combination: str | None = None) -> Plan:
    """Return the plan of a seed.

    Args:
        seed: determines everything else.
        stores: the store is one of these.
        combination: the name of a combination of faults; None: chosen at random.
    """
    chance = random.Random(seed)
    store = chance.choice(stores)
    nodes = 1 if store == "sqlite" else chance.choice((1, 2, 2, 3))
    clients = tuple(
        ClientPlan(
            kind=weighted_choice(chance, CLIENTS),
            node=chance.randrange(nodes),
            begin=3 * chance.random(),
            requests=chance.randint(1, 16),
            pause=chance.choice((0.0, 0.01, 0.3, 1.0, 3.0)),
            roams=chance.random() < 0.3,
        )
        for _ in range(chance.choice((1, 2, 3, 4, 6)))
    )
    weights, sets = (
        (MACHINE_FAULTS, MACHINE_COMBINATIONS) if store == "sqlite" else (FAULTS, COMBINATIONS)
    )
    if combination is None and chance.random() < 0.4:
        combination = chance.choice(tuple(sets))
    faults = (
        independent_faults(chance, weights)
        if combination is None
        else combined_faults(chance, sets[combination])
    )
    return Plan(
        seed=seed,
        store=store,
        nodes=nodes,
        latency=chance.choice((2e-4, 1e-3, 2e-2)),
        max_index=chance.choice((10**6, 10**6, 10**6, 20)),
        levels=chance.choice(LEVELS),
        wal_pages=chance.choice((5, 8, 20)),
        # The simulated database has room for few.
        max_keys=chance.choice((9, 9, 3, 8) if store == "sqlite" else (1_000, 1_000, 3, 8)),
        predates_keys=store != "sqlite" and chance.random() < 0.15,
        variant=chance.choice(VARIANTS[store]),
        clients=clients,
        faults=tuple(faults),
    )


def independent_faults(chance: random.Random, weights: dict[str, int]) -> list[FaultPlan]:
    """Draw faults independently of each other."""
    # Few kinds per run, so that each kind meets each other kind often.
    kinds = [weighted_choice(chance, weights) for _ in range(chance.randint(1, 4))]
    # In half of the runs they come close together.
    spread = chance.choice((2.0, ACTIVE_SECONDS))
    first = chance.random() * (ACTIVE_SECONDS - spread)
    faults = []
    for _ in range(chance.choice((0, 1, 1, 2, 2, 3, 4, 6))):
        begin = first + spread * chance.random() ** 2
        seconds = chance.choice((0.05, 1.0, 4.0, 12.0)) * chance.random()
        faults.append(fault_plan(chance, chance.choice(kinds), "", begin, seconds))
    return faults


def combined_faults(
    chance: random.Random, faults: tuple[tuple[str, str, float, float], ...]
) -> list[FaultPlan]:
    first = 4 * chance.random()
    return [
        fault_plan(
            chance, kind, subkind, first + begin * chance.random(), seconds * chance.random()
        )
        for kind, subkind, begin, seconds in faults
    ]


def fault_plan(
    chance: random.Random, kind: str, subkind: str, begin: float, seconds: float
) -> FaultPlan:
    target = chance.randrange(6)
    return FaultPlan(kind, target, begin, begin + seconds, chance.random(), subkind)


def set_during(owner: object, name: str, during: object, after: object) -> Fault:
    """Return a fault that sets an attribute and finally resets it."""
    return partial(setattr, owner, name, during), partial(setattr, owner, name, after)


def weighted_choice(chance: random.Random, weights: dict[str, int]) -> str:
    (found,) = chance.choices(tuple(weights), tuple(weights.values()))
    return found
