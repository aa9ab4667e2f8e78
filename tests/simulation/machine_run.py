"""A run on one machine with the embedded store: its faults, and the steps that they may lose."""

import random
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from fibcore.problems import DatabaseInvalidError, StoreUnavailableError
from fibcore.stores import sqlite, sqlite_file
from tests.simulation.base import Run
from tests.simulation.disk import Disk
from tests.simulation.machine import DATABASE, DATABASE_FILES, Machine
from tests.simulation.network import Listener
from tests.simulation.plan import Fault, FaultPlan, Plan, set_during
from tests.simulation.process import Process
from tests.simulation.server import do_nothing
from tests.simulation.sqlite_wal import SHARED, committed_index
from tests.simulation.system import MachineProcess
from tests.support.checker import Operation, check

SET_INDEX_CALLS: Final = 150
"""Calls to the disk that ``set-index`` makes, and a few more."""
WATCHDOG_SECONDS: Final = 2.5
LONGEST_DELAY: Final = 2.0
"""Longest time until a connection reaches the machine, or its next server after a power cut."""
TAMPERING: Final = frozenset({"older_copy", "lost_wal", "deleted_files"})
DISK_FAULTS: Final = frozenset(
    {
        "failing_syncs",
        "failing_writes",
        "failing_reads",
        "full_disk",
        "folder_denied",
        "no_descriptors",
    }
)


class MachineRun(Run):
    is_watched = True
    harmless = frozenset({"kill", "restart", "stop_standby", "open_reader", "stop_backup"})

    def __init__(self, plan: Plan, *, tracing: bool) -> None:
        super().__init__(plan, tracing=tracing)
        SHARED.clear()
        sqlite.WAL_PAGES = plan.wal_pages  # type: ignore[misc]
        self.may_fail = bool(self.kinds & {"failing_syncs", "failing_writes", "failing_reads"}) or (
            self.kinds >= {"full_disk", "open_reader"}
        )
        """Whether a commit may fail."""
        self.machine = Machine(self)

    @property
    def may_lose_steps(self) -> bool:
        return bool(self.machine.lossy_cuts)

    @property
    def keeps_keys(self) -> bool:
        return "full" in self.plan.levels and not self.kinds & {
            *TAMPERING,
            "lying_disk",
            "set_index",
        }

    def store(self) -> str:
        return f"sqlite:{DATABASE}"

    def listeners(self) -> list[Listener]:
        return [self.machine.listener]

    def index(self) -> int:
        return self.machine.index()

    def restore(self) -> None:
        self.machine.restore()

    def check_history(self) -> int:
        """Check each period between two power cuts that may have lost steps."""
        first, begin, steps = 0, 0.0, 0
        operations = self.history.operations
        starts = iter(self.machine.resumed_at)
        for when, last in self.machine.lossy_cuts:
            steps += check(between(operations, begin, when), first=first, last=last).steps
            first, begin = next(starts, self.index()), when
        rest = between(operations, begin, self.world.now)
        return steps + check(rest, first=first, last=self.index()).steps

    def fault(self, plan: FaultPlan) -> Fault:
        """Return the calls that begin and end a fault."""
        world, machine, disk = self.world, self.machine, self.machine.disk
        chance = random.Random(plan.seed)

        def now_or_during_disk_calls(action: Callable[[], object]) -> Callable[[], object]:
            """Act at once, or during one of the next disk calls."""
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

                return now_or_during_disk_calls(kill), do_nothing
            case "restart":

                def stop_gracefully() -> None:
                    if (server := machine.serving()) is not None:
                        server.stop()

                return stop_gracefully, do_nothing
            case "stop" | "stop_standby":

                def stop() -> None:
                    server = machine.serving() if plan.kind == "stop" else machine.standing_by()
                    if server is None:
                        return
                    process = server.process
                    process.stop()
                    if server.serves:
                        world.after(WATCHDOG_SECONDS, None, watchdog_kill, process)
                    world.after(max(0.0, plan.end - world.now), None, process.resume)

                return now_or_during_disk_calls(stop), do_nothing
            case "power_cut":
                return now_or_during_disk_calls(machine.cut_power), machine.power_on
            case "failing_syncs" if plan.subkind or chance.random() < 0.5:
                number = int(plan.subkind or chance.randint(1, 2))
                return set_during(disk, "failing_next_syncs", number, 0)
            case "failing_syncs" | "failing_writes" | "failing_reads":
                share = chance.choice((0.05, 0.3, 1.0))
                return set_during(disk, plan.kind, share, 0.0)
            case "lying_disk":
                return set_during(disk, "is_lying", True, False)
            case "folder_denied" | "no_descriptors":
                name = "is_denied" if plan.kind == "folder_denied" else "has_no_descriptors"
                return (
                    now_or_during_disk_calls(partial(setattr, disk, name, True)),
                    now_or_during_disk_calls(partial(setattr, disk, name, False)),
                )
            case "full_disk":
                return set_during(disk, "is_full", True, False)
            case "slow_disk":
                return set_during(disk, "sync_seconds", 0.5, 1e-3)
            case kind if kind in TAMPERING:
                return self.tampering(plan, chance)
            case "set_index":
                return partial(self.set_index, chance), do_nothing
            case "killed_set_index":
                return partial(self.killed_set_index, chance), do_nothing
            case "open_reader" | "locked_database":
                return self.program(plan)
            case "stop_backup":

                def stop_backup() -> None:
                    for each in machine.processes:
                        if each.name.startswith("backup"):
                            each.stop()
                            world.after(max(0.0, plan.end - world.now), None, each.resume)

                return now_or_during_disk_calls(stop_backup), do_nothing
        raise ValueError(plan.kind)

    def set_index(self, chance: random.Random) -> None:
        """An operator stops all servers and moves the sequence, up or down."""
        machine = self.machine
        if not self._can_be_set():
            return
        before = machine.index()
        ahead = chance.choice((-1, 1)) * chance.randint(1, 9)
        # Servers do not start above the maximum.
        index = min(max(0, before + ahead), self.plan.max_index)

        def note() -> None:
            if index < before:
                machine.proven_index = machine.backed_up = 0
                machine.lossy_cuts.append((self.world.now, before))
                machine.resumed_at.append(index)
            else:
                self.history.skip_indexes(self.world.now, index - before)

        machine.set_index(index, note)

    def _can_be_set(self) -> bool:
        """Whether no other fault of the files or the disk could prevent it."""
        others = {"power_cut", *TAMPERING, *DISK_FAULTS, "locked_database"}
        return self.machine.has_store_open() and not self.kinds & others

    def killed_set_index(self, chance: random.Random) -> None:
        """An operator raises the index by a command that may be killed, and does not repeat it."""
        machine = self.machine
        if not self._can_be_set():
            return
        before = machine.index()
        index = min(before + chance.randint(0, 9), self.plan.max_index)

        def note() -> None:
            self.history.skip_indexes(self.world.now, machine.index() - before)

        machine.set_index_and_be_killed(index, chance.randint(1, SET_INDEX_CALLS), note)

    def program(self, plan: FaultPlan) -> Fault:
        """Another program holds a read transaction, or the write lock."""
        machine = self.machine
        is_over: list[bool] = []

        def use(process: MachineProcess) -> None:
            database: Any = DATABASE
            try:
                connection = sqlite_file.connect(database)
                connection.execute("BEGIN" if plan.kind == "open_reader" else "BEGIN IMMEDIATE")
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

    def tampering(self, plan: FaultPlan, chance: random.Random) -> Fault:
        """An operator restores older files or deletes some, and undoes that later."""
        machine, disk = self.machine, self.machine.disk
        older: list[dict[str, bytes]] = []
        newer: list[dict[str, bytes]] = []

        def remember() -> None:
            older.append(disk.snapshot())

        self.world.after(plan.begin * chance.random(), None, remember)

        def begin() -> None:
            # A power cut could destroy the evidence at the same time.
            cuts = any(each.kind == "power_cut" for each in self.plan.faults)
            if not machine.has_store_open() or not older or cuts or machine.may_be_invalid:
                return
            machine.stop_all()
            machine.may_be_invalid = True
            self.world.log("operator", f"tampers with the files: {plan.kind}")
            newer.append(disk.snapshot())
            machine.proven_index = machine.marked_index()
            for name in DATABASE_FILES:
                if plan.kind == "older_copy":
                    disk.put(name, older[0].get(name))
                elif plan.kind == "deleted_files" or name.endswith("wal"):
                    disk.put(name, None)
            machine.resume_service()

        def end() -> None:
            if newer:
                machine.stop_all()
                self.world.log("operator", "puts the files back")
                if (now := machine.index()) <= self.index_in(newer[0]):
                    for name in DATABASE_FILES:
                        disk.put(name, newer[0].get(name))
                else:
                    self.world.log("operator", f"leaves the files, which are at {now}")
                machine.may_be_invalid, machine.proven_index = False, 0
                machine.resume_service()

        return begin, end

    def index_in(self, names: dict[str, bytes]) -> int:
        """Return the index in a snapshot."""
        disk = Disk(self.world, "aside")
        for name in DATABASE_FILES:
            disk.put(name, names.get(name))
        if "fibcore.db" not in disk.names:
            return 0
        return committed_index(disk.names["fibcore.db"], disk.names.get("fibcore.db-wal"))


def watchdog_kill(process: Process) -> None:
    if process.alive and process.stopped:
        process.kill()


def between(operations: list[Operation], begin: float, end: float) -> list[Operation]:
    """Return the operations that were sent, or may have arrived unanswered, in that period."""
    return [
        each
        for each in operations
        if begin - (LONGEST_DELAY if each.index is None else 0.0) <= each.start < end
    ]
