"""What an engine is to the store in it: a way to one sequence, and a connection for one process.

``postgresql``, ``redis`` and ``etcd`` are such engines. The rule that all of this serves is in
``engine``.
"""

import abc
import contextlib
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from fibcore.problems import EngineUnavailableError
from fibcore.stores import DurabilityWarning
from fibcore.stores.keys import DEFAULT_MAX_KEYS, NO_KEYS, Keys
from fibcore.stores.records import Records


class ReplyLostError(Exception):
    """There was no reply that can be trusted, and the connection is of no use any more.

    What was asked for may have been done, or may yet be.
    """


class RecordGoneError(Exception):
    """The engine has no record of this name any more, so that it did nothing of what was asked."""


class Batch(NamedTuple):
    """What one commit is to do."""

    number: int
    """Higher than that of the batch before it."""
    steps: int
    expected: int | None
    limit: int | None
    keys: Keys = NO_KEYS
    keep: int = DEFAULT_MAX_KEYS
    """Of how many keyed steps the last are to be kept."""


class Connection(Protocol):
    """What the links' connections have in common, whatever driver they rest on."""

    def in_one(self) -> AbstractContextManager[None]:
        """Have all that is asked in it answered in the time of one reply."""

    def has_input(self) -> bool:
        """Whether there is anything to read, such as the end."""

    def close(self) -> None:
        """Let go of it. It raises nothing."""


class Link(abc.ABC):
    """One connection to an engine, for one process or for a command. Each call is bounded in time.

    Each raises, besides what is said there:
        ReplyLostError: see there.
        EngineUnavailableError: the engine has said that it did not do it.
        DatabaseInvalidError: what the engine holds can't be trusted, or this process may not use
            it. The engine did not do it.
    """

    warnings: tuple[DurabilityWarning, ...] = ()
    """In what the engine, as it is set, keeps less than was answered."""

    def __init__(self, engine: "Engine", record: uuid.UUID | None, connection: Connection) -> None:
        self._where = engine.where
        self._sequence = engine.sequence
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
        """Find out whether the engine will do; what this raises is raised by ``connect``."""

    @abc.abstractmethod
    def make(self, record: uuid.UUID, given_up: Sequence[uuid.UUID]) -> None:
        """Make the record, which is that of this connection from now on, and remove others.

        Args:
            record: a name that was never used.
            given_up: names whose making was not replied to.
        """

    def is_as_it_was(self) -> bool:
        """Whether the engine is still set as when the connection was made, in what that rests on.

        Where it is not, the connection is of no use any more.
        """
        return True

    @abc.abstractmethod
    def commit(self, batch: Batch) -> int:
        """Do ``batch``, or find out that it has been done; return the index after it.

        Raises:
            IndexConflictError, KeyConflictError: it has not been done, because of its conditions or
                its keys.
            KeysUnavailableError: it has not been done, as the engine can't keep keys.
            RecordGoneError: this copy of it has not been done; others are not known of.
        """

    def drop_keys(self, keep: int) -> None:  # noqa: B027
        """Drop all keys but the last ``keep``, at least, where ``commit`` does not."""

    @property
    def kept_keys(self) -> int | None:
        """How many keys are kept, where that is known."""
        return None

    @abc.abstractmethod
    def read(self) -> int:
        """Return the index: no lower than any that was committed before the call.

        Raises:
            RecordGoneError: where a read rests on a write, and that on the record.
        """

    @abc.abstractmethod
    def records(self, after: str) -> tuple[Records, str]:
        """Return a bounded piece of the records of all processes, and where the next one begins.

        Args:
            after: "" at first; it is also returned after the last piece.
        """

    @abc.abstractmethod
    def remove(self, records: Records) -> None:
        """Remove those of ``records``, a bounded number, that are still as they were seen."""

    @abc.abstractmethod
    def forget(self) -> None:
        """Remove the process's record: it asks for nothing any more."""

    @abc.abstractmethod
    def create(self, index: int) -> int | None:
        """Make the sequence, at ``index``; return None, or where it is if it is there already."""

    @abc.abstractmethod
    def set_index(self, index: int, *, lower: bool) -> int:
        """Have the sequence be at ``index``, or higher without ``lower``; return where it was.

        It is left where it is if that is higher and ``lower`` is false; else all keys are dropped.
        """

    def has_ended(self) -> bool:
        """Whether the engine has said something unasked, as that it ends: nothing else is known."""
        return self._connection.has_input()

    def close(self) -> None:
        """Let go of the connection, whatever has become of it. It raises nothing."""
        self._connection.close()


class Engine(abc.ABC):
    """A way to one sequence in an engine."""

    sequence: str
    """Its name there."""
    where: str
    """What messages call it: a URL without a password."""

    @abc.abstractmethod
    def connect(self, process: uuid.UUID | None, record: uuid.UUID | None) -> Link:
        """Make a connection. Statements of the process that still wait there are ended.

        Args:
            process: names its connections; None for a command, which creates and sets alone.
            record: of the process; None if it is still to be made.

        Raises:
            EngineUnavailableError: there is none to be had now.
            DatabaseInvalidError: what is there can't be trusted, there is no such sequence, this
                process may not use it, or the engine is too old.
        """

    def create(self, index: int) -> int | None:
        """As ``Link.create``; after an error it may have been made: do it again."""
        with lost_is_unavailable(self.where), contextlib.closing(self.connect(None, None)) as link:
            return link.create(index)

    def set_index(self, index: int, *, lower: bool) -> int:
        """As ``Link.set_index``; after an error it may have been done: do it again."""
        with lost_is_unavailable(self.where), contextlib.closing(self.connect(None, None)) as link:
            return link.set_index(index, lower=lower)


@contextlib.contextmanager
def lost_is_unavailable(where: str) -> Iterator[None]:
    """Take a lost reply for an unavailable engine: where nothing is owed to anybody yet."""
    try:
        yield
    except (ReplyLostError, RecordGoneError) as error:
        raise EngineUnavailableError(where, str(error)) from error
