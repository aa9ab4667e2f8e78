"""A run on one machine with the model store: server and standby, and their faults."""

import random
from functools import partial
from typing import Final, cast

from fibcore.stores import Opener
from tests.simulation.base import Run
from tests.simulation.model_store import ModelFile, ModelOpener
from tests.simulation.network import Listener
from tests.simulation.plan import Fault, FaultPlan, Plan, set_during
from tests.simulation.process import Process
from tests.simulation.product import EXIT_COMMIT_FAILED, EXIT_DATABASE_INVALID, EXIT_FAILED
from tests.simulation.sabotages import Sabotage
from tests.simulation.server import Server, do_nothing
from tests.simulation.world import Violation

ALARM_SECONDS: Final = 2.5
"""Time after which the alarm ends a stopped server."""


class MachineRun(Run):
    is_watched = True
    harmless = frozenset({"kill", "restart", "slow_commits"})

    def __init__(self, plan: Plan, sabotage: Sabotage, *, tracing: bool) -> None:
        super().__init__(plan, sabotage, tracing=tracing)
        self.file = ModelFile(self.world, plan.max_keys)
        sabotage.file(self.file)
        self.listener = Listener(self.network, "machine")
        self.slots: dict[str, Server] = {}
        self.pid = 1
        self.start_servers()

    def listeners(self) -> list[Listener]:
        return [self.listener]

    def index(self) -> int:
        return self.file.index

    def put_index(self, index: int) -> None:
        self.file.set_index(index)

    def restore(self) -> None:
        for each in self.slots.values():
            each.process.resume()

    # Servers.

    def start_servers(self) -> None:
        for slot in ("server", "standby"):
            self.start(slot)

    def start(self, slot: str) -> None:
        """Start a server in this slot, as supervisord does."""
        if not self.is_served or slot in self.slots:
            return
        self.pid += 1
        process = Process(self.world, f"{slot}.{self.pid}", "machine")
        process.at_end.append(partial(self._handle_end, slot, process))
        self.slots[slot] = Server(
            process,
            self.listener,
            cast("Opener", ModelOpener(self.file, self.sabotage.store)),
            self.plan.max_index,
            partial(self._another_serves, process),
        )
        self.servers.append(self.slots[slot])

    def _another_serves(self, process: Process) -> bool:
        servers = [each for each in self.slots.values() if each.process is not process]
        return any(each.serves and each.process.alive for each in servers)

    def _handle_end(self, slot: str, process: Process) -> None:
        world = self.world
        if world.closing:
            return
        del self.slots[slot]
        if process.status in (EXIT_FAILED, EXIT_DATABASE_INVALID) or (
            process.status == EXIT_COMMIT_FAILED and "failing_commit" not in self.kinds
        ):
            world.violation = Violation(f"{process} ended with status {process.status}")
        world.after(0.05 + 0.2 * world.random.random(), None, self.start, slot)

    def serving(self) -> Server | None:
        for each in self.slots.values():
            if each.serves and each.process.alive:
                return each
        return None

    # Faults.

    def fault(self, plan: FaultPlan) -> Fault:
        """Return the calls that begin and end a fault."""
        file = self.file
        chance = random.Random(plan.seed)
        steps = chance.randint(1, 9)
        match plan.kind:
            case "kill":
                return partial(self.kill, chance.choice(("server", "standby", "both"))), do_nothing
            case "restart":

                def stop_gracefully() -> None:
                    if (server := self.serving()) is not None:
                        server.stop()

                return stop_gracefully, do_nothing
            case "stop":
                return partial(self.stop, plan, chance.random() < 0.7), do_nothing
            case "set_index":
                raising = partial(self.raise_index, steps)
                return partial(self.with_servers_stopped, raising), do_nothing
            case "lower_index":
                lowering = partial(self.lower_index, steps)
                return partial(self.with_servers_stopped, lowering), do_nothing
            case "no_rights":
                return set_during(file, "is_denied", True, False)
            case "no_keys":
                return set_during(file, "refuses_keys", True, False)
            case "failing_commit":
                return set_during(file, "failing_commits", chance.randint(1, 3), 0)
            case "slow_commits":
                return set_during(file, "commit_seconds", 0.5, 1e-3)
        raise ValueError(plan.kind)

    def kill(self, which: str) -> None:
        serving = self.serving()
        for each in list(self.slots.values()):
            if which == "both" or (which == "server") == (each is serving):
                each.process.kill()

    def stop(self, plan: FaultPlan, stops_server: bool) -> None:
        """Stop the server or the standby; the alarm ends a server."""
        serving = self.serving()
        for each in self.slots.values():
            if stops_server == (each is serving):
                process = each.process
                process.stop()
                if each is serving:
                    self.world.after(ALARM_SECONDS, None, alarm, process)
                self.world.after(max(0.0, plan.end - self.world.now), None, process.resume)


def alarm(process: Process) -> None:
    if process.alive and process.stopped:
        process.kill()
