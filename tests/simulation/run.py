"""One run: a plan is carried out, and judged."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from tests.simulation import engines, judge
from tests.simulation.clients import KINDS, Client, History
from tests.simulation.install import with_servers
from tests.simulation.network import Listener, Network
from tests.simulation.plan import FaultPlan, Plan
from tests.simulation.process import Process
from tests.simulation.server import DEFAULTS, Server
from tests.simulation.world import Violation, World

QUIET_SECONDS: Final = 10.0
"""After the last fault: by then all is well again."""

LAST_SECONDS: Final = 9.0
"""Behind that: by then all clients have been answered that came then."""

WEEKS: Final = 7 * 24 * 3600.0


@dataclass
class Outcome:
    """What came of a run."""

    plan: Plan
    violation: BaseException | None
    trace: list[str] = field(default_factory=list)
    seconds: float = 0.0
    """Simulated."""
    steps: int = 0
    events: int = 0


class Node:
    """A machine with a server on it, that is started again whenever it ends."""

    def __init__(self, run: "Run", number: int) -> None:
        self.name = f"node{number}"
        self.run = run
        self.listener = Listener(run.network, self.name)
        self.clock = 0.0
        self.lives = 0
        self.server: Server
        self.start()

    @property
    def process(self) -> Process:
        """The one that runs, or that has ended last."""
        return self.server.process

    def start(self) -> None:
        """Start a server."""
        self.lives += 1
        run = self.run
        process = Process(run.world, f"{self.name}.{self.lives}", self.name, self.clock)
        process.at_end.append(self._ended)
        self.server = Server(process, self.listener, run.settings, run.cluster.opener(process).open)
        run.servers.append(self.server)

    def _ended(self) -> None:
        world = self.run.world
        if not world.closing:
            world.after(0.1 + world.random.random(), None, self.start)


class Run:
    """A run, while it is."""

    def __init__(self, plan: Plan, *, tracing: bool) -> None:
        self.plan = plan
        self.world = World(plan.seed, tracing=tracing)
        self.network = Network(self.world)
        self.network.latency = plan.latency
        self.settings = replace(DEFAULTS, max_index=plan.max_index)
        self.history = History()
        self.servers: list[Server] = []
        """All that there have been."""
        self.cluster = engines.ENGINES[plan.engine](self.network, random.Random(plan.seed))
        with_servers(self.cluster.servers)
        self.nodes = [Node(self, number) for number in range(plan.nodes)]
        self.clients = Process(self.world, "clients")
        self.end_of_faults = 0.0

    def go(self) -> None:
        """Carry the plan out."""
        world, plan = self.world, self.plan
        for each in plan.faults:
            begin, end = self.fault(each)
            self.end_of_faults = max(self.end_of_faults, each.end)
            world.after(each.begin, None, self._begin, each, begin)
            world.after(each.end, None, end)
        for number, client in enumerate(plan.clients):
            made = Client(
                self.clients,
                f"client{number}",
                [each.listener for each in self.nodes]
                if client.roams
                else [self.nodes[client.node].listener],
                self.history,
            )
            script = partial(KINDS[client.kind], plan=client)
            world.after(client.begin, None, made.start, script)
        if plan.faults:
            world.after(self.end_of_faults + 0.01, None, self.cluster.settle)
        quiet = self.end_of_faults + QUIET_SECONDS
        for node in self.nodes:
            last = Client(self.clients, f"last at {node.name}", [node.listener], self.history)
            world.after(quiet, None, last.start, judge.last_script)
        world.run(quiet + LAST_SECONDS)

    def _begin(self, plan: FaultPlan, begin: Callable[[], object]) -> None:
        self.world.say("fault", f"{plan.kind} begins")
        begin()

    def fault(self, plan: FaultPlan) -> engines.Fault:
        """What begins a fault, and what ends it."""
        world, network, cluster = self.world, self.network, self.cluster
        chance = random.Random(plan.chance)
        node = self.nodes[plan.target % len(self.nodes)]
        hosts = cluster.hosts()
        host = hosts[plan.target % len(hosts)]
        server = cluster.servers[host]

        def nothing() -> None:
            pass

        def cut(there: bool, back: bool, targets: list[str]) -> engines.Fault:
            ways = [(node.name, each) for each in targets] if there else []
            ways += [(each, node.name) for each in targets] if back else []

            def begin() -> None:
                for way in ways:
                    network.cut(*way)

            def end() -> None:
                for way in ways:
                    network.heal(*way)

            return begin, end

        match plan.kind:
            case "kill":
                return lambda: node.process.kill(), nothing
            case "restart":
                return lambda: node.server.stop(), nothing
            case "stop":
                stopped: list[Process] = []

                def stop() -> None:
                    stopped.append(node.process)
                    node.process.stop()

                def resume() -> None:
                    for each in stopped:
                        each.resume() if chance.random() < 0.7 else each.kill()

                return stop, resume
            case "cut" | "cut_there" | "cut_back":
                targets = hosts if chance.random() < 0.7 else [host]
                return cut(plan.kind != "cut_back", plan.kind != "cut_there", targets)
            case "slow":
                return partial(setattr, network, "slowness", 0.2), partial(
                    setattr, network, "slowness", 0.0
                )
            case "engine_kill":
                return server.kill, server.start
            case "engine_stop":
                return server.stop, server.resume
            case "engine_cut":
                one, other = chance.choice([(a, b) for a in hosts for b in hosts])
                return partial(network.cut, one, other), partial(network.heal, one, other)
            case "lossy":
                which = plan.which or chance.choice(
                    ("lost_question", "lost_reply", "reset", "trickling")
                )
                share = chance.choice((0.1, 0.5, 1.0))
                return partial(setattr, cluster.quirks, which, share), partial(
                    setattr, cluster.quirks, which, 0.0
                )
            case "late":
                return partial(setattr, cluster.quirks, "late_question", 0.3), partial(
                    setattr, cluster.quirks, "late_question", 0.0
                )
            case "engine":
                which = plan.which or chance.choice(cluster.faults)
                if which not in cluster.faults:
                    return nothing, nothing
                fault: engines.Fault = getattr(cluster, which)(chance)
                return fault
            case "jump":

                def jump() -> None:
                    index = cluster.index()
                    # Past the largest a server serves nothing.
                    higher = min(chance.randint(1, 9), self.plan.max_index - index)
                    if higher <= 0:
                        return
                    world.say("person", f"raises the index from {index} to {index + higher}")
                    self.history.jumped(world.now, higher)
                    cluster.place(index + higher)

                return jump, nothing
            case "forget":

                def forget() -> None:
                    world.say("person", "removes all records")
                    cluster.forget_records()

                return forget, nothing
            case "clock":
                weeks = chance.choice((-9, -5, 5, 9)) * WEEKS

                def turn() -> None:
                    if chance.random() < 0.5:
                        server.clock += weeks
                    else:
                        node.clock += weeks
                        node.process.clock = node.clock

                return turn, nothing
        raise ValueError(plan.kind)


def run(plan: Plan, *, tracing: bool = False) -> Outcome:
    """Carry a plan out, and judge what came of it."""
    made = Run(plan, tracing=tracing)
    outcome = Outcome(plan, None)
    try:
        made.go()
        outcome.steps = judge.judge(made)
    except (AssertionError, Violation) as error:
        outcome.violation = error
    finally:
        made.world.close()
    outcome.trace = made.world.trace
    outcome.seconds = made.world.now
    outcome.events = made.world.events
    return outcome
