"""A simulated machine with the embedded store: server, standby, backup, watchdog and disk.

The product's code runs from start through standby and takeover to exit, down to its calls of
SQLite and the system. ``supervisord`` restarts what has ended.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from fibcore.appliance.ending import EXIT_COMMIT_FAILED, EXIT_DATABASE_INVALID, EXIT_FAILED
from fibcore.problems import CommitFailedError, StoreUnavailableError
from fibcore.stores.sqlite import Synchronous
from fibcore.stores.sqlite_opener import SqliteOpener
from supervise.backup import BackupCopy
from tests.simulation.disk import Disk
from tests.simulation.network import Listener
from tests.simulation.process import Process
from tests.simulation.server import Server, do_nothing
from tests.simulation.sqlite_wal import SHARED, committed_index
from tests.simulation.system import FOLDER, MachineProcess, SimulatedPath
from tests.simulation.world import Violation

if TYPE_CHECKING:
    from tests.simulation.machine_run import MachineRun

DATABASE: Final = SimulatedPath(f"{FOLDER}/fibcore.db")
DATABASE_FILES: Final = ("fibcore.db", "fibcore.db-wal")
COMMIT_PAGES: Final = 6
"""More than any commit writes."""
BACKUP_SECONDS: Final = 1.0
PROMPT_SECONDS: Final = 0.5
"""Time within which a starting process detects another server."""
WRITE_BACK_SECONDS: Final = 2.0


class Machine:
    """A machine, and supervisord on it."""

    def __init__(self, run: "MachineRun") -> None:
        self.name = "machine"
        self.run = run
        self.world = run.world
        self.disk = Disk(run.world, self.name)
        # With another level a failed write-back would lose steps, and no sync would report it.
        self.disk.write_back_fails = run.plan.levels == ("full",)
        self.listener = Listener(run.network, self.name)
        self.boot = 1
        self.pid = 1
        self.has_power = True
        self.may_be_invalid = False
        """Whether an operator has put files in place that must not be served from."""
        self.proven_index = 0
        """The index that the high-water mark proves, while an operator tampers with the files."""
        self.backed_up = 0
        """The index of the backup copy."""
        self.is_served = True
        """Whether supervisord starts servers; not while an operator works on the files."""
        self.processes: list[MachineProcess] = []
        """The running ones."""
        self.slots: dict[str, Server] = {}
        self.is_settled = False
        """Whether the last fault is over."""
        self.may_be_corrupt = False
        """Whether a power cut may have corrupted the database."""
        self.level = "full"
        """The synchronous level of the last server that opened the store."""
        self.opened: tuple[MachineProcess | None, float] = None, 0.0
        """The process that last opened the store, and when."""
        self.lossy_cuts: list[tuple[float, int]] = []
        """Power cuts that may have lost steps: when, and the index then."""
        self.resumed_at: list[int] = []
        """The index at which the first server after each of them resumed."""
        for slot in ("server", "standby"):
            self.start(slot)
        self.start_backup()
        self.world.after(WRITE_BACK_SECONDS * self.world.random.random(), None, self._write_back)

    # Processes.

    def process(self, name: str) -> MachineProcess:
        """Create a process of this machine."""
        self.pid += 1
        made = MachineProcess(self.disk, f"{name}.{self.pid}", self.boot, self.pid)
        self.processes.append(made)
        made.another_serves = partial(self._another_serves, made)
        made.at_end.append(partial(self.processes.remove, made))
        return made

    def _another_serves(self, process: MachineProcess) -> bool:
        servers = [each for each in self.slots.values() if each.process is not process]
        return any(each.serves and each.process.alive for each in servers)

    def start(self, slot: str) -> None:
        """Start a server in this slot."""
        if not (self.has_power and self.is_served) or slot in self.slots:
            return
        process = self.process(slot)
        process.at_end.append(partial(self._handle_end, slot, process))
        levels = self.run.plan.levels
        level = cast("Synchronous", levels[self.pid % len(levels)])
        self.slots[slot] = server = Server(
            process,
            self.listener,
            replace(self.run.settings, synchronous=level),
            SqliteOpener(cast("Path", DATABASE), level, self.run.plan.max_keys),
            partial(self._opened_store, process, level),
            partial(self._starts_without_store, process),
        )
        self.run.servers.append(server)

    def _handle_end(self, slot: str, process: Process) -> None:
        world = self.world
        if world.closing:
            return
        del self.slots[slot]
        match process.status:
            case int(status) if status == EXIT_FAILED:
                world.violation = world.violation or Violation(
                    f"{process} ended with an unexpected error"
                )
            case int(status) if status == EXIT_DATABASE_INVALID:
                if self.may_be_corrupt:
                    self.may_be_corrupt = self.is_served = False
                    world.after(0.5, None, self.set_index, self.lossy_cuts[-1][1])
                elif self.is_served and not self.may_be_invalid:
                    world.violation = Violation(
                        "the database was rejected as invalid without cause"
                    )
                return
            case int(status) if status == EXIT_COMMIT_FAILED and not (
                self.run.may_fail or self._wal_reserve_is_exhausted()
            ):
                world.violation = Violation("a commit failed without cause")
        world.after(0.05 + 0.2 * world.random.random(), None, self.start, slot)

    def _wal_reserve_is_exhausted(self) -> bool:
        """Whether a reader has left no room for a commit in the reserve of the WAL, on a full disk.

        If it has left, a WAL that has outgrown its reserve is moved before the next commit.
        """
        shared = SHARED.get(self.disk.names["fibcore.db"])
        if not self.disk.is_full or shared is None:
            return False
        room = 2 * self.run.plan.wal_pages - len(shared.frames)
        return room < COMMIT_PAGES and (room >= 0 or any(shared.readers.values()))

    def _starts_without_store(self, process: MachineProcess) -> None:
        """Allow a process to answer 503 only if no other has the store open."""
        opener, since = self.opened
        if (
            opener is not None
            and opener.alive
            and self.world.now - since > PROMPT_SECONDS
            and not self.run.kinds & {"stop", "stop_standby"}
        ):
            raise Violation(f"{process} answers 503, although {opener} has the store open")

    def _opened_store(self, process: MachineProcess, level: str) -> None:
        self.opened = process, self.world.now
        # Opening has synced all earlier commits, at any level.
        self.level, self.may_be_corrupt = level, False
        if self.index() < self.proven_index:
            raise Violation(
                f"serves from index {self.index()}, after {self.proven_index} was recorded"
            )
        if self.index() < self.backed_up:
            raise Violation(
                f"serves from index {self.index()}, after {self.backed_up} was backed up"
            )
        if len(self.resumed_at) < len(self.lossy_cuts):
            self.resumed_at += [self.index()] * (len(self.lossy_cuts) - len(self.resumed_at))

    def start_backup(self) -> None:
        """Start the process that copies the database periodically."""
        process = self.process("backup")
        process.spawn(partial(self._back_up, process))
        process.at_end.append(lambda: self.world.after(1.0, None, self._restart_backup))

    def _restart_backup(self) -> None:
        there = any(each.name.startswith("backup") for each in self.processes)
        if self.has_power and not self.world.closing and self.is_served and not there:
            self.start_backup()

    def _back_up(self, process: MachineProcess) -> None:
        copy = BackupCopy(cast("Path", DATABASE))
        while True:
            process.sleep(BACKUP_SECONDS * (0.5 + self.world.random.random()))
            if not self.is_settled:
                copy.refresh()
                self.backed_up = max(self.backed_up, copy.index or 0)

    def _write_back(self) -> None:
        self.disk.write_back()
        if not any("backup" not in each.name for each in self.processes):
            self._drop_lost_pages()
        self.world.after(WRITE_BACK_SECONDS * self.world.random.random(), None, self._write_back)

    def _drop_lost_pages(self) -> None:
        """Drop cached pages that a failed write left clean, but not on the disk."""
        before = self.index()
        self.disk.drop_lost_pages(DATABASE_FILES)
        if self.index() < before and self.level != "full":
            # They were never synced; this boot's mark shows that they were committed.
            self._note_possible_loss(before, corrupt=True)

    def _note_possible_loss(self, index: int, *, corrupt: bool) -> None:
        """Note that steps up to ``index`` may be lost, and the database be corrupt."""
        self.run.history.losses.append(self.world.now)
        self.may_be_corrupt |= corrupt
        if self.may_be_corrupt:
            self.backed_up = 0
        if len(self.resumed_at) == len(self.lossy_cuts):
            self.lossy_cuts.append((self.world.now, index))

    def serving(self) -> Server | None:
        for each in self.slots.values():
            if each.serves and each.process.alive:
                return each
        return None

    def has_store_open(self) -> bool:
        """Whether a server has the store open."""
        serving = self.serving()
        return serving is not None and serving.life.service.stepper is not None

    def standing_by(self) -> Server | None:
        for each in self.slots.values():
            if not each.serves and each.process.alive:
                return each
        return None

    def index(self) -> int:
        """Return the committed index, as in the page cache."""
        names = self.disk.names
        if "fibcore.db" not in names:
            return 0
        return committed_index(names["fibcore.db"], names.get("fibcore.db-wal"))

    def marked_index(self) -> int:
        """Return the index of the high-water mark."""
        mark = self.disk.names.get("fibcore.db.mark")
        return 0 if mark is None else int(mark.cached[:19])

    def restore(self) -> None:
        """End all faults."""
        self.is_settled = True
        self.disk.cancel_actions()
        self.power_on()
        self.disk.restore()
        for each in list(self.processes):
            each.resume()

    # Faults.

    def cut_power(self) -> None:
        """Kill all processes; whatever is not on the disk is lost."""
        if not self.has_power or self.is_settled:
            return
        self.has_power = False
        # Of two cuts without a server in between, the first counts.
        has_lied = self.disk.has_lied
        if has_lied or self.level != "full" or self.may_be_corrupt:
            self._note_possible_loss(self.index(), corrupt=has_lied or self.level == "off")
        for each in list(self.processes):
            each.kill()
        self._close_listener()
        self.disk.cut_power()

    def _close_listener(self) -> None:
        """Refuse waiting and new connections."""
        self.listener.is_open = False
        while self.listener.backlog:
            self.listener.backlog.popleft().reject()

    def power_on(self) -> None:
        """Boot."""
        if self.has_power or self.world.closing:
            return
        self.world.log(self.name, f"boots, at index {self.index()}")
        self.has_power = True
        self.boot += 1
        self.listener.is_open = self.is_served
        for slot in ("server", "standby"):
            self.start(slot)
        self._restart_backup()

    def stop_all(self) -> None:
        """Kill all processes, as an operator does, and start no more."""
        self.is_served = False
        for each in list(self.processes):
            each.kill()
        self._close_listener()

    def set_index(self, index: int, note: Callable[[], object] = do_nothing) -> None:
        """Have an operator stop everything, set the index and start the servers again.

        After a power cut meanwhile the operator repeats it.
        """
        again = partial(self.world.after, 0.5, None, self.set_index, index, note)
        self.stop_all()
        if not self.has_power:
            again()
            return
        opener = SqliteOpener(cast("Path", DATABASE))

        def work() -> None:
            self.world.log("operator", f"sets the index to {index}")
            while True:
                try:
                    opener.set_index(index, lower=True)
                    break
                except (StoreUnavailableError, CommitFailedError, OSError):
                    process.sleep(0.5)
            note()
            process.sleep(0.5)
            process.at_end.remove(again)
            self.world.after(0.0, None, self.resume_service)
            process.kill()

        process = self.process("operator")
        process.at_end.append(again)
        process.spawn(work)

    def set_index_and_be_killed(self, index: int, calls: int, note: Callable[[], object]) -> None:
        """An operator raises the index by a command that is killed, and does not repeat it.

        Args:
            index: the new one.
            calls: the command is killed in this one of its calls to the disk, if it gets there.
            note: called when it has ended.
        """
        self.stop_all()
        process = self.process("operator")

        def work() -> None:
            self.world.log("operator", f"raises the index to {index}")
            SqliteOpener(cast("Path", DATABASE)).set_index(index)
            process.kill()

        process.at_end += [note, partial(self.world.after, 0.0, None, self.resume_service)]
        self.disk.after_calls(calls, process.kill)
        process.spawn(work)

    def resume_service(self) -> None:
        """Start the servers and the backup."""
        self.is_served = self.listener.is_open = True
        for slot in ("server", "standby"):
            self.start(slot)
        self._restart_backup()
