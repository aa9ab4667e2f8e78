"""The common part of runs with any store: starts clients, injects faults, and restores service."""

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from tests.simulation import judge
from tests.simulation.clients import KEYED, KINDS, Client, History
from tests.simulation.network import Listener, Network
from tests.simulation.plan import Fault, FaultPlan, Plan
from tests.simulation.process import Process
from tests.simulation.server import Server
from tests.simulation.world import World
from tests.support.checker import Operation, check

if TYPE_CHECKING:
    from tests.simulation.sabotages import Sabotage

QUIET_SECONDS: Final = 7.0
"""Time after the last fault within which service must have recovered."""

LAST_SECONDS: Final = 40.0
"""Time after that within which the final requests must have been answered."""

SET_SECONDS: Final = 0.5
"""How long servers stay stopped before and after their index is set."""


class Run:
    """A run. Subclasses provide the servers, the store and the faults."""

    is_watched = False
    """Whether an alarm ends stopped servers."""
    harmless: frozenset[str] = frozenset()
    """Faults under which no request is answered 503."""

    def __init__(self, plan: Plan, sabotage: "Sabotage", *, tracing: bool) -> None:
        self.plan = plan
        self.sabotage = sabotage
        self.kinds = {each.kind for each in plan.faults}
        self.world = World(plan.seed, tracing=tracing)
        self.network = Network(self.world)
        self.network.latency = plan.latency
        may_drop = bool(self.kinds & {"set_index", "lower_index"})
        self.history = History(plan.max_keys, may_drop=may_drop)
        self.servers: list[Server] = []
        """All servers ever started."""
        self.is_served = True
        """Whether servers are started; not while an operator lowers the index."""
        self.lowered: list[tuple[float, int, int]] = []
        """When an operator has lowered the index, from where, and to where."""
        self.clients = Process(self.world, "clients")
        self.end_of_faults = 0.0
        self._unfinished = plan.nodes

    @abstractmethod
    def listeners(self) -> list[Listener]:
        """Return the listeners that clients connect to, one per node."""

    @abstractmethod
    def index(self) -> int:
        """Return the current index."""

    @abstractmethod
    def put_index(self, index: int) -> None:
        """Set the index, as an operator does."""

    @abstractmethod
    def start_servers(self) -> None:
        """Start all servers that do not run."""

    @abstractmethod
    def restore(self) -> None:
        """End all faults and restore service."""

    @abstractmethod
    def fault(self, plan: FaultPlan) -> Fault:
        """Return the calls that begin and end a fault."""

    # What an operator does.

    def raise_index(self, steps: int) -> None:
        """Raise the index, but not above the maximum: servers do not start there."""
        index = self.index()
        higher = min(steps, self.plan.max_index - index)
        if higher > 0:
            self.world.log("operator", f"raises the index from {index} to {index + higher}")
            self.history.skip_indexes(self.world.now, higher)
            self.put_index(index + higher)

    def with_servers_stopped(self, work: Callable[[], object]) -> None:
        """Do ``work`` after all servers have been ended, and start them again."""

        def start() -> None:
            self.is_served = True
            self.start_servers()

        if self.is_served:
            self.is_served = False
            for each in self.servers:
                each.process.kill()
            self.world.after(SET_SECONDS, None, work)
            self.world.after(2 * SET_SECONDS, None, start)

    def lower_index(self, steps: int) -> None:
        """Lower the index, beside no server."""
        before = self.index()
        after = max(0, before - steps)
        self.world.log("operator", f"lowers the index from {before} to {after}")
        self.lowered.append((self.world.now, before, after))
        self.put_index(after)

    def check_history(self) -> int:
        """Check all answers, between two lowerings each; return the number of answered steps."""
        first, begin, steps = 0, 0.0, 0
        for when, before, after in self.lowered:
            steps += check(self._between(begin, when), first=first, last=before).steps
            first, begin = after, when
        rest = self._between(begin, self.world.now)
        return steps + check(rest, first=first, last=self.index()).steps

    def _between(self, begin: float, end: float) -> list[Operation]:
        """Return what was sent in that period, or before it and may have arrived in it."""
        return [
            each
            for each in self.history.operations
            if each.start <= end and (each.index is None or begin <= each.start)
        ]

    # The run.

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
            if kind in KEYED and "lower_index" in self.kinds:
                # Keys of steps that an operator has undone are no longer promised.
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
