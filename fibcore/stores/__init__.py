"""Where the index lives: the interface of a store.

``opening`` finds the store that is set; ``sqlite`` is the embedded default. The problems that a
store raises are in ``fibcore.problems``.
"""

import enum
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fibcore.stores.keys import NO_KEYS, Keys

if TYPE_CHECKING:
    from fibcore.problems import DatabaseInvalidError, StoreUnavailableError
    from fibcore.stores.high_water_mark import Record

__all__ = [
    "Beside",
    "Description",
    "DurabilityWarning",
    "IndexConflictError",
    "Moved",
    "Opener",
    "Risk",
    "Store",
]


class IndexConflictError(Exception):
    """A batch was not committed: the sequence does not stand where that asked it to.

    Args:
        index: where it stands.
    """

    def __init__(self, index: int) -> None:
        super().__init__(f"the sequence stands at index {index}")
        self.index = index


class Risk(enum.Enum):
    """What may happen to steps that were answered, or to all of them."""

    CRASH = "a crash of the store loses the last steps"
    SECONDS = "a crash of the store loses the steps of the last second or two"
    POWER_CUT = "a power cut at the store loses the steps of the last half a minute"
    RUIN = "a power cut at the store may lose or ruin all that it holds"
    RESTART = "a restart of the store loses all steps since its last snapshot, or all"
    FAILOVER = "a failover to a replica loses the last steps"
    EVICTION = "the store may drop the sequence to make room"
    UNKNOWN = "whether the store keeps what it has answered can't be found out"


class DurabilityWarning(NamedTuple):
    """A setting of a store with which it keeps less than was answered."""

    setting: str
    """As it stands in the engine's own configuration: ``fsync=off``."""
    risk: Risk

    def explain(self, where: str) -> str:
        """What it may cost in the store ``where``, in one line."""
        return (
            f"{where} keeps less than this server promises: with {self.setting}, {self.risk.value}."
        )


class Moved(NamedTuple):
    """What ``Opener.set_index`` did."""

    before: int | None
    """Where the sequence stood, or None when that could not be trusted or there was none."""
    kept: Path | None = None
    """Where a file that could not be trusted is kept now."""


class Beside(NamedTuple):
    """What there is beside an embedded store."""

    server: int | None
    """The process that serves it now."""
    high_water_mark: "Record | None"
    """What its high-water mark says."""
    backup_copy: "int | DatabaseInvalidError | StoreUnavailableError | None"
    """The index of its backup copy, what is wrong with that, or None where there is none."""


@dataclass(frozen=True)
class Description:
    """What is known of a sequence, all of it read at one time; servers may be stepping it."""

    index: int
    """Where it stands; 0 where that can't be told."""
    problem: "DatabaseInvalidError | None" = None
    """Why it is not served from, if it is not."""
    warnings: tuple[DurabilityWarning, ...] = ()
    """In what a shared store keeps less than was answered."""
    beside: Beside | None = None
    """None with a shared store."""


class Store(Protocol):
    """Keeps one index durably. One thread at a time may use it."""

    @property
    def where(self) -> str:
        """What messages call it: a path, or a URL without a password."""

    @property
    def warnings(self) -> tuple[DurabilityWarning, ...]:
        """In what a store that is shared, as others have set it up, keeps less than was answered.

        It may change with each reply.
        """

    @property
    def doubt(self) -> Exception | None:
        """Why a shared store does not know yet what has become of the batch under way, or None.

        It may be asked in any thread.
        """

    @property
    def kept_keys(self) -> int | None:
        """How many keys are kept; None while that is not known. It may be asked in any thread."""

    @property
    def exclusive(self) -> bool:
        """Whether this process is the only writer, so that a read need not ask the store."""

    def read(self) -> int:
        """Return the committed index: no lower than any that was acknowledged before the call.

        Raises:
            StoreUnavailableError: a shared store can't be asked now.
            DatabaseInvalidError: what a shared store says can't be trusted.
        """

    def advance(
        self,
        steps: int,
        expected: int | None = None,
        limit: int | None = None,
        keys: Keys = NO_KEYS,
    ) -> int:
        """Commit ``steps`` more as one batch; return the index after it, which is durable.

        A call is one batch, which happens once: a store in which a reply can be lost gives it an
        identity, and asks what became of it before it returns or raises anything.

        Args:
            steps: at least 1, or 0 to find out about ``keys`` alone.
            expected: commit only if the sequence stands there.
            limit: commit only if the sequence then stands no higher.
            keys: commit them with their steps, and only if all of them are new.

        Raises:
            KeyConflictError: nothing was committed, because of ``keys``.
            IndexConflictError: nothing was committed, because of ``expected`` or ``limit``.
            StoreUnavailableError, DatabaseInvalidError: nothing was committed and nothing will
                be. An exclusive store does not raise them.
            BatchUnknowableError: a shared store alone; end the process.
            CommitFailedError: an exclusive store alone; end the process.
        """

    def close(self) -> None:
        """Let go of the store; nothing is lost. Closing twice is allowed."""


class Opener(Protocol):
    """A store that is set and not open yet."""

    @property
    def where(self) -> str:
        """What messages call it: a path, or a URL without a password."""

    def stand_by(self, report: Callable[[int | None], None]) -> None:
        """Return when this process may open the store; with a shared one that is at once.

        Args:
            report: called once if another process is the writer, before this one waits for it to
                end, with the other's process id if that is known.

        Raises:
            DatabaseInvalidError: it will never be so, as things are.
            StoreUnavailableError: not now; call it again later.
        """

    @property
    def sequence(self) -> str | None:
        """The name of the sequence in a store that holds several; None in one that holds one."""

    def peek(self) -> int | None:
        """An index that was committed, perhaps not the last one, for the price of a small read.

        It may be called at any time, in any thread; None when it is not known. What is served
        never rests on it.
        """

    def open(self) -> Store:
        """Open the store, after ``stand_by``.

        Raises:
            DatabaseInvalidError: what it holds can't be trusted. It has not been changed.
            StoreUnavailableError: not now; call it again later.
        """

    def describe(self) -> Description:
        """Return all that is known of the sequence; a problem with it is part of that.

        Raises:
            StoreUnavailableError: it can't be read now.
            StoreNotThereError: a shared store holds no such sequence.
        """

    def create(self, index: int = 0) -> int | None:
        """Make the sequence at ``index``; return None, or where it is if it is there already.

        Raises:
            DatabaseMissingError: a file is not there, and what is left beside it shows that it was.
            StoreUnavailableError, DatabaseInvalidError, OSError: it may have been made; do it
                again.
        """

    def set_index(self, index: int, *, lower: bool = False) -> Moved:
        """Have the sequence be at ``index``, durably, whatever has become of it.

        Args:
            index: from 0 to 2^63 - 1. The sequence is made if there is none.
            lower: whether the index may be one that the sequence has passed.

        Raises:
            InUseError, LowerError: nothing has been changed.
            ForeignDatabaseError: the file is whole, but not ours to replace.
            StoreUnavailableError, CommitFailedError, OSError: it may be done; do it again.
        """

    def backup(self, target: Path) -> int:
        """Write a verified copy to ``target``, a file, durably; return its index.

        Args:
            target: not there, or an older copy, which is replaced in one step or not at all.

        Raises:
            InTheWayError: nothing has been changed.
            DatabaseInvalidError, StoreUnavailableError, CopyFailedError: ``target`` is as it was.
        """

    def alone(self) -> AbstractContextManager[None]:
        """Keep servers of an embedded store from starting meanwhile.

        Raises:
            InUseError: one serves it.
        """
