"""A run of nodes on the model engine, and their faults."""

import random
from functools import partial

from tests.simulation.base import Run
from tests.simulation.model_engine import ModelEngine, ModelOpener
from tests.simulation.network import Listener
from tests.simulation.plan import Fault, FaultPlan, Plan, set_during
from tests.simulation.process import Process
from tests.simulation.product import (
    EXIT_DATABASE_INVALID,
    EXIT_FAILED,
    on_simulated_time,
)
from tests.simulation.sabotages import Sabotage
from tests.simulation.server import Server, do_nothing
from tests.simulation.world import Violation


class Node:
    """A machine with a server, which is restarted whenever it ends."""

    def __init__(self, run: "EngineRun", number: int) -> None:
        self.name = f"node{number}"
        self.run = run
        self.listener = Listener(run.network, self.name)
        self.lives = 0
        self.server: Server
        self.start()

    @property
    def process(self) -> Process:
        """The current process of the server, or the last one."""
        return self.server.process

    def start(self) -> None:
        run = self.run
        if not run.is_served or (self.lives and self.process.alive):
            return
        self.lives += 1
        process = Process(run.world, f"{self.name}.{self.lives}", self.name)
        process.at_end.append(partial(self._handle_end, process))
        opener = ModelOpener(run.engine, run.sabotage.link, run.sabotage.store)
        on_simulated_time(opener, process, run.world.random)
        self.server = Server(process, self.listener, opener, run.plan.max_index)
        run.servers.append(self.server)

    def _handle_end(self, process: Process) -> None:
        world = self.run.world
        if world.closing:
            return
        if process.status in (EXIT_FAILED, EXIT_DATABASE_INVALID):
            # The index never falls while a node runs: an operator stops all of them before.
            world.violation = Violation(f"{process} ended with status {process.status}")
        world.after(0.1 + world.random.random(), None, self.start)


class EngineRun(Run):
    def __init__(self, plan: Plan, sabotage: Sabotage, *, tracing: bool) -> None:
        super().__init__(plan, sabotage, tracing=tracing)
        self.engine = ModelEngine(self.network, plan.max_keys, replicated=plan.replicated)
        sabotage.engine(self.engine)
        self.nodes = [Node(self, number) for number in range(plan.nodes)]

    def listeners(self) -> list[Listener]:
        return [each.listener for each in self.nodes]

    def index(self) -> int:
        return self.engine.primary.rows.index

    def put_index(self, index: int) -> None:
        self.engine.set_index(index)

    def start_servers(self) -> None:
        for each in self.nodes:
            each.start()

    def restore(self) -> None:
        self.engine.restore()
        for each in self.nodes:
            each.process.resume()

    def fault(self, plan: FaultPlan) -> Fault:
        """Return the calls that begin and end a fault."""
        network, engine = self.network, self.engine
        chance = random.Random(plan.seed)
        node = self.nodes[plan.target % len(self.nodes)]
        server = engine.servers[plan.target % len(engine.servers)]
        steps = chance.randint(1, 9)
        match plan.kind:
            case "kill":
                return lambda: node.process.kill(), do_nothing
            case "restart":
                return lambda: node.server.stop(), do_nothing
            case "stop":
                stopped: list[Process] = []

                def stop() -> None:
                    stopped.append(node.process)
                    node.process.stop()

                def resume() -> None:
                    for each in stopped:
                        each.resume() if chance.random() < 0.7 else each.kill()

                return stop, resume
            case "cut" | "cut_to_engine" | "cut_from_engine":
                targets = engine.servers if chance.random() < 0.7 else [server]
                ways = [(node.name, each.name) for each in targets]
                back = [(there, here) for here, there in ways]
                return self.cut(
                    {"cut": ways + back, "cut_to_engine": ways, "cut_from_engine": back}[plan.kind]
                )
            case "engine_cut":
                one, other = chance.sample(("engine0", "engine1"), 2)
                return self.cut([(one, other)])
            case "slow_network":
                return set_during(network, "slowness", 0.2, 0.0)
            case "lossy_link":
                kinds = tuple(vars(engine.link_faults))
                share = chance.choice((0.1, 0.5, 1.0))
                fault_name = plan.subkind or chance.choice(kinds)
                if fault_name == "late_request":
                    share = 0.3
                return set_during(engine.link_faults, fault_name, share, 0.0)
            case "engine_kill":
                return server.kill, server.start
            case "engine_stop":
                return server.stop, server.resume
            case "failover":
                return self.failover(chance)
            case "full":
                return set_during(engine, "is_full", True, False)
            case "no_rights":
                what = plan.subkind or chance.choice(("writes", "all"))
                return set_during(engine, "refuses", what, "")
            case "no_keys":
                return set_during(engine, "refuses_keys", True, False)
            case "set_index":
                return partial(self.raise_index, steps), do_nothing
            case "lower_index":
                lower = partial(self.lower_index, steps)
                return partial(self.with_servers_stopped, lower), do_nothing
        raise ValueError(plan.kind)

    def cut(self, ways: list[tuple[str, str]]) -> Fault:
        def begin() -> None:
            for way in ways:
                self.network.cut(*way)

        def end() -> None:
            for way in ways:
                self.network.heal(*way)

        return begin, end

    def failover(self, chance: random.Random) -> Fault:
        """The replica takes over, usually after it was cut off; later the old primary follows."""
        engine, network = self.engine, self.network
        seconds = chance.choice((0.0, 1.0, 6.0)) * chance.random()
        kills, cuts = chance.random() < 0.5, chance.random() < 0.7
        is_over: list[bool] = []

        def begin() -> None:
            if cuts:
                network.cut(engine.servers[0].name, engine.servers[-1].name)
            self.world.after(seconds, None, take_over)

        def take_over() -> None:
            if not is_over:
                engine.fail_over(kills=kills)

        def end() -> None:
            is_over.append(True)
            engine.restore()

        return begin, end
