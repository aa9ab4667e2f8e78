"""What all engine stores share: the identity of a process, and the outcome of a batch.

**The rule: a process has one identity and creates its record once; a batch is applied only if its
record exists; a process answers no step of a batch before it knows the outcome, and that no copy of
the batch can change it.**

A process has one small record in the engine, under a random name, beside the index. A batch has a
number. The transaction that moves the index writes this number and the new index into the record,
only if the record exists and holds a lower number. So a batch that arrives twice, however late, is
applied once, and a batch that arrives after its record was removed does nothing.

A record counts once its creation was acknowledged. If that reply is lost, the name is abandoned and
a new one drawn: otherwise a late copy of the creation, and of a batch after it, could bring back a
record that was removed. No record is ever created a second time. (``Identity``)

Once the reply to a batch is lost, the batch is in doubt: a copy of it may be applied at any time,
even one whose conditions do not hold now. So it is settled first, on a new connection: a
transaction finds its number in the record, or writes it there without moving the index. Either way
no copy is applied from then on. A batch settled as not applied is sent again, as a new one, once.
Any other error leaves it in doubt: another lost reply, a revoked right, a renamed table, a changed
password. The process asks again for as long as it takes. If the record is gone by then the outcome
can never be known: the process exits without an answer, and the next one has a new identity.
(``EngineStore._done``)

An error reply proves that nothing was done only if it answers the single copy that was sent.
Therefore a transaction does everything that can fail before its first write.
"""

import abc
import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, TypeAlias

from fibcore.events import event
from fibcore.problems import (
    BatchUnknowableError,
    CopyFailedError,
    EngineUnavailableError,
    KeysUnavailableError,
    LowerError,
    SequenceMissingError,
    StoreProblem,
)
from fibcore.stores import Description, DurabilityWarning, Moved, sqlite_file
from fibcore.stores.copies import check_target
from fibcore.stores.keys import DEFAULT_MAX_KEYS, MAX_KEYED, NO_KEYS, Keys
from fibcore.stores.link import Batch, Link, RecordGoneError, ReplyLostError, lost_is_unavailable
from fibcore.stores.records import Cleaner
from fibcore.stores.urls import shown, without_secrets

logger = logging.getLogger("fibcore")

PAUSES: Final = (0.0, 0.1, 0.25, 0.5, 1.0)
"""Seconds before each retry of a batch whose outcome is unknown; the last value repeats."""

CHECK_SECONDS: Final = 1.0
"""Interval of polling an engine's settings: nodes are not notified when they change."""

GIVEN_UP: Final = 10
"""How many records whose creation was not acknowledged the next creation removes. More than one:
the last creation may still be waiting in the engine, so its record is not visible yet."""

Unsure: TypeAlias = ReplyLostError | StoreProblem
"""Why the outcome of a batch that was sent is unknown."""


class Identity:
    """The identity of this process in an engine.

    Args:
        draw: makes unique names.
    """

    def __init__(self, draw: Callable[[], uuid.UUID] = uuid.uuid4) -> None:
        self._draw = draw
        self.process = draw()
        """Names the connections, so that a new one can end statements still waiting on an old
        one."""
        self.record: uuid.UUID | None = None
        """The name of its record, once its creation was acknowledged."""
        self._given_up: list[uuid.UUID] = []

    def make_record(self, link: Link) -> None:
        """Create a record. No batch may be in doubt, not even under an earlier name."""
        record, given_up = self._draw(), self._given_up[-GIVEN_UP:]
        self._given_up = [*given_up, record]
        link.make(record, given_up)
        self.record, self._given_up = record, []


class EngineStore:
    """A store that other processes step too. Use it on one thread at a time.

    Args:
        opener: where the sequence is.
        identity: this process's, used by no other store.

    Raises:
        EngineUnavailableError, DatabaseInvalidError: see ``EngineOpener.connect``.
    """

    exclusive: Final = False

    def __init__(self, opener: "EngineOpener", identity: Identity) -> None:
        self.where = opener.where
        self.warnings: tuple[DurabilityWarning, ...] = ()
        self.doubt: Unsure | None = None
        """Why the outcome of the batch under way is unknown so far; None if no batch is in
        doubt."""
        self._opener = opener
        self._identity = identity
        self._clock = opener.clock
        self._cleaner = Cleaner(self._clock)
        self._link: Link | None = None
        self._next_check = 0.0
        self._number = 0
        self._max_keys = max(opener.max_keys, MAX_KEYED)
        self._keyed = 0
        """Steps with keys since keys were last dropped."""
        self._connected()

    def read(self) -> int:
        self._clean()
        try:
            return self._read()
        except (ReplyLostError, RecordGoneError):
            # An idle connection may be long gone, and so may the record.
            with lost_is_unavailable(self.where):
                return self._read()

    def _read(self) -> int:
        link = self._connected()
        with self._dropping_if_it_fails():
            return link.read()

    @property
    def kept_keys(self) -> int | None:
        link = self._link
        return None if link is None else link.kept_keys

    def advance(
        self,
        steps: int,
        expected: int | None = None,
        limit: int | None = None,
        keys: Keys = NO_KEYS,
    ) -> int:
        self._clean()
        self._number += 1
        batch = Batch(self._number, steps, expected, limit, keys, self._max_keys)
        try:
            return self._done(batch)
        finally:
            self.doubt = None
            self._keyed += len(keys)

    def _done(self, batch: Batch) -> int:
        """Apply ``batch`` exactly once, however long it takes to learn the outcome."""
        asked = 0
        has_lost_its_record = is_second = False
        while True:
            is_sent = False
            try:
                link = self._connected()
                with self._dropping_if_it_fails():
                    if self.doubt is not None:
                        if reached := link.settle(batch.number):
                            return reached
                        doubt, self.doubt = self.doubt, None
                        if is_second:
                            raise EngineUnavailableError(self.where, str(doubt)) from doubt
                        is_second = True
                        self._number += 1
                        batch = batch._replace(number=self._number)
                    is_sent = True
                    return link.commit(batch)
            except RecordGoneError as error:
                if self.doubt is not None:
                    raise BatchUnknowableError(self.where, batch.steps) from error
                # The only copy that was sent has had no effect.
                if has_lost_its_record:
                    raise EngineUnavailableError(self.where, str(error)) from error
                has_lost_its_record = True
                continue
            except (ReplyLostError, StoreProblem) as error:
                if self.doubt is None and not (is_sent and isinstance(error, ReplyLostError)):
                    raise
                self.doubt = error
            if asked == 1:
                logger.warning(
                    "%s: it is not known yet whether the last %d steps were made (%s). Their "
                    "requests are answered as soon as it is.",
                    self.where,
                    batch.steps,
                    self.doubt,
                    extra=event("unknown", steps=batch.steps),
                )
            self._opener.sleep(PAUSES[min(asked, len(PAUSES) - 1)])
            asked += 1

    def _connected(self) -> Link:
        """The open connection, or a new one.

        Raises:
            EngineUnavailableError, DatabaseInvalidError: can't connect; nothing was sent.
        """
        if self._link is not None and (self._link.has_ended() or self._has_changed(self._link)):
            # A batch sent there would have an unknown outcome.
            self._drop()
        if self._link is None:
            with lost_is_unavailable(self.where):
                link = self._opener.connect(self._identity.process, self._identity.record)
                try:
                    if self._identity.record is None:
                        self._identity.make_record(link)
                except BaseException:
                    link.close()
                    raise
            self._link = link
            self._next_check = self._clock() + CHECK_SECONDS
            self.warnings = link.warnings
        return self._link

    def _has_changed(self, link: Link) -> bool:
        """Whether the engine's settings have changed since ``link`` was made."""
        if self._clock() < self._next_check:
            return False
        self._next_check = self._clock() + CHECK_SECONDS
        try:
            return not link.is_as_it_was()
        except (ReplyLostError, StoreProblem):
            return True

    @contextlib.contextmanager
    def _dropping_if_it_fails(self) -> Iterator[None]:
        try:
            yield
        except KeysUnavailableError:
            raise
        except RecordGoneError:
            if self.doubt is None:
                self._identity.record = None
            self._drop()
            raise
        except (ReplyLostError, StoreProblem):
            # Another host may have taken over.
            self._drop()
            raise

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _clean(self) -> None:
        """Do a piece of the cleaning if one is due; a failure is only logged."""
        if self._link is None or not (self._keyed > self._max_keys // 8 or self._cleaner.is_due()):
            return
        try:
            with self._dropping_if_it_fails():
                if self._keyed > self._max_keys // 8:
                    self._keyed = 0
                    self._link.drop_keys(self._max_keys)
                else:
                    self._cleaner.do_a_piece(self._link, str(self._identity.record))
        except (ReplyLostError, StoreProblem) as error:
            logger.warning(
                "%s: can't remove old records and keys (%s). They take up space and do no other "
                "harm.",
                self.where,
                error,
                extra=event("records kept"),
            )

    def close(self) -> None:
        """Remove this process's record if possible, and disconnect."""
        link, self._link = self._link, None
        if link is not None:
            with contextlib.suppress(ReplyLostError, StoreProblem):
                link.forget()
            link.close()


class EngineOpener(abc.ABC):
    """A sequence in an engine, which any number of processes may open at once.

    Args:
        url: of the engine.
        sequence: the sequence's name in the engine.
        max_keys: number of latest keyed steps whose keys are kept; see ``keys``.

    Raises:
        ValueError: the URL is invalid; the message contains no password.
    """

    def __init__(self, url: str, sequence: str, max_keys: int = DEFAULT_MAX_KEYS) -> None:
        self.url, self.where = url, shown(url)
        self.sequence, self.max_keys = sequence, max_keys
        self.draw: Callable[[], uuid.UUID] = uuid.uuid4
        self.sleep: Callable[[float], None] = time.sleep
        self.clock: Callable[[], float] = time.monotonic
        self._kept: list[Identity] = []
        """Identities of failed attempts; a list, since several threads may open the sequence."""
        try:
            self._take(url)
        except ValueError as error:
            raise ValueError(without_secrets(str(error), url)) from None

    @abc.abstractmethod
    def _take(self, url: str) -> None:
        """Take from the URL what ``connect`` needs.

        Raises:
            ValueError: the URL is invalid; the message may quote parts of it.
        """

    @abc.abstractmethod
    def connect(self, process: uuid.UUID | None, record: uuid.UUID | None) -> Link:
        """Connect, ending statements of this process that still wait in the engine.

        Args:
            process: names the connections; None for a command, which only creates and sets.
            record: the process's; None if it has not been created.

        Raises:
            EngineUnavailableError: can't connect now.
            DatabaseInvalidError: the data can't be trusted, the sequence does not exist, this
                process has no right to use it, or the engine is too old.
        """

    def stand_by(self, report: Callable[[int | None], None]) -> None:  # noqa: B027
        """Return at once: there is no lock to wait for."""

    def peek(self) -> int | None:
        """None: nobody stands by."""
        return None

    def open(self) -> EngineStore:
        """Connect.

        An attempt reuses the identity of a failed one, if any, and so ends statements that it left
        behind. An open store keeps its identity; another store has another.
        """
        identity = self._kept.pop() if self._kept else Identity(self.draw)
        try:
            return EngineStore(self, identity)
        except BaseException:
            self._kept.append(identity)
            raise

    @contextlib.contextmanager
    def _link(self, process: uuid.UUID | None = None) -> Iterator[Link]:
        """A connection without a record, for what a person does; no batch is in doubt there."""
        with lost_is_unavailable(self.where), contextlib.closing(self.connect(process, None)) as it:
            yield it

    def describe(self) -> Description:
        with self._link(self.draw()) as link:
            return Description(link.read(), warnings=link.warnings)

    def create(self, index: int = 0) -> int | None:
        with self._link() as link:
            return link.create(index)

    def set_index(self, index: int, *, lower: bool = False) -> Moved:
        """Set the index.

        Nodes may serve meanwhile: one that finds it higher continues from there, one that finds it
        lower exits.
        """
        with self._link() as link:
            try:
                before = link.set_index(index, lower=lower)
            except SequenceMissingError:
                if link.create(index) is None:
                    return Moved(None)
                before = link.set_index(index, lower=lower)
        if before > index and not lower:
            raise LowerError(self.where, index, before)
        return Moved(before)

    def backup(self, target: Path) -> int:
        check_target(target)
        index = self.describe().index
        try:
            sqlite_file.write(target, index)
        except StoreProblem as error:
            raise CopyFailedError(target, str(error)) from error
        return index

    def alone(self) -> AbstractContextManager[None]:
        """No exclusion: nodes may step the sequence meanwhile."""
        return contextlib.nullcontext()
