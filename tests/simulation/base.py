"""What the runs of all stores have in common: a plan is carried out, and judged."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from bench.checker import check
from fibcore import stepper
from fibcore.stores import engine
from tests.simulation import judge
from tests.simulation.clients import KEYED, KINDS, Client, History
from tests.simulation.network import Listener, Network
from tests.simulation.plan import Fault, FaultPlan, Plan
from tests.simulation.process import Process
from tests.simulation.server import DEFAULTS, Server
from tests.simulation.world import World

QUIET_SECONDS: Final = 7.0
"""After the last fault: by then all is well again."""

LAST_SECONDS: Final = 40.0
"""Behind that: by then all clients have been answered that came then."""


class Run:
    """A run, while it is."""

    is_watched = False
    """Whether a watchdog ends what is stopped."""
    harmless: frozenset[str] = frozenset()
    """Faults that make nobody's answer a 503."""

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
            may_drop=plan.predates_keys or bool(self.kinds & {"raise_index", "set_index"}),
        )
        self.servers: list[Server] = []
        """All that there have been."""
        self.clients = Process(self.world, "clients")
        self.end_of_faults = 0.0
        self._unfinished = plan.nodes

    @abstractmethod
    def store(self) -> str:
        """What the servers' settings have as their store."""

    @abstractmethod
    def listeners(self) -> list[Listener]:
        """Whom clients ask."""

    @abstractmethod
    def index(self) -> int:
        """Where the sequence is."""

    @abstractmethod
    def restore(self) -> None:
        """Have all be well again."""

    @abstractmethod
    def fault(self, plan: FaultPlan) -> Fault:
        """What begins a fault, and what ends it."""

    @property
    def may_lose_steps(self) -> bool:
        """Whether steps may have been lost, as they may where that was asked for."""
        return False

    @property
    def keeps_keys(self) -> bool:
        """Whether steps may be asked for by keys, which are answered whatever happens."""
        return True

    def check_history(self) -> int:
        """Hold all that was answered against the promises; return how many steps were."""
        return check(self.history.operations, first=0, last=self.index()).steps

    def execute(self) -> None:
        """Carry the plan out."""
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
        judge.ask_finally(client)
        self._unfinished -= 1
        if not self._unfinished:
            self.world.is_over = True

    def _begin(self, plan: FaultPlan, begin: Callable[[], object]) -> None:
        self.world.log("fault", f"{plan.kind} begins")
        begin()
