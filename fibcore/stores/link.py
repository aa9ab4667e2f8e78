"""The interface of a connection to an engine.

``postgresql``, ``redis`` and ``etcd`` implement it. The rule behind it is in ``engine``.
"""

import abc
import contextlib
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fibcore.problems import EngineUnavailableError
from fibcore.stores import DurabilityWarning
from fibcore.stores.keys import DEFAULT_MAX_KEYS, NO_KEYS, Keys
from fibcore.stores.records import Records

if TYPE_CHECKING:
    from fibcore.stores.engine import EngineOpener


class ReplyLostError(Exception):
    """There is no reply that can be trusted, and the connection is unusable.

    The request may have been executed, or may still be.
    """


class RecordGoneError(Exception):
    """The engine has no record of this name any more, so it did nothing."""


class Batch(NamedTuple):
    """The content of one commit."""

    number: int
    """Higher than the number of the batch before."""
    steps: int
    expected: int | None
    limit: int | None
    keys: Keys = NO_KEYS
    keep: int = DEFAULT_MAX_KEYS
    """Number of latest keyed steps whose keys are kept."""


class Connection(Protocol):
    """What a link needs of its connection, whatever the driver."""

    def in_one(self) -> AbstractContextManager[None]:
        """A context in which all replies together must arrive within the time of one."""

    def has_input(self) -> bool:
        """Whether there is input, such as the end of the connection."""

    def close(self) -> None:
        """Close the connection; raises nothing."""


class Link(abc.ABC):
    """One connection to an engine, for one process or a command. Each call is bounded in time.

    Every call may raise, besides its own errors:
        ReplyLostError: see there.
        EngineUnavailableError: the engine has replied that it did nothing.
        DatabaseInvalidError: the engine's data can't be trusted, or this process has no right to
            use it. The engine did nothing.
    """

    warnings: tuple[DurabilityWarning, ...] = ()
    """Server settings under which acknowledged steps may be lost."""

    def __init__(
        self, opener: "EngineOpener", record: uuid.UUID | None, connection: Connection
    ) -> None:
        self._where, self._sequence = opener.where, opener.sequence
        self._record = record
        self._connection = connection
        try:
            with connection.in_one():
                self._begin()
        except BaseException:
            self.close()
            raise

    @abc.abstractmethod
    def _begin(self) -> None:
        """Check that the engine is suitable; ``connect`` raises what this raises."""

    @abc.abstractmethod
    def make(self, record: uuid.UUID, given_up: Sequence[uuid.UUID]) -> None:
        """Create the record, this connection's from now on, and remove abandoned ones.

        Args:
            record: a name that was never used.
            given_up: names whose creation was not acknowledged.
        """

    def is_as_it_was(self) -> bool:
        """Whether the engine's settings that matter are unchanged since the connection was made.

        If not, the connection is unusable.
        """
        return True

    @abc.abstractmethod
    def commit(self, batch: Batch) -> int:
        """Apply ``batch``; return the index after it.

        Raises:
            IndexConflictError, KeyConflictError: it was not applied, because of its conditions or
                keys.
            KeysUnavailableError: it was not applied, since the engine can't keep keys.
            RecordGoneError: it was not applied.
        """

    @abc.abstractmethod
    def settle(self, number: int) -> int:
        """See to it that no copy of the last batch, which has this number, is applied from now on.

        Returns:
            The index after the batch; 0 if it was not applied, or had neither steps nor effect.

        Raises:
            RecordGoneError: whether it was applied can't be known.
        """

    def drop_keys(self, keep: int) -> None:  # noqa: B027
        """Drop old keys but keep at least the last ``keep``, if ``commit`` does not do so."""

    @property
    def kept_keys(self) -> int | None:
        """Number of keys kept, if known."""
        return None

    @abc.abstractmethod
    def read(self) -> int:
        """Return the index, no lower than any committed before the call.

        Without a record nothing is written, and the index may be one that no standby has yet.

        Raises:
            RecordGoneError: only where a read includes a write to the record.
        """

    @abc.abstractmethod
    def records(self, after: str) -> tuple[Records, str]:
        """Return a bounded piece of all processes' records, and where the next piece begins.

        Args:
            after: where to begin; "" at first. "" is also returned after the last piece.
        """

    @abc.abstractmethod
    def remove(self, records: Records) -> None:
        """Remove those of ``records``, a bounded number, that have not changed since."""

    @abc.abstractmethod
    def forget(self) -> None:
        """Remove the process's record, which it no longer needs."""

    @abc.abstractmethod
    def create(self, index: int) -> int | None:
        """Create the sequence at ``index``; return None, or its index if it exists already."""

    @abc.abstractmethod
    def set_index(self, index: int, *, lower: bool) -> int:
        """Set the index, and drop all keys; return the previous index.

        Nothing is changed if the sequence is higher and ``lower`` is false.
        """

    def has_ended(self) -> bool:
        """Whether there is unsolicited input, such as the end of the connection."""
        return self._connection.has_input()

    def close(self) -> None:
        """Close the connection, whatever its state; raises nothing."""
        self._connection.close()


@contextlib.contextmanager
def lost_is_unavailable(where: str) -> Iterator[None]:
    """Turn a lost reply into ``EngineUnavailableError``, where no batch is in doubt."""
    try:
        yield
    except (ReplyLostError, RecordGoneError) as error:
        raise EngineUnavailableError(where, str(error)) from error
