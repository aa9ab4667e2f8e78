"""The common part of runs with any store: starts clients, injects faults, and restores service."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from fibcore import stepper
from fibcore.stores import engine
from tests.simulation import judge
from tests.simulation.clients import KEYED, KINDS, Client, History
from tests.simulation.network import Listener, Network
from tests.simulation.plan import Fault, FaultPlan, Plan
from tests.simulation.process import Process
from tests.simulation.server import DEFAULTS, Server
from tests.simulation.world import World
from tests.support.checker import check

QUIET_SECONDS: Final = 7.0
"""Time after the last fault within which service must have recovered."""

LAST_SECONDS: Final = 40.0
"""Time after that within which the final requests must have been answered."""


class Run:
    """A run. Subclasses provide the servers, the store and the faults."""

    is_watched = False
    """Whether a watchdog kills stopped servers."""
    harmless: frozenset[str] = frozenset()
    """Faults under which no request is answered 503."""

    def __init__(self, plan: Plan, *, tracing: bool) -> None:
        self.plan = plan
        for each in (engine, stepper):
            vars(each)["MAX_KEYED"] = plan.max_keys
        self.kinds = {each.kind for each in plan.faults}
        self.world = World(plan.seed, tracing=tracing)
        self.network = Network(self.world)
        self.network.latency = plan.latency
        self.settings = replace(DEFAULTS, max_index=plan.max_index, store=self.store())
        self.history = History(
            plan.max_keys,
            may_drop=plan.predates_keys
            or bool(self.kinds & {"raise_index", "set_index", "killed_set_index"}),
        )
        self.servers: list[Server] = []
        """All servers ever started."""
        self.clients = Process(self.world, "clients")
        self.end_of_faults = 0.0
        self._unfinished = plan.nodes

    @abstractmethod
    def store(self) -> str:
        """Return the ``store`` setting of the servers."""

    @abstractmethod
    def listeners(self) -> list[Listener]:
        """Return the listeners that clients connect to, one per node."""

    @abstractmethod
    def index(self) -> int:
        """Return the current index."""

    @abstractmethod
    def restore(self) -> None:
        """End all faults and restore service."""

    @abstractmethod
    def fault(self, plan: FaultPlan) -> Fault:
        """Return the calls that begin and end a fault."""

    @property
    def may_lose_steps(self) -> bool:
        """Whether acknowledged steps may have been lost, as the settings permit."""
        return False

    @property
    def keeps_keys(self) -> bool:
        """Whether the promises for idempotency keys hold in spite of the plan's faults."""
        return True

    def check_history(self) -> int:
        """Check all answers against the promises; return the number of answered steps."""
        return check(self.history.operations, first=0, last=self.index()).steps

    def execute(self) -> None:
        """Execute the plan."""
        world, plan, listeners = self.world, self.plan, self.listeners()
        for each in plan.faults:
            begin, end = self.fault(each)
            self.end_of_faults = max(self.end_of_faults, each.end)
            world.after(each.begin, None, self._begin, each, begin)
            world.after(each.end, None, end)
        for number, client in enumerate(plan.clients):
            asked = listeners if client.roams else [listeners[client.node]]
            name = f"client{number}"
            made = Client(self.clients, name, asked, self.history, all_listeners=listeners)
            kind = client.kind
            if kind in KEYED and not self.keeps_keys:
                kind = "stepper"
            script = partial(KINDS[kind], plan=client)
            world.after(client.begin, None, made.start, script)
        if plan.faults:
            world.after(self.end_of_faults + 0.01, None, self.restore)
        quiet = self.end_of_faults + QUIET_SECONDS if plan.faults else 4.0
        for listener in listeners:
            last = Client(self.clients, f"last at {listener.host}", [listener], self.history)
            world.after(quiet, None, last.start, self._finish)
        world.run(quiet + LAST_SECONDS)

    def _finish(self, client: Client) -> None:
        judge.send_final_requests(client)
        self._unfinished -= 1
        if not self._unfinished:
            self.world.is_over = True

    def _begin(self, plan: FaultPlan, begin: Callable[[], object]) -> None:
        self.world.log("fault", f"{plan.kind} {plan.subkind}".rstrip() + " begins")
        begin()
