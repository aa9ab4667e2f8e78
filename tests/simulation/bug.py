"""The form of a planted defect: a text in the product and its replacement."""

from dataclasses import replace
from typing import Any, NamedTuple

from tests.simulation.plan import Plan, plan_of


class Bug(NamedTuple):
    owner: Any
    """The class or module that is changed."""
    name: str
    """Of a function, a property, a text sent to an engine, or a tuple of texts."""
    before: str
    after: str
    stores: tuple[str, ...] = ("etcd", "postgresql", "redis")
    """The stores with which it does harm."""
    combination: str | None = None
    """The faults that expose it; see ``plan.COMBINATIONS``."""
    client_kinds: tuple[str, ...] = ()
    """Of the clients, in turn; empty: chosen at random."""
    variant: str = ""
    """Of the engine; empty: chosen at random."""
    also: tuple["Bug", ...] = ()
    """Planted together with it: other protections against the same harm are removed."""
    levels: tuple[str, ...] = ("full",)
    """Of durability, if there are ``client_kinds``."""

    def plan_of(self, seed: int) -> Plan:
        """Return the plan with which a seed should find the defect."""
        plan = plan_of(seed, self.stores, self.combination)
        if self.variant:
            plan = replace(plan, variant=self.variant)
        kinds = self.client_kinds
        if not kinds:
            return plan
        clients = tuple(
            replace(each, kind=kinds[number % len(kinds)])
            for number, each in enumerate(plan.clients)
        )
        return replace(plan, clients=clients, levels=self.levels)
