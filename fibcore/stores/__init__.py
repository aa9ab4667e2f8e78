"""Where the index lives: the interface of a store.

``opening`` finds the store that is set; ``sqlite`` is the embedded default. The problems that a
store raises are in ``fibcore.problems``.
"""

import enum
from collections.abc import Callable
from typing import NamedTuple, Protocol

__all__ = [
    "Opener",
    "Risk",
    "StandsElsewhereError",
    "Store",
    "Weakness",
]


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

    def explain(self, where: str) -> str:
        """What it may cost in the store ``where``, in one line."""
        return (
            f"{where} keeps less than this server promises: with {self.setting}, {self.risk.value}."
        )


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
