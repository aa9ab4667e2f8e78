"""Where the index lives: the interfaces ``Store`` and ``Opener``.

``opener_of`` finds the configured store; ``sqlite`` is the embedded default. The problems that
stores raise are in ``fibcore.problems``.
"""

import enum
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from fibcore.idempotency_key import Key, key_of
from fibcore.stores.keys import NO_KEYS, KeyConflictError, Keys

if TYPE_CHECKING:
    from fibcore.problems import DatabaseInvalidError, StoreProblem
    from fibcore.stores.high_water_mark import Record
    from fibcore.stores.opening import opener_of

__all__ = [
    "Beside",
    "Description",
    "DurabilityWarning",
    "IndexConflictError",
    "Key",
    "KeyConflictError",
    "Keys",
    "Moved",
    "Opener",
    "Risk",
    "Store",
    "key_of",
    "opener_of",
]


def __getattr__(name: str) -> Any:
    """Import ``opener_of`` at its first use: its module stands on this one."""
    if name != "opener_of":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fibcore.stores.opening import opener_of

    return opener_of


class IndexConflictError(Exception):
    """A batch was not committed: the sequence is not at the index that the batch required.

    Args:
        index: where it is.
    """

    def __init__(self, index: int) -> None:
        super().__init__(f"the sequence is at index {index}")
        self.index = index


class Risk(enum.Enum):
    """What may be lost under a setting of the store."""

    CRASH = "a crash of the store loses the last steps"
    SECONDS = "a crash of the store loses the steps of the last second or two"
    POWER_CUT = "a power cut at the store loses the steps of the last half minute"
    RUIN = "a power cut at the store may lose or ruin all that it holds"
    RESTART = "a restart of the store loses all steps since its last snapshot, or all steps"
    REBOOT = "a restart of the machine loses all of it"
    SHARED = "locks and syncs may not hold: steps may be lost, or made twice"
    FAILOVER = "a failover to a replica loses the last steps"
    DIVERGENCE = (
        "a crash of the store may lose the last steps, or leave its members with different ones"
    )
    EVICTION = "the store may drop the sequence to make room"
    UNKNOWN = "it is unknown whether the store keeps acknowledged steps"


class DurabilityWarning(NamedTuple):
    """A setting of a store under which acknowledged steps may be lost."""

    setting: str
    """As in the configuration of the engine: ``fsync=off``."""
    risk: Risk

    def explain(self, where: str) -> str:
        """The risk for the store ``where``, in one line."""
        risk = f"with {self.setting}, {self.risk.value}"
        return f"{where} is less durable than this server promises: {risk}."


class Moved(NamedTuple):
    """What ``Opener.set_index`` did."""

    before: int | None
    """The index before; None if there was no sequence, or none that could be trusted."""
    kept: Path | None = None
    """Where an untrusted file is kept now."""


class Beside(NamedTuple):
    """What was found beside an embedded store."""

    server: int | None
    """The process id of its server, if one runs."""
    high_water_mark: "Record | None"
    """Its high-water mark."""
    backup_copy: "int | StoreProblem | None"
    """The index of its backup copy, the problem with that copy, or None if there is none."""


@dataclass(frozen=True)
class Description:
    """What is known of a sequence, read at one moment; servers may be stepping it."""

    index: int
    """Its index; 0 if unknown."""
    problem: "DatabaseInvalidError | None" = None
    """Why it is not served from, if it is not."""
    warnings: tuple[DurabilityWarning, ...] = ()
    """Settings of a shared store under which acknowledged steps may be lost."""
    beside: Beside | None = None
    """None for a shared store."""


class Store(Protocol):
    """Keeps one index durably. One thread at a time may use it."""

    @property
    def where(self) -> str:
        """Its name in messages: a path, or a URL without a password."""

    @property
    def warnings(self) -> tuple[DurabilityWarning, ...]:
        """Settings of a shared store under which acknowledged steps may be lost.

        They may change with each reply.
        """

    @property
    def doubt(self) -> Exception | None:
        """Why the fate of the batch under way is not known yet; None if it is. For any thread."""

    @property
    def kept_keys(self) -> int | None:
        """Keys kept; None while that is not known. For any thread."""

    @property
    def exclusive(self) -> bool:
        """Whether this process is the only writer, so that reads need not ask the store."""

    def read(self) -> int:
        """Return the committed index: at least that of every step acknowledged before the call.

        Raises:
            StoreUnavailableError: a shared store did not reply.
            DatabaseInvalidError: the reply of a shared store can't be trusted.
        """

    def advance(
        self,
        steps: int,
        expected: int | None = None,
        limit: int | None = None,
        keys: Keys = NO_KEYS,
    ) -> int:
        """Commit ``steps`` more as one batch; return the index after it, which is durable.

        A batch happens once. A store in which a reply can be lost gives the batch an identity, and
        finds out what became of it before it returns or raises anything.

        Args:
            steps: at least 1, or 0 to find out about ``keys`` alone.
            expected: commit only if the sequence is at this index.
            limit: commit only if the index after the batch is at most this.
            keys: commit them with their steps, and only if all of them are new.

        Raises:
            KeyConflictError: nothing was committed, because of ``keys``.
            IndexConflictError: nothing was committed, because of ``expected`` or ``limit``.
            StoreUnavailableError, DatabaseInvalidError: nothing was committed and nothing will
                be. An exclusive store does not raise them.
            BatchUnknowableError: only a shared store raises it; end the process.
            CommitFailedError: only an exclusive store raises it; end the process.
        """

    def close(self) -> None:
        """Close the store; a second call does nothing."""


class Opener(Protocol):
    """A configured store that is not open yet."""

    @property
    def where(self) -> str:
        """What messages call it: a path, or a URL without a password."""

    def stand_by(self, report: Callable[[int | None], None]) -> None:
        """Wait until this process may open the store: for a file, until it holds the writer's lock.

        Args:
            report: called once, before waiting, if another process is the writer; with its process
                id if known.

        Raises:
            DatabaseInvalidError: waiting would never end.
            StoreUnavailableError: try again later.
        """

    @property
    def sequence(self) -> str | None:
        """The name of the sequence in a store that holds several; None in one that holds one."""

    def peek(self) -> int | None:
        """Return an index that was committed, perhaps not the last one; None if unknown.

        It costs a small read, and may be called at any time in any thread. No answer depends on it.
        """

    def open(self) -> Store:
        """Open the store, after ``stand_by``.

        Raises:
            DatabaseInvalidError: its content can't be trusted. It has not been changed.
            StoreUnavailableError: try again later.
        """

    def describe(self) -> Description:
        """Return everything known about the sequence, including a problem with it.

        Raises:
            StoreUnavailableError: the store can't be read now.
            StoreNotThereError: a shared store holds no such sequence.
        """

    def create(self, index: int = 0) -> int | None:
        """Create the sequence at ``index``; return None, or the index of one that exists already.

        Raises:
            DatabaseMissingError: the file is missing, but files beside it show that it existed.
            StoreUnavailableError, DatabaseInvalidError, OSError: it may have been created; try
                again.
        """

    def set_index(self, index: int, *, lower: bool = False) -> Moved:
        """Set the sequence to ``index``, durably, whatever its condition.

        Args:
            index: from 0 to 2^63 - 1. The sequence is created if there is none.
            lower: whether the index may be one that the sequence has passed.

        Raises:
            InUseError, LowerError: nothing has been changed.
            ForeignDatabaseError: another program made the file; nothing has been changed.
            StoreUnavailableError, CommitFailedError, OSError: it may have been set; try again.
        """

    def backup(self, target: Path) -> int:
        """Write a verified copy to ``target``, a file, durably; return its index.

        Args:
            target: does not exist, or is an older copy, which is replaced atomically.

        Raises:
            InTheWayError: nothing has been changed.
            DatabaseInvalidError, StoreUnavailableError, CopyFailedError: ``target`` is as it was.
        """

    def alone(self) -> AbstractContextManager[None]:
        """Prevent servers of an embedded store from starting meanwhile.

        Raises:
            InUseError: a server is running.
        """
