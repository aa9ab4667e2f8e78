"""Where the index lives: the interface of a store, and the conditions that a store names.

``opening`` finds the store that is set; ``sqlite`` is the embedded default. What is raised here has
fields and no advice: ``fibcore.words`` says what each means, and the way out.
"""

import enum
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

__all__ = [
    "AnotherWriterError",
    "BatchInDoubtError",
    "BatchUnknowableError",
    "CatchingUpError",
    "CommitFailedError",
    "DatabaseInvalidError",
    "DatabaseMissingError",
    "EngineTooOldError",
    "EngineUnavailableError",
    "FellBackError",
    "FolderUnusableError",
    "ForeignDatabaseError",
    "IndexPastLimitError",
    "IndexTooLargeError",
    "LinkedDatabaseError",
    "NoRightError",
    "Opener",
    "Risk",
    "SequenceMissingError",
    "StandsElsewhereError",
    "StepsLostError",
    "Store",
    "StoreBusyError",
    "StoreNotThereError",
    "StoreUnavailableError",
    "Weakness",
]


class DatabaseInvalidError(Exception):
    """What the store holds can't be trusted, so it is not served. It has not been changed.

    Trying again doesn't help: a person must look.

    Args:
        where: the database's path, or the store's URL without a password.
        finding: what is wrong with it, as half a sentence: "it is empty".
    """

    known: int = 0
    """The largest index that is known to have been committed there; 0 if none is."""
    known_is_last: bool = False
    """Whether it is also known that nothing was acknowledged after ``known``."""

    def __init__(self, where: Path | str, finding: str) -> None:
        super().__init__(f"{where}: {finding}")
        self.where = str(where)
        self.finding = finding


class ForeignDatabaseError(DatabaseInvalidError):
    """It is whole, and another program's or a later version's: it is never replaced."""


class StoreNotThereError(DatabaseInvalidError):
    """There is nothing at that name, and nothing beside it that says that there was.

    A server makes a database that has never been there; whoever only looks makes nothing.
    """


class SequenceMissingError(StoreNotThereError):
    """A store that is shared holds no such sequence: it is made on purpose, and by nothing else.

    Args:
        where: the store's URL without a password.
        sequence: its name.
    """

    def __init__(self, where: str, sequence: str) -> None:
        super().__init__(where, f"there is no sequence {sequence}")
        self.sequence = sequence


class NoRightError(DatabaseInvalidError):
    """This user may not read it, or not write it."""


class IndexTooLargeError(DatabaseInvalidError):
    """It stands past the largest index that can be counted on from.

    Args:
        where: the database's path, or the store's URL without a password.
        index: where it stands.
        largest: how far the configured kind of integer goes.
    """

    def __init__(self, where: Path | str, index: int, largest: int) -> None:
        super().__init__(where, f"it stands at index {index}, past {largest}")
        self.index = index
        self.largest = largest


class EngineTooOldError(DatabaseInvalidError):
    """The engine of a shared store is of an earlier version than this program can work with.

    Args:
        where: the store's URL without a password.
        version: with the engine's name: "Redis 5.0".
        oldest: the earliest version that will do: "6.2".
    """

    def __init__(self, where: str, version: str, oldest: str) -> None:
        super().__init__(where, f"it is {version}, and must be {oldest} or later")
        self.version = version
        self.oldest = oldest


class LinkedDatabaseError(DatabaseInvalidError):
    """The file has more than one name, so that the files beside it guard it against nobody."""


class FolderUnusableError(DatabaseInvalidError):
    """The folder of the database can't be used, so that there is no knowing what it holds."""


class DatabaseMissingError(DatabaseInvalidError):
    """The database is gone, and what is left beside it shows that there was one.

    Args:
        where: the database's path.
        remains: the names of what is left.
    """

    def __init__(self, where: Path | str, remains: tuple[str, ...]) -> None:
        super().__init__(where, f"it is missing, but {' and '.join(remains)} beside it is there")
        self.remains = remains


class StepsLostError(DatabaseInvalidError):
    """It is whole, and stands lower than an index that was committed.

    Args:
        where: the database's path.
        index: where it stands.
        known: what was committed.
        evidence: the name of the file that shows it.
    """

    def __init__(self, where: Path | str, index: int, known: int, evidence: str) -> None:
        super().__init__(
            where,
            f"it stands at index {index}, and {evidence} shows that index {known} was committed",
        )
        self.known = known
        self.index = index
        self.evidence = evidence


class FellBackError(StepsLostError):
    """A store that is shared stands lower than it did when this process last asked."""

    def __init__(self, where: str, index: int, known: int) -> None:
        super().__init__(where, index, known, "this process")


class StoreUnavailableError(Exception):
    """The store can't be used now (a full disk, a failing device, no connection).

    Nothing has been lost; what was asked for has not been done, and nothing of it will be. Trying
    again later may help.

    Args:
        where: the file, or the store's URL without a password.
        cause: what the system, the library or the engine said.
    """

    def __init__(self, where: Path | str, cause: str) -> None:
        super().__init__(f"{where}: {cause}")
        self.where = str(where)
        self.cause = cause


class StoreBusyError(StoreUnavailableError):
    """Another program has it open, and does not let go of it."""

    def __init__(self, where: Path | str) -> None:
        super().__init__(where, "it is in use by another program")


class IndexPastLimitError(StoreUnavailableError):
    """The index is past the largest that this process may serve, so its number is not computed.

    Args:
        where: the file, or the store's URL without a password.
        index: of the sequence.
        largest: ``FIB_MAX_INDEX``.
    """

    def __init__(self, where: Path | str, index: int, largest: int) -> None:
        super().__init__(where, f"it is at index {index}, past {largest}")
        self.index = index
        self.largest = largest


class CatchingUpError(StoreUnavailableError):
    """The number at an index that others have moved the sequence to is being computed.

    Args:
        where: the store's URL without a password.
        index: to which it has been moved.
    """

    def __init__(self, where: Path | str, index: int) -> None:
        super().__init__(where, f"the number at index {index} is being computed")
        self.index = index


class EngineUnavailableError(StoreUnavailableError):
    """The engine of a store that is shared can't be reached, or can't do it now."""


class BatchInDoubtError(EngineUnavailableError):
    """It is not known yet what has become of the steps that were sent last, and so it is asked.

    Args:
        where: the store's URL without a password.
        steps: how many they are.
        cause: why it is not known.
    """

    def __init__(self, where: str, steps: int, cause: Exception) -> None:
        super().__init__(where, str(cause))
        self.steps = steps
        self.error = cause


class BatchUnknowableError(Exception):
    """Nobody can know what has become of the steps that were sent last: their record is gone.

    The process that got this must end without answering (fail-stop).

    Args:
        where: the store's URL without a password.
        steps: how many they are.
    """

    def __init__(self, where: str, steps: int) -> None:
        super().__init__(f"{where}: the record of {steps} steps is gone")
        self.where = where
        self.steps = steps


class CommitFailedError(Exception):
    """A commit of an exclusive store failed: what the disk holds is unknown until it is read anew.

    The process that got this must end without answering (fail-stop): after a failed sync a
    second one that succeeds proves nothing. See A. Rebello et al., Can Applications Recover
    from fsync Failures?, USENIX ATC 2020.

    Args:
        where: the database's path.
        index: what was to be committed.
        cause: what the library said.
    """

    def __init__(self, where: Path | str, index: int, cause: str) -> None:
        super().__init__(f"{where}: the commit of index {index} failed: {cause}")
        self.where = str(where)
        self.index = index
        self.cause = cause


class AnotherWriterError(CommitFailedError):
    """Another process has written to an exclusive store. Nothing was committed.

    Args:
        where: the database's path.
        index: what was to be committed.
        stood: where this process had left it.
    """

    def __init__(self, where: Path | str, index: int, stood: int) -> None:
        super().__init__(where, index, f"it no longer stands at index {stood}")
        self.stood = stood


class StandsElsewhereError(Exception):
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


class Weakness(NamedTuple):
    """A setting of a store with which it keeps less than was answered."""

    setting: str
    """As it stands in the engine's own configuration: ``fsync=off``."""
    risk: Risk


class Store(Protocol):
    """Keeps one index durably. One thread at a time may use it."""

    @property
    def where(self) -> str:
        """What messages call it: a path, or a URL without a password."""

    @property
    def weaknesses(self) -> tuple[Weakness, ...]:
        """In what a store that is shared, as others have set it up, keeps less than was answered.

        It may change with each reply.
        """

    @property
    def doubt(self) -> Exception | None:
        """Why a shared store does not know yet what has become of the batch under way, or None.

        It may be asked in any thread.
        """

    @property
    def exclusive(self) -> bool:
        """Whether this process is the only writer, so that a read need not ask the store."""

    def read(self) -> int:
        """Return the committed index: no lower than any that was acknowledged before the call.

        Raises:
            StoreUnavailableError: a shared store can't be asked now.
            DatabaseInvalidError: what a shared store says can't be trusted.
        """

    def advance(self, steps: int, expected: int | None = None, limit: int | None = None) -> int:
        """Commit ``steps`` more as one batch; return the index after it, which is durable.

        A call is one batch, which happens once: a store in which a reply can be lost gives it an
        identity, and asks what became of it before it returns or raises anything.

        Args:
            steps: at least 1.
            expected: commit only if the sequence stands there.
            limit: commit only if the sequence then stands no higher.

        Raises:
            StandsElsewhereError: nothing was committed, because of ``expected`` or ``limit``.
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
