"""A run of nodes on an engine, and their faults."""

import random
from functools import partial
from typing import Final

from tests.simulation import engines
from tests.simulation.base import Run
from tests.simulation.install import set_servers
from tests.simulation.network import Listener
from tests.simulation.plan import Fault, FaultPlan, Plan, set_during
from tests.simulation.process import Process
from tests.simulation.server import Server, do_nothing

WEEKS: Final = 7 * 24 * 3600.0


class Node:
    """A machine with a server, fault_name is restarted whenever it ends."""

    def __init__(self, run: "EngineRun", number: int) -> None:
        self.name = f"node{number}"
        self.run = run
        self.listener = Listener(run.network, self.name)
        self.clock = 0.0
        self.lives = 0
        self.server: Server
        self.start()

    @property
    def process(self) -> Process:
        """The current process of the server, or the last one."""
        return self.server.process

    def start(self) -> None:
        self.lives += 1
        run = self.run
        process = Process(run.world, f"{self.name}.{self.lives}", self.name, self.clock)
        process.at_end.append(self._handle_end)
        opener = run.cluster.opener(process, run.plan.max_keys)
        self.server = Server(process, self.listener, run.settings, opener)
        run.servers.append(self.server)

    def _handle_end(self) -> None:
        world = self.run.world
        if not world.closing:
            world.after(0.1 + world.random.random(), None, self.start)


class EngineRun(Run):
    def __init__(self, plan: Plan, *, tracing: bool) -> None:
        super().__init__(plan, tracing=tracing)
        self.cluster = engines.CLUSTERS[plan.store](
            self.network, random.Random(plan.seed), plan.variant, predates_keys=plan.predates_keys
        )
        set_servers(self.cluster.servers)
        self.nodes = [Node(self, number) for number in range(plan.nodes)]

    def store(self) -> str:
        return f"{self.plan.store}:"

    def listeners(self) -> list[Listener]:
        return [each.listener for each in self.nodes]

    def index(self) -> int:
        return self.cluster.index()

    def restore(self) -> None:
        self.cluster.restore()

    def fault(self, plan: FaultPlan) -> Fault:
        """Return the calls that begin and end a fault."""
        world, network, cluster = self.world, self.network, self.cluster
        chance = random.Random(plan.seed)
        node = self.nodes[plan.target % len(self.nodes)]
        hosts = cluster.hosts()
        host = hosts[plan.target % len(hosts)]
        server = cluster.servers[host]

        def cut(to_engine: bool, from_engine: bool, targets: list[str]) -> Fault:
            ways = [(node.name, each) for each in targets] if to_engine else []
            ways += [(each, node.name) for each in targets] if from_engine else []

            def begin() -> None:
                for way in ways:
                    network.cut(*way)

            def end() -> None:
                for way in ways:
                    network.heal(*way)

            return begin, end

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
                targets = hosts if chance.random() < 0.7 else [host]
                return cut(plan.kind != "cut_from_engine", plan.kind != "cut_to_engine", targets)
            case "slow_network":
                return set_during(network, "slowness", 0.2, 0.0)
            case "engine_kill":
                return server.kill, server.start
            case "engine_stop":
                return server.stop, server.resume
            case "engine_cut":
                one, other = chance.choice([(a, b) for a in hosts for b in hosts])
                return partial(network.cut, one, other), partial(network.heal, one, other)
            case "lossy_link":
                fault_name = plan.subkind or chance.choice(
                    ("lost_request", "lost_reply", "late_reply", "reset", "trickling")
                )
                share = chance.choice((0.1, 0.5, 1.0))
                return set_during(cluster.link_faults, fault_name, share, 0.0)
            case "late_requests":
                return set_during(cluster.link_faults, "late_request", 0.3, 0.0)
            case "engine_fault":
                fault_name = plan.subkind or chance.choice(cluster.faults)
                if fault_name not in cluster.faults:
                    return do_nothing, do_nothing
                fault: Fault = getattr(cluster, fault_name)(chance)
                return fault
            case "raise_index":

                def raise_index() -> None:
                    index = cluster.index()
                    # Servers do not start above the maximum.
                    higher = min(chance.randint(1, 9), self.plan.max_index - index)
                    if higher <= 0:
                        return
                    world.log("operator", f"raises the index from {index} to {index + higher}")
                    self.history.skip_indexes(world.now, higher)
                    cluster.raise_index(index + higher)

                return raise_index, do_nothing
            case "remove_records":

                def remove_records() -> None:
                    world.log("operator", "removes all records")
                    cluster.remove_records()

                return remove_records, do_nothing
            case "wrong_clock":
                weeks = chance.choice((-9, -5, 5, 9)) * WEEKS

                def set_clock() -> None:
                    if chance.random() < 0.5:
                        server.clock += weeks
                    else:
                        node.clock += weeks
                        node.process.clock = node.clock

                return set_clock, do_nothing
        raise ValueError(plan.kind)
