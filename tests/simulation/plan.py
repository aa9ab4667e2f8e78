"""The plan that a seed determines: store, nodes, clients, and faults with their times."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeAlias

Fault: TypeAlias = tuple[Callable[[], object], Callable[[], object]]
"""The calls that begin and end a fault."""

STORES: Final = ("engine", "file")
"""``engine``: nodes on an engine; ``file``: server and standby on one machine."""

ACTIVE_SECONDS: Final = 6.0
"""Faults begin within this time."""

COMMON_FAULTS: Final = {
    "kill": 4,
    "stop": 3,
    "restart": 2,
    "set_index": 1,
    "lower_index": 1,
    "no_keys": 1,
    "no_rights": 2,
}
FAULTS: Final = {
    "engine": {
        **COMMON_FAULTS,
        "cut": 3,
        "cut_to_engine": 2,
        "cut_from_engine": 3,
        "slow_network": 1,
        "lossy_link": 6,
        "engine_kill": 2,
        "engine_stop": 2,
        "engine_cut": 2,
        "failover": 4,
        "full": 1,
    },
    "file": {**COMMON_FAULTS, "failing_commit": 3, "slow_commits": 2},
}
"""Faults by store, with weights. Seeds depend on the order."""

Combination: TypeAlias = tuple[tuple[str, str, float, float], ...]
"""Faults that do more harm together: kind, subkind, latest begin after the first fault, longest
duration (seconds)."""

COMBINATIONS: Final[dict[str, dict[str, Combination]]] = {
    "engine": {
        "lost replies": (
            ("lossy_link", "lost_reply", 1.0, 4.0),
            ("lossy_link", "lost_request", 1.0, 4.0),
        ),
        "late requests": (("lossy_link", "late_request", 1.0, 6.0),),
        "late requests and restarts": (
            ("lossy_link", "late_request", 0.0, 1.5),
            ("restart", "", 8.0, 0.0),
        ),
        "rights lost in doubt": (
            ("lossy_link", "lost_reply", 0.0, 3.0),
            ("no_rights", "writes", 1.5, 4.0),
        ),
        "failover": (("failover", "", 2.0, 9.0),),
        "failover of a killed primary": (
            ("failover", "", 2.0, 9.0),
            ("engine_kill", "", 3.0, 1.0),
        ),
        "restarts": (("restart", "", 1.0, 0.0), ("restart", "", 3.0, 0.0)),
    },
    "file": {
        "kills": (("kill", "", 2.0, 0.0), ("kill", "", 4.0, 0.0)),
        "slow commits and kills": (
            ("slow_commits", "", 0.0, 9.0),
            ("kill", "", 2.0, 0.0),
            ("kill", "", 6.0, 0.0),
        ),
        "a kill while stopped": (("stop", "", 0.5, 2.0), ("kill", "", 2.0, 0.0)),
        "failing commits": (("failing_commit", "", 1.0, 3.0), ("failing_commit", "", 4.0, 3.0)),
        "rights lost at each start": (
            ("kill", "", 1.0, 0.0),
            ("no_rights", "", 1.0, 0.3),
            ("kill", "", 1.5, 0.0),
            ("no_rights", "", 1.5, 2.0),
        ),
    },
}

CLIENTS: Final = {
    "stepper": 4,
    "cross_reader": 3,
    "mixed": 4,
    "conditional": 2,
    "retrier": 2,
    "keyed": 3,
    "twins": 2,
    "ahead": 2,
    "abandoner": 1,
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
    max_keys: int
    """How many keys are kept at least."""
    replicated: bool
    """Whether the engine has a replica."""
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
    nodes = 1 if store == "file" else chance.choice((1, 2, 2, 3))
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
    weights, sets = FAULTS[store], COMBINATIONS[store]
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
        max_keys=chance.choice((1_000, 1_000, 3, 8)),
        replicated=chance.random() < 0.7,
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


def combined_faults(chance: random.Random, faults: Combination) -> list[FaultPlan]:
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
