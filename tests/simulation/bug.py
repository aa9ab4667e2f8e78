"""What a defect that is planted consists of."""

from dataclasses import replace
from typing import Any, NamedTuple

from tests.simulation.plan import Plan, plan_of


class Bug(NamedTuple):
    """A defect."""

    owner: Any
    """Of what is changed: a class or a module."""
    name: str
    """A function, a property, a text that is sent to an engine, or several."""
    before: str
    after: str
    stores: tuple[str, ...] = ("etcd", "postgresql", "redis")
    """Where it shows."""
    combination: str | None = None
    """The faults that bring it out; see ``plan``."""

    client_kinds: tuple[str, ...] = ()
    """Of the clients, in turn, if that is not left to chance."""
    variant: str = ""
    """Of the engine, if that is not."""
    also: tuple["Bug", ...] = ()
    """What is planted with it: other protections against the same harm."""

    def plan_of(self, seed: int) -> Plan:
        """The plan with which a seed is to find it."""
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
        return replace(plan, clients=clients, levels=("full",))
