"""The rule for keys holds in every order, and each of its parts is needed."""

from dataclasses import replace

import pytest

from tests.simulation.rule import (
    PLANS,
    Batch,
    Key,
    Plan,
    Reply,
    Rule,
    Settle,
    Store,
    Wish,
    every_order,
    one_order,
    plan_of,
)


class ForgetsTooMuch(Rule):
    """At the edge, a row goes whose key is still accepted: that of a void batch."""

    def is_kept(self, outcome: int, floor: int) -> bool:
        return outcome > floor


class AcceptsTooMuch(Rule):
    """At the edge, a key is accepted whose row may be gone."""

    def is_forgotten(self, key: Key, floor: int) -> bool:
        return key[0] < floor - 1


class OnlyLooks(Rule):
    """A batch that is not found is taken for never made, and a late copy is not prevented."""

    def settle(self, store: Store, settle: Settle) -> tuple[Store, Reply]:
        return store, super().settle(store, settle)[1]


class VoidsTheForgotten(Rule):
    """A batch that is not found is taken for never made, though its row may be forgotten."""

    def settle(self, store: Store, settle: Settle) -> tuple[Store, Reply]:
        return super().settle(replace(store, floor=0), settle)


class OverwritesVoid(Rule):
    """A late copy does not look for what is written in its place."""

    def batch(self, store: Store, batch: Batch, wishes: tuple[Wish, ...]) -> tuple[Store, Reply]:
        left = frozenset(row for row in store.rows if row != (batch.key, batch.key[0]))
        return super().batch(replace(store, rows=left), batch, wishes)


class KeepsTheGeneration(Rule):
    """A late copy of before a set-index is as good as any."""

    def set_index(self, store: Store, index: int) -> Store:
        return replace(super().set_index(store, index), generation=store.generation)


class WritesKeysLater(Rule):
    """The row of a client's key is not in the commit of its step."""

    def batch(self, store: Store, batch: Batch, wishes: tuple[Wish, ...]) -> tuple[Store, Reply]:
        after, reply = super().batch(store, batch, wishes)
        clients = {each.key for each in wishes}
        return replace(after, rows=frozenset(r for r in after.rows if r[0] not in clients)), reply


@pytest.mark.parametrize("name", PLANS)
def test_the_rule_for_keys_holds_in_every_order(name: str) -> None:
    assert every_order(PLANS[name]) > 1_000


def test_the_rule_for_keys_holds_in_random_orders() -> None:
    for seed in range(300):
        one_order(plan_of(seed), seed)


@pytest.mark.parametrize(
    ("rule", "plan"),
    [
        (ForgetsTooMuch, Plan((Wish((0,)),), losses=2, forgets=1, window=0)),
        (AcceptsTooMuch, PLANS["forgetting"]),
        (OnlyLooks, PLANS["lost replies"]),
        (VoidsTheForgotten, PLANS["forgetting"]),
        (OverwritesVoid, PLANS["lost replies"]),
        (KeepsTheGeneration, PLANS["a lowered index"]),
        (WritesKeysLater, PLANS["a key at two nodes"]),
    ],
)
def test_each_part_of_the_rule_for_keys_is_needed(rule: type[Rule], plan: Plan) -> None:
    with pytest.raises(AssertionError, match=r"wish|index"):
        every_order(replace(plan, rule=rule()))
