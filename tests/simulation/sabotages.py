"""Sabotages: stores, links and models that break a promise, to show that seeds find it.

Each takes the place of a link or a store, or takes a protection away from a model. None names a
line of the product.

python -m tests.simulation --sabotage LateCopyCounts --seeds 1000
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, cast

from fibcore.problems import CommitFailedError, EngineUnavailableError, StoreProblem
from fibcore.stores import Store
from tests.simulation.model_engine import ModelEngine, ModelLink
from tests.simulation.model_store import ModelFile, ModelStore
from tests.simulation.plan import STORES, Plan, plan_of
from tests.simulation.product import NO_KEYS, Batch, Keys, Link, ReplyLostError


@dataclass(frozen=True)
class Sabotage:
    """What is put in the place of what, and the plans that expose it.

    Args:
        stores: those that it harms.
        faults: those that expose it: a name in ``plan.COMBINATIONS``; None: any.
        clients: their kinds, in turn; empty: chosen at random.
        store, link: called with the real one; the result takes its place.
        engine, file: changes the model of a run.
    """

    stores: tuple[str, ...] = STORES
    faults: str | None = None
    clients: tuple[str, ...] = ()
    store: Callable[[Store], Any] = lambda store: store
    link: Callable[[Link], Link] = lambda link: link
    engine: Callable[[ModelEngine], object] = lambda _: None
    file: Callable[[ModelFile], object] = lambda _: None

    def plan_of(self, seed: int) -> Plan:
        """Return the plan with which a seed should find it."""
        plan = plan_of(seed, self.stores, self.faults)
        kinds = self.clients
        if not kinds:
            return plan
        clients = enumerate(plan.clients)
        return replace(
            plan, clients=tuple(replace(each, kind=kinds[at % len(kinds)]) for at, each in clients)
        )


NONE: Final = Sabotage()


class Asked(NamedTuple):
    """The arguments of ``Store.advance``."""

    steps: int
    expected: int | None
    limit: int | None
    keys: Keys


class Wrapped:
    """A store with another behind it, which passes on all calls."""

    def __init__(self, store: Store) -> None:
        self.behind = store

    def __getattr__(self, name: str) -> object:
        return getattr(self.behind, name)

    def advance(
        self,
        steps: int,
        expected: int | None = None,
        limit: int | None = None,
        keys: Keys = NO_KEYS,
    ) -> int:
        return self.do(Asked(steps, expected, limit, keys))

    def do(self, asked: Asked) -> int:
        return self.behind.advance(*asked)


class AcksBeforeCommit(Wrapped):
    late: Asked | None = None

    def do(self, asked: Asked) -> int:
        if self.late is not None:
            self.behind.advance(*self.late)
        self.late = asked
        return (asked.expected or 0) + asked.steps


class AppliesTwice(Wrapped):
    def do(self, asked: Asked) -> int:
        reached = self.behind.advance(*asked)
        return self.behind.advance(asked.steps) if asked.steps else reached


class IgnoresExpected(Wrapped):
    def do(self, asked: Asked) -> int:
        return self.behind.advance(*asked._replace(expected=None))


class IgnoresLimit(Wrapped):
    def do(self, asked: Asked) -> int:
        return self.behind.advance(*asked._replace(limit=None))


class ForgetsKeys(Wrapped):
    def do(self, asked: Asked) -> int:
        return self.behind.advance(*asked._replace(keys=NO_KEYS))


class StaleRead(Wrapped):
    last: int | None = None

    def read(self) -> int:
        last, self.last = self.last, self.behind.read()
        return self.last if last is None else last


class TakesFailureForDone(Wrapped):
    """A failed commit of the file is answered as made."""

    def do(self, asked: Asked) -> int:
        try:
            return self.behind.advance(*asked)
        except CommitFailedError:
            return (asked.expected or 0) + asked.steps


class WrappedLink(ModelLink):
    """A link that takes over the connection of another."""

    def __init__(self, link: Link) -> None:
        vars(self).update(vars(link))


class TakesLostForDone(WrappedLink):
    def commit(self, batch: Batch) -> int:
        before = self.read()
        try:
            return super().commit(batch)
        except ReplyLostError:
            return before + batch.steps


class TakesLostForUndone(WrappedLink):
    def commit(self, batch: Batch) -> int:
        try:
            return super().commit(batch)
        except ReplyLostError as error:
            raise EngineUnavailableError("engine", str(error)) from error


class TakesRefusalForAnswer(WrappedLink):
    """An error while a batch is in doubt counts as "not made"."""

    def settle(self, number: int) -> int:
        try:
            return super().settle(number)
        except (StoreProblem, ReplyLostError):
            return 0


def let_late_copies_count(engine: ModelEngine) -> None:
    """The number of a batch does not rule out its copies."""
    for each in engine.servers:
        each.rows.rejects_copies = False


def take_dropped_for_new(model: ModelEngine | ModelFile) -> None:
    """Keys that are no longer kept are not rejected."""
    models = [model] if isinstance(model, ModelFile) else [each.rows for each in model.servers]
    for each in models:
        each.rejects_dropped = False


def keep_keys_afterwards(file: ModelFile) -> None:
    """Keys are kept in a commit of their own, after the one of their steps."""
    commit = file.commit

    def in_two(index: int, made: dict[bytes, int]) -> None:
        commit(index, {})
        if made:
            file.world.park(0.5)
            commit(file.index, made)

    file.commit = in_two  # type: ignore[method-assign]


def lose_the_last_commit(store: Store) -> Store:
    """It is gone when the file is opened again."""
    opened = cast("ModelStore", store)
    opened.file.index = opened._index = max(0, opened.file.index - 1)
    return store


def lose_the_keys(store: Store) -> Store:
    """They are gone when the file is opened again."""
    cast("ModelStore", store).file.made.clear()
    return store


def answer_before_the_replica(engine: ModelEngine) -> None:
    """A failover loses what was answered."""
    engine.waits_for_replica = False


def keep_nobody_out(file: ModelFile) -> None:
    """Two processes hold the lock."""
    file.locks = False


ENGINE: Final = ("engine",)
FILE: Final = ("file",)
LOST: Final = "lost replies"
KEYED: Final = ("keyed",)

SABOTAGES: Final = {
    "AcksBeforeCommit": Sabotage(FILE, None, ("stepper", "mixed"), store=AcksBeforeCommit),
    "AppliesTwice": Sabotage(ENGINE, store=AppliesTwice),
    "IgnoresExpected": Sabotage(ENGINE, None, ("conditional", "stepper"), store=IgnoresExpected),
    "IgnoresLimit": Sabotage(ENGINE, None, ("crowd", "stepper"), store=IgnoresLimit),
    "ForgetsKeys": Sabotage(clients=("keyed", "twins"), store=ForgetsKeys),
    "StaleRead": Sabotage(ENGINE, None, ("cross_reader",), store=StaleRead),
    "TakesFailureForDone": Sabotage(FILE, "failing commits", store=TakesFailureForDone),
    "TakesLostForDone": Sabotage(ENGINE, LOST, link=TakesLostForDone),
    "TakesLostForUndone": Sabotage(ENGINE, LOST, link=TakesLostForUndone),
    "TakesRefusalForAnswer": Sabotage(ENGINE, "rights lost in doubt", link=TakesRefusalForAnswer),
    "LateCopyCounts": Sabotage(ENGINE, "late requests", engine=let_late_copies_count),
    "FallsBack": Sabotage(ENGINE, "failover", engine=answer_before_the_replica),
    "KeepsKeysAfterwards": Sabotage(
        FILE, "slow commits and kills", KEYED, file=keep_keys_afterwards
    ),
    "TwoWriters": Sabotage(FILE, file=keep_nobody_out),
    "FallsBackAtStart": Sabotage(FILE, "kills", store=lose_the_last_commit),
    "ForgetsKeysAtStart": Sabotage(FILE, "kills", KEYED, store=lose_the_keys),
    "TakesDroppedKeysForNew": Sabotage(
        clients=KEYED, engine=take_dropped_for_new, file=take_dropped_for_new
    ),
}
