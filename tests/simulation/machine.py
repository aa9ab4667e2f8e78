"""A simulated machine with the embedded store: a server, its standby, a backup, a watchdog, a disk.

The life of a server is the product's, with standing by, opening, takeover and end; so is the store,
down to what it asks of SQLite and of the system. ``supervisord`` starts again what has ended.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import uvicorn
from uvicorn.server import ServerState

from fibcore.appliance.ending import EXIT_COMMIT_FAILED, EXIT_DATABASE_INVALID, EXIT_FAILED
from fibcore.appliance.settings import Settings
from fibcore.problems import DatabaseInvalidError
from fibcore.stores.sqlite_opener import SqliteOpener
from supervise.backup import BackupCopy
from tests.simulation.disk import Disk
from tests.simulation.network import Listener
from tests.simulation.process import Process, SimulatedWorker
from tests.simulation.sqlite_wal import committed_index
from tests.simulation.system import FOLDER, MachineProcess, SimulatedPath
from tests.simulation.world import Violation
from web.http.hub import Connections, InOrder
from web.http.protocol import Protocol
from web.life import Life

if TYPE_CHECKING:
    from tests.simulation.machine_run import MachineRun


DATABASE: Final = SimulatedPath(f"{FOLDER}/fibcore.db")
DATABASE_FILES: Final = ("fibcore.db", "fibcore.db-wal")
BACKUP_SECONDS: Final = 3.0
WRITE_BACK_SECONDS: Final = 2.0
CONFIG: Final = cast("uvicorn.Config", None)
"""It is asked for pages alone, which no client here asks for."""


def nothing() -> None:
    """What begins or ends some faults."""


class MachineServer:
    """A server as supervisord starts it: it stands by, and serves when it has the lock.

    Args:
        process: in which.
        listener: whose connections.
        settings: its own.
        on_serving: called when it has opened the database.
    """

    def __init__(
        self,
        process: MachineProcess,
        listener: Listener,
        settings: Settings,
        on_serving: Callable[[], object],
    ) -> None:
        self.process = process
        self.serves = False
        self._on_serving = on_serving
        self._listener = listener
        opener = SqliteOpener(cast("Path", DATABASE), settings.synchronous)
        self.life = Life(
            settings, opener, process.end, worker=SimulatedWorker, clock=process.monotonic
        )
        self._state = ServerState()
        self._state.connections = InOrder()  # type: ignore[assignment]
        self._stopping = process.loop.create_future()
        bound = Protocol.bound_to(Connections(self.life.service))
        self._protocol: Any = lambda: bound(CONFIG, self._state, {}, process.loop)
        process.spawn(lambda: self.life.live(self._work))

    def _work(self) -> None:
        process = self.process
        try:
            self.life.stand_by()
            main = self._serve()
            process.loop.run(main, nothing)
        except DatabaseInvalidError:
            raise
        except Exception as error:
            process.failed(error)
            raise

    async def _serve(self) -> None:
        process = self.process
        async with self.life.serving(self._stop):
            self.serves = True
            opening = self.life.service.opening
            if opening is None:
                self._on_serving()
            else:
                opening.add_done_callback(self._has_opened)
            process.world.say(process.name, "serves")
            self._listener.serve(process.loop, self._protocol)
            await self._stopping
            self._listener.pause()
            for protocol in list(self._state.connections):
                protocol.shutdown()
            end = process.loop.time() + self.life.service.settings.stop_timeout
            while self._state.connections and process.loop.time() < end:
                await asyncio.sleep(0.1)

    def _has_opened(self, opening: "asyncio.Task[None]") -> None:
        if not opening.cancelled() and opening.exception() is None:
            self._on_serving()

    def stop(self) -> None:
        """As SIGTERM does: one that stands by ends at once."""
        if self.serves:
            self.process.world.say(self.process.name, "is told to stop")
            self.process.after(0.0, self._stop)
        else:
            self.process.kill()

    def _stop(self) -> None:
        if not self._stopping.done():
            self._stopping.set_result(None)
            self.process.loop.call_soon_threadsafe(nothing)


class Machine:
    """The machine, and supervisord on it."""

    def __init__(self, run: "MachineRun") -> None:
        self.name = "machine"
        self.run = run
        self.world = run.world
        self.disk = Disk(run.world, self.name)
        self.listener = Listener(run.network, self.name)
        self.boot = 1
        self.pid = 1
        self.has_power = True
        self.may_be_invalid = False
        """Whether a person has put there what is not to be served from."""
        self.known = 0
        """The index that the high-water mark proves, while a person is at the files."""
        self.backed_up = 0
        """The index of the backup copy."""
        self.is_served = True
        """Whether supervisord starts servers; not while a person is at the files."""
        self.processes: list[MachineProcess] = []
        """Those that run."""
        self.slots: dict[str, MachineServer] = {}
        self.is_settled = False
        """Whether no more faults come."""
        self.is_lossy = False
        """Whether the level of the last that served lets a power cut take steps away."""
        self.epochs: list[tuple[float, int]] = []
        """When the power was cut so that it may have, and the index then."""
        self.starts: list[int] = []
        """The index from which the first server after each of these went on."""
        for slot in ("server", "standby"):
            self.start(slot)
        self.start_backup()
        self.world.after(WRITE_BACK_SECONDS * self.world.random.random(), None, self._write_back)

    # What runs.

    def process(self, name: str) -> MachineProcess:
        """A process of this machine."""
        self.pid += 1
        made = MachineProcess(self.disk, f"{name}.{self.pid}", self.boot, self.pid)
        self.processes.append(made)
        made.at_end.append(partial(self.processes.remove, made))
        return made

    def start(self, slot: str) -> None:
        """Start a server."""
        if not (self.has_power and self.is_served) or slot in self.slots:
            return
        process = self.process(slot)
        process.at_end.append(partial(self._ended, slot, process))
        level = self.run.levels[self.pid % len(self.run.levels)]
        settings = replace(self.run.settings, synchronous=level)  # type: ignore[arg-type]
        server = MachineServer(
            process, self.listener, settings, partial(self._serves, level != "full")
        )
        self.slots[slot] = server

    def _ended(self, slot: str, process: Process) -> None:
        world = self.world
        if world.closing:
            return
        del self.slots[slot]
        match process.status:
            case int(status) if status == EXIT_FAILED:
                world.violation = world.violation or Violation(f"{process} ended unforeseen")
            case int(status) if status == EXIT_DATABASE_INVALID:
                if not self.may_be_invalid:
                    world.violation = Violation("the database is found invalid for nothing")
                return
            case int(status) if status == EXIT_COMMIT_FAILED and not self.run.may_fail:
                world.violation = Violation("a commit has failed for nothing")
        world.after(0.05 + 0.2 * world.random.random(), None, self.start, slot)

    def _serves(self, is_lossy: bool) -> None:
        # What was committed before is synced by now, whatever the level was.
        self.is_lossy = is_lossy
        if self.index() < self.known:
            raise Violation(f"it serves from {self.index()}, and was at {self.known}")
        if self.index() < self.backed_up:
            raise Violation(f"it serves from {self.index()}, and was backed up at {self.backed_up}")
        if len(self.starts) < len(self.epochs):
            self.starts += [self.index()] * (len(self.epochs) - len(self.starts))

    def start_backup(self) -> None:
        """Copy the database now and then."""
        process = self.process("backup")
        process.spawn(partial(self._back_up, process))
        process.at_end.append(lambda: self.world.after(1.0, None, self._start_backup_again))

    def _start_backup_again(self) -> None:
        if self.has_power and not self.world.closing and self.is_served:
            self.start_backup()

    def _back_up(self, process: MachineProcess) -> None:
        copy = BackupCopy(cast("Path", DATABASE))
        while True:
            process.sleep(BACKUP_SECONDS * (0.5 + self.world.random.random()))
            if not self.is_settled:
                copy.refresh()
                self.backed_up = copy.index or 0

    def _write_back(self) -> None:
        self.disk.write_back()
        if not any("backup" not in each.name for each in self.processes):
            self.disk.drop(DATABASE_FILES)
        self.world.after(WRITE_BACK_SECONDS * self.world.random.random(), None, self._write_back)

    def serving(self) -> MachineServer | None:
        """The server that serves, if there is one."""
        for each in self.slots.values():
            if each.serves and each.process.alive:
                return each
        return None

    def standing_by(self) -> MachineServer | None:
        """One that does not."""
        for each in self.slots.values():
            if not each.serves and each.process.alive:
                return each
        return None

    def index(self) -> int:
        """What is committed, as far as the page cache has it."""
        names = self.disk.names
        if "fibcore.db" not in names:
            return 0
        return committed_index(names["fibcore.db"], names.get("fibcore.db-wal"))

    def settle(self) -> None:
        """Be well again."""
        self.is_settled = True
        self.disk.forget_actions()
        self.start_again()
        self.disk.is_full = False
        self.disk.failing_syncs = self.disk.failing_writes = self.disk.failing_next = 0
        self.disk.sync_seconds = 1e-3
        for each in list(self.processes):
            each.resume()

    # What happens to it.

    def cut_power(self) -> None:
        """All ends at once, and what is not on the disk is lost."""
        if not self.has_power or self.is_settled:
            return
        self.has_power = False
        # Of two in a row that nobody has served between, the first counts.
        if self.is_lossy and len(self.starts) == len(self.epochs):
            self.epochs.append((self.world.now, self.index()))
        for each in list(self.processes):
            each.kill()
        self.listener.is_open = False
        while self.listener.backlog:
            self.listener.backlog.popleft().refuse()
        self.disk.cut_power()

    def start_again(self) -> None:
        """Boot."""
        if self.has_power or self.world.closing:
            return
        self.world.say(self.name, f"boots, at index {self.index()}")
        self.has_power = True
        self.boot += 1
        self.listener.is_open = True
        for slot in ("server", "standby"):
            self.start(slot)
        self._start_backup_again()

    def end_all(self) -> None:
        """Have a person stop all that runs, with what it takes."""
        self.is_served = False
        for each in list(self.processes):
            each.kill()

    def serve_again(self) -> None:
        """Have it run again."""
        self.is_served = True
        for slot in ("server", "standby"):
            self.start(slot)
        self._start_backup_again()
