"""What a seed stands for on one machine: its clients, and its faults with their times."""

import random
from dataclasses import dataclass
from typing import Final

ACTIVE_SECONDS: Final = 8.0
"""Faults begin within so much of a run at the most."""

FAULTS: Final = {
    "kill": 6,
    "restart": 2,
    "stop": 3,
    "stop_standby": 1,
    "power": 6,
    "failing_syncs": 4,
    "failing_writes": 1,
    "full": 2,
    "slow": 2,
    "older_copy": 1,
    "wal_lost": 1,
    "deleted": 1,
    "reader": 2,
    "locked": 1,
    "stop_backup": 1,
}
"""Of one machine with the embedded store."""
TOGETHER: Final[dict[str, tuple[tuple[str, float, float], ...]]] = {
    "a failed sync before a power cut": (
        ("failing_syncs", 0.0, 2.0),
        ("power", 3.0, 1.0),
    ),
    "failed syncs before a power cut": (
        ("failing_syncs", 0.0, 4.0),
        ("power", 3.0, 1.0),
    ),
    "a kill before a power cut": (("kill", 0.5, 0.0), ("power", 1.5, 1.0)),
    "a kill while stopped": (("stop", 0.5, 2.0), ("kill", 2.0, 0.0)),
    "kills beside a reader": (
        ("reader", 0.0, 9.0),
        ("kill", 2.0, 0.0),
        ("kill", 3.0, 0.0),
        ("power", 4.0, 1.0),
    ),
    "a kill beside a reader": (("reader", 0.0, 9.0), ("kill", 2.0, 0.0)),
    "a full disk": (("full", 0.5, 3.0), ("kill", 1.0, 0.0)),
    "a lost WAL": (("wal_lost", 2.0, 6.0),),
    "power cuts": (("power", 1.0, 1.0), ("power", 4.0, 1.0)),
    "a late power cut": (("power", 4.0, 1.0), ("power", 9.0, 1.0)),
}
"""What brings out more together than alone: each with its kind, when it begins after the first, and
for how long; the times at the most."""

KINDS: Final = ("next", "next", "mixed", "condition", "recipe", "piped", "crowd")
"""Of clients."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: which, from when to when."""

    kind: str
    begin: float
    end: float
    chance: float
    """Decides what else there is to decide of it."""

    def __str__(self) -> str:
        return f"{self.begin:.3f} to {self.end:.3f} s: {self.kind}"


@dataclass(frozen=True, slots=True)
class Plan:
    """All of it."""

    seed: int
    clients: tuple[tuple[str, float, int, float], ...]
    """Of each: its kind, when it begins, how often it asks, seconds between at the most."""
    faults: tuple[Fault, ...]
    levels: tuple[str, ...]
    """The levels of durability that its servers are started with, in turn."""
    wal_pages: int
    max_index: int


def plan_of(seed: int, together: str | None = None) -> Plan:
    """The plan of a seed.

    Args:
        seed: decides all that is left open.
        together: a name of ``TOGETHER``, for these faults.
    """
    chance = random.Random(seed)
    clients = tuple(
        (
            chance.choice(KINDS),
            4 * chance.random(),
            chance.randint(1, 16),
            chance.choice((0.0, 0.01, 0.3, 1.0)),
        )
        for _ in range(chance.choice((1, 2, 3, 4, 6)))
    )
    if together is None and chance.random() < 0.4:
        together = chance.choice(tuple(TOGETHER))
    faults = _alone(chance) if together is None else _together(chance, together)
    return Plan(
        seed,
        clients,
        tuple(faults),
        chance.choice((("full",), ("full",), ("normal",), ("full", "normal"))),
        chance.choice((5, 8, 20)),
        chance.choice((10**6, 10**6, 10**6, 20)),
    )


def _together(chance: random.Random, name: str) -> list[Fault]:
    first = 6 * chance.random()
    return [
        _fault(chance, kind, first + begin * chance.random(), seconds * chance.random())
        for kind, begin, seconds in TOGETHER[name]
    ]


def _alone(chance: random.Random) -> list[Fault]:
    # Mostly few kinds in a run, so that each is seen with each other one.
    kinds = chance.choices(tuple(FAULTS), tuple(FAULTS.values()), k=chance.randint(1, 4))
    # Half of the time they come close together.
    spread = chance.choice((2.0, ACTIVE_SECONDS))
    first = chance.random() * (ACTIVE_SECONDS - spread)
    return [
        _fault(
            chance,
            chance.choice(kinds),
            first + spread * chance.random() ** 2,
            chance.choice((0.05, 1.0, 4.0, 12.0)) * chance.random(),
        )
        for _ in range(chance.choice((0, 1, 1, 2, 2, 3, 4, 6)))
    ]


def _fault(chance: random.Random, kind: str, begin: float, seconds: float) -> Fault:
    return Fault(kind, begin, begin + seconds, chance.random())
