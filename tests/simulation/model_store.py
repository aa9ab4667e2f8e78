"""The model of the embedded store: a file with one index, and a lock that one process holds.

A commit takes time, and a kill during it leaves it made or not made. What a disk loses is not
modelled: crash images of the real store show that (tests/crash).
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from fibcore.problems import (
    AnotherWriterError,
    CommitFailedError,
    KeysUnavailableError,
    StoreUnavailableError,
)
from fibcore.stores import DurabilityWarning, IndexConflictError, Store
from tests.simulation.process import Process, Queue, calling_process
from tests.simulation.product import NO_KEYS, Keys, check, made_by
from tests.simulation.world import World

WHERE: Final = "file"


class ModelFile:
    """The file: what it holds, its lock, and its faults."""

    def __init__(self, world: World, max_keys: int) -> None:
        self.world = world
        self.max_keys = max_keys
        self.index = 0
        self.dropped = 0
        """No key of a step past this index has been dropped."""
        self.made: dict[bytes, int] = {}
        """The indexes of the last keyed steps, by the digests of their keys."""
        self.holder: Process | None = None
        """The process with the writer's lock."""
        self.waiting: list[Queue] = []
        """The processes that wait for the lock."""
        self.rejects_dropped = True
        self.locks = True
        """Whether the lock keeps others out."""
        self.is_denied = self.refuses_keys = False
        self.failing_commits = 0
        self.commit_seconds = 1e-3

    def acquire(self, process: Process, report: Callable[[int | None], None]) -> None:
        """Take the lock, waiting until its holder ends."""
        while self.locks and self.holder not in (None, process):
            report(None)
            freed = Queue(self.world)
            self.waiting.append(freed)
            freed.get()
        if self.holder is not process:
            self.holder = process
            process.at_end.append(partial(self.release, process))

    def release(self, process: Process) -> None:
        """Free the lock at the end of its holder, and wake those that wait for it."""
        if self.holder is process:
            self.holder = None
            waiting, self.waiting = self.waiting, []
            for each in waiting:
                each.put(None)

    def commit(self, index: int, made: dict[bytes, int]) -> None:
        """Make a commit, at one instant."""
        self.index = index
        self.made |= made
        if len(self.made) > self.max_keys + self.max_keys // 2:
            for digest, step in list(self.made.items())[: -self.max_keys]:
                self.dropped = max(self.dropped, step)
                del self.made[digest]

    def set_index(self, index: int) -> None:
        """Set the index, as an operator beside no server; drops all keys."""
        if index != self.index:
            self.index = self.dropped = index
            self.made.clear()


class ModelStore:
    """The open file, in a process that holds its lock."""

    exclusive: Final = True
    warnings: tuple[DurabilityWarning, ...] = ()
    doubt: Exception | None = None
    where: Final = WHERE

    def __init__(self, file: ModelFile) -> None:
        self.file = file
        self._index = file.index

    @property
    def kept_keys(self) -> int:
        return len(self.file.made)

    def read(self) -> int:
        return self._index

    def advance(
        self,
        steps: int,
        expected: int | None = None,
        limit: int | None = None,
        keys: Keys = NO_KEYS,
    ) -> int:
        file, process, index = self.file, calling_process(), self._index
        after = index + steps
        if keys and file.refuses_keys:
            raise KeysUnavailableError(WHERE, "no space left")
        check(keys, file.made, index, file.dropped if file.rejects_dropped else 0)
        if expected not in (None, index) or (limit is not None and after > limit):
            raise IndexConflictError(index)
        if not steps:
            return index
        process.sleep(file.commit_seconds * file.world.random.random())
        if file.locks and file.index != index:
            raise AnotherWriterError(WHERE, after, index)
        fails = file.failing_commits > 0
        file.failing_commits -= fails
        if not fails or file.world.random.random() < 0.5:
            file.commit(after, made_by(keys, index))
        process.sleep(file.commit_seconds * file.world.random.random())
        if fails:
            raise CommitFailedError(WHERE, after, "the disk says no")
        self._index = after
        return after

    def close(self) -> None:
        """Nothing: the end of the process frees the lock."""


class ModelOpener:
    """What a server needs of an opener; ``wrap_store`` puts a sabotage in place of the store."""

    where: Final = WHERE
    sequence: Final = None

    def __init__(self, file: ModelFile, wrap_store: Callable[[Store], Store]) -> None:
        self.file = file
        self._wrap_store = wrap_store

    def _raise_if_denied(self) -> None:
        if self.file.is_denied:
            raise StoreUnavailableError(WHERE, "permission denied")

    def stand_by(self, report: Callable[[int | None], None]) -> None:
        self._raise_if_denied()
        self.file.acquire(calling_process(), report)

    def peek(self) -> int | None:
        return self.file.index

    def open(self) -> Store:
        self._raise_if_denied()
        return self._wrap_store(ModelStore(self.file))
