"""A run on one machine with the embedded store: its faults, and what came of it."""

import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeAlias

from bench.checker import Operation, check
from fibcore.appliance.settings import Settings
from fibcore.problems import DatabaseInvalidError, StoreUnavailableError
from fibcore.stores import sqlite, sqlite_file
from tests.simulation.disk import Disk
from tests.simulation.machine import DATABASE, DATABASE_FILES, Machine
from tests.simulation.machine_clients import MachineClient, last_script
from tests.simulation.machine_plan import Fault, Plan
from tests.simulation.network import Network
from tests.simulation.process import Process
from tests.simulation.sqlite_wal import SHARED, committed_index
from tests.simulation.system import MachineProcess
from tests.simulation.world import Violation, World

DEFAULTS: Final = Settings.from_environ({})
QUIET_SECONDS: Final = 12.0
"""After the last fault: by then all is well again."""
LAST_SECONDS: Final = 18.0
WATCHDOG_SECONDS: Final = 2.5
HARMLESS: Final = {"kill", "restart", "stop_standby", "reader", "stop_backup"}
"""Faults that make nobody's answer a 503."""

Ends: TypeAlias = tuple[Callable[[], object], Callable[[], object]]
"""What begins a fault, and what ends it."""


def nothing() -> None:
    """What begins or ends some faults."""


@dataclass
class Outcome:
    """What came of a run."""

    violation: BaseException | None
    trace: list[str]
    steps: int


def run(plan: Plan, *, tracing: bool = False) -> Outcome:
    """Carry a plan out, and judge what came of it."""
    made = MachineRun(plan, tracing=tracing)
    outcome = Outcome(None, made.world.trace, 0)
    try:
        made.go()
        outcome.steps = made.judged()
    except AssertionError as error:
        outcome.violation = error
    finally:
        made.world.close()
    return outcome


class MachineRun:
    """A run, while it is."""

    def __init__(self, plan: Plan, *, tracing: bool) -> None:
        SHARED.clear()
        self.plan = plan
        self.levels = plan.levels
        self.world = World(plan.seed, tracing=tracing)
        self.network = Network(self.world)
        sqlite.WAL_PAGES = plan.wal_pages  # type: ignore[misc]
        self.settings = replace(DEFAULTS, max_index=plan.max_index, store=f"sqlite:{DATABASE}")
        self.kinds = {each.kind for each in plan.faults}
        self.may_fail = bool(self.kinds & {"failing_syncs", "failing_writes"}) or (
            self.kinds >= {"full", "reader"}
        )
        self.operations: list[Operation] = []
        self.unavailable: list[tuple[float, str]] = []
        self.last: list[int] = []
        """The statuses of what is asked when all is well again."""
        self.machine = Machine(self)
        self.clients = Process(self.world, "clients")

    def client(self, name: str) -> MachineClient:
        """One more client."""
        listener = self.machine.listener
        return MachineClient(self.clients, name, listener, self.operations, self.unavailable)

    def go(self) -> None:
        """Carry the plan out."""
        world = self.world
        end_of_faults = 0.0
        for each in self.plan.faults:
            begin, end = self.fault(each)
            end_of_faults = max(end_of_faults, each.end)
            world.after(each.begin, None, self._begin, each, begin)
            world.after(each.end, None, end)
        for number, (kind, when, requests, pause) in enumerate(self.plan.clients):
            made = self.client(f"client{number}")
            script = partial(made.run, kind, requests, pause)
            world.after(when, None, self.clients.spawn, script)
        world.after(end_of_faults + 0.01, None, self.machine.settle)
        script = partial(last_script, self.client("last"), self.last)
        world.after(end_of_faults + QUIET_SECONDS, None, self.clients.spawn, script)
        world.run(end_of_faults + QUIET_SECONDS + LAST_SECONDS)

    def _begin(self, fault: Fault, begin: Callable[[], object]) -> None:
        self.world.say("fault", f"{fault.kind} begins")
        begin()

    def judged(self) -> int:
        """Hold it against the promises: where a level may lose steps, what is between two cuts.

        Raises:
            WrongAnswer, Violation: one was broken.
        """
        first, begin, steps = 0, 0.0, 0
        starts = iter(self.machine.starts)
        for when, last in self.machine.epochs:
            steps += check(between(self.operations, begin, when), first=first, last=last).steps
            first, begin = next(starts, self.machine.index()), when
        rest = between(self.operations, begin, self.world.now)
        steps += check(rest, first=first, last=self.machine.index()).steps
        if self.kinds <= HARMLESS and self.unavailable:
            raise Violation(f"answered 503 with no fault that explains it: {self.unavailable[0]}")
        if len(self.last) < 3 or not set(self.last) <= {200, 409}:
            raise Violation(f"when all was well again it answered {self.last}")
        return steps

    def fault(self, plan: Fault) -> Ends:
        """What begins a fault, and what ends it."""
        world, machine, disk = self.world, self.machine, self.machine.disk
        chance = random.Random(plan.chance)

        def at_once_or_in_a_commit(action: Callable[[], object]) -> Callable[[], object]:
            """Do it now, or when the disk is asked for something for the nth time."""
            if chance.random() < 0.3:
                return action
            return partial(disk.after_calls, chance.randint(1, 15), action)

        match plan.kind:
            case "kill":

                def kill() -> None:
                    servers = (machine.serving(), machine.standing_by())
                    for each in chance.choice((servers[:1], servers[1:], servers)):
                        if each is not None:
                            each.process.kill()

                return at_once_or_in_a_commit(kill), nothing
            case "restart":

                def stop_gracefully() -> None:
                    if (server := machine.serving()) is not None:
                        server.stop()

                return stop_gracefully, nothing
            case "stop" | "stop_standby":

                def stop() -> None:
                    server = machine.serving() if plan.kind == "stop" else machine.standing_by()
                    if server is None:
                        return
                    process = server.process
                    process.stop()
                    if server.serves:
                        world.after(WATCHDOG_SECONDS, None, kill_if_stopped, process)
                    world.after(max(0.0, plan.end - world.now), None, process.resume)

                return at_once_or_in_a_commit(stop), nothing
            case "power":
                return at_once_or_in_a_commit(machine.cut_power), machine.start_again
            case "failing_syncs" if chance.random() < 0.5:
                return partial(setattr, disk, "failing_next", chance.randint(1, 2)), partial(
                    setattr, disk, "failing_next", 0
                )
            case "failing_syncs" | "failing_writes":
                share = chance.choice((0.05, 0.3, 1.0))
                return partial(setattr, disk, plan.kind, share), partial(
                    setattr, disk, plan.kind, 0.0
                )
            case "full":
                return partial(setattr, disk, "is_full", True), partial(
                    setattr, disk, "is_full", False
                )
            case "slow":
                return partial(setattr, disk, "sync_seconds", 0.5), partial(
                    setattr, disk, "sync_seconds", 1e-3
                )
            case "older_copy" | "wal_lost" | "deleted":
                return self.tampering(plan, chance)
            case "reader" | "locked":
                return self.program(plan)
            case "stop_backup":

                def stop_backup() -> None:
                    for each in machine.processes:
                        if each.name.startswith("backup"):
                            each.stop()
                            world.after(max(0.0, plan.end - world.now), None, each.resume)

                return at_once_or_in_a_commit(stop_backup), nothing
        raise ValueError(plan.kind)

    def program(self, plan: Fault) -> Ends:
        """Another program has the database open, to read it or to keep others from writing."""
        machine = self.machine
        is_over: list[bool] = []

        def use(process: MachineProcess) -> None:
            database: Any = DATABASE
            try:
                connection = sqlite_file.connect(database)
                connection.execute("BEGIN" if plan.kind == "reader" else "BEGIN IMMEDIATE")
                connection.execute("SELECT n, digest FROM sequence")
                while not is_over:
                    process.sleep(0.5)
                connection.execute("COMMIT")
                connection.close()
            except (DatabaseInvalidError, StoreUnavailableError, sqlite3.Error):
                pass
            process.kill()

        def begin() -> None:
            if machine.has_power and machine.is_served:
                process = machine.process(plan.kind)
                process.spawn(partial(use, process))

        return begin, lambda: is_over.append(True)

    def tampering(self, plan: Fault, chance: random.Random) -> Ends:
        """A person puts there what was there before, and takes it away again later."""
        machine, disk = self.machine, self.machine.disk
        older: list[dict[str, bytes]] = []
        newer: list[dict[str, bytes]] = []

        def remember() -> None:
            older.append(disk.snapshot())

        self.world.after(plan.begin * chance.random(), None, remember)

        def begin() -> None:
            serving = machine.serving()
            # A power cut may take the evidence away at the same time.
            cuts = any(each.kind == "power" for each in self.plan.faults)
            if serving is None or not older or cuts or machine.may_be_invalid:
                return
            machine.end_all()
            machine.may_be_invalid = True
            self.world.say("person", f"does this to the files: {plan.kind}")
            newer.append(disk.snapshot())
            machine.known = machine.index()
            for name in DATABASE_FILES:
                if plan.kind == "older_copy":
                    disk.put(name, older[0].get(name))
                elif plan.kind == "deleted" or name.endswith("wal"):
                    disk.put(name, None)
            machine.serve_again()

        def end() -> None:
            if newer:
                machine.end_all()
                self.world.say("person", "puts the files back")
                if (now := machine.index()) <= self.index_in(newer[0]):
                    for name in DATABASE_FILES:
                        disk.put(name, newer[0].get(name))
                else:
                    self.world.say("person", f"leaves them, as they stand at {now}")
                machine.may_be_invalid, machine.known = False, 0
                machine.serve_again()

        return begin, end

    def index_in(self, names: dict[str, bytes]) -> int:
        """At which index a snapshot stands."""
        disk = Disk(self.world, "aside")
        for name in DATABASE_FILES:
            disk.put(name, names.get(name))
        if "fibcore.db" not in disk.names:
            return 0
        return committed_index(disk.names["fibcore.db"], disk.names.get("fibcore.db-wal"))


def kill_if_stopped(process: Process) -> None:
    """What the watchdog does."""
    if process.alive and process.stopped:
        process.kill()


def between(operations: list[Operation], begin: float, end: float) -> list[Operation]:
    """Those that were sent in that time."""
    return [each for each in operations if begin <= each.start < end]
