"""What the stores in an engine have in common: who a process is there, and what becomes of a batch.

**The rule: a process has one identity and makes its record once; a batch is done only if its record
is there; whoever has sent a batch says nothing of its steps before it knows.**

A process has one small record in the engine, under a random name, beside the index. A batch has a
number, and the transaction that moves the index writes the number, and where that led, into the
record. It does so only if the record is there and has a lower number. So a batch that arrives
twice, however late, happens once; one that arrives after the record was removed does nothing; and
whoever asks again under the same number is told what came of it.

A record counts once its making was replied to. If that reply is lost, the name is given up and the
next one is drawn: else a late copy of the making, and of a batch after it, could bring a record
back that was removed. Nothing makes a record again that was there before. (``Identity``)

After a batch was sent, every error means "not known yet": a reply that did not come, a right that
was revoked, a table that was renamed, a password that was changed. The batch is asked about again,
on a new connection, for as long as it takes. If the record is gone by then nobody can ever know,
and the process ends without an answer; the next one has a new identity. (``EngineStore.advance``)

What an engine says in an error is known only if the error is a reply to the one copy that was sent.
For this a transaction does all that can fail before its first write.
"""

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
    DatabaseInvalidError,
    EngineUnavailableError,
    KeysUnavailableError,
    LowerError,
    SequenceMissingError,
    StoreUnavailableError,
)
from fibcore.stores import Description, DurabilityWarning, Moved, copies
from fibcore.stores.keys import DEFAULT_MAX_KEYS, MAX_KEYED, NO_KEYS, Keys
from fibcore.stores.link import (
    Batch,
    Engine,
    Link,
    RecordGoneError,
    ReplyLostError,
    lost_is_unavailable,
)
from fibcore.stores.records import Cleaner

logger = logging.getLogger("fibcore")

PAUSES: Final = (0.0, 0.1, 0.25, 0.5, 1.0)
"""Seconds before each time that a batch is asked about again; the last one from then on."""

LOOK_SECONDS: Final = 1.0
"""Between two looks at how an engine is set. Nobody is told when it is changed beside nodes."""

GIVEN_UP: Final = 10
"""Records whose making was not replied to, and which the next making removes. More than one: what
made the last of them may still wait there, so that it is not to be seen yet."""

Unsure: TypeAlias = ReplyLostError | StoreUnavailableError | DatabaseInvalidError
"""Why it is not known what has become of a batch that was sent."""


class Identity:
    """Who this process is in an engine.

    Args:
        draw: makes names that nobody else has.
    """

    def __init__(self, draw: Callable[[], uuid.UUID] = uuid.uuid4) -> None:
        self._draw = draw
        self.process = draw()
        """It names the connections, so that a new one can end what still waits on an old one."""
        self.record: uuid.UUID | None = None
        """The name of its record, once the making was replied to."""
        self._given_up: list[uuid.UUID] = []

    def make_record(self, link: Link) -> None:
        """Make a record. Nothing may be in doubt; a batch under another name is known by now."""
        record, given_up = self._draw(), self._given_up[-GIVEN_UP:]
        self._given_up = [*given_up, record]
        link.make(record, given_up)
        self.record, self._given_up = record, []


class EngineStore:
    """A store that others step, too. One thread at a time may use it.

    Args:
        engine: where the sequence is.
        identity: of this process; no other store has it.
        max_keys: of how many keyed steps the last are kept; see ``keys``.
        sleep: waits for so many seconds.
        clock: tells seconds, and is never put back.

    Raises:
        EngineUnavailableError, DatabaseInvalidError: see ``Engine.connect``.
    """

    def __init__(
        self,
        engine: Engine,
        identity: Identity,
        max_keys: int = DEFAULT_MAX_KEYS,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.where = engine.where
        self.warnings: tuple[DurabilityWarning, ...] = ()
        self.doubt: Unsure | None = None
        """Why it is not known yet what has become of the batch under way; None if nothing is."""
        self._engine = engine
        self._identity = identity
        self._sleep = sleep
        self._clock = clock
        self._cleaner = Cleaner(clock)
        self._link: Link | None = None
        self._next_look = 0.0
        self._number = 0
        self._max_keys = max(max_keys, MAX_KEYED)
        self._keyed = 0
        """Steps with keys since some were dropped last."""
        self._connected()

    @property
    def exclusive(self) -> bool:
        """Others write, too."""
        return False

    def read(self) -> int:
        self._clean()
        try:
            return self._read()
        except (ReplyLostError, RecordGoneError):
            # A connection that has been idle may be long gone, and so may the record.
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
        """Have ``batch`` done, once, however long it takes to know that."""
        asked = 0
        has_lost_its_record = False
        while True:
            is_sent = False
            try:
                link = self._connected()
                with self._dropping_if_it_fails():
                    is_sent = True
                    return link.commit(batch)
            except RecordGoneError as error:
                if self.doubt is not None:
                    raise BatchUnknowableError(self.where, batch.steps) from error
                # The one copy that was sent has done nothing.
                if has_lost_its_record:
                    raise EngineUnavailableError(self.where, str(error)) from error
                has_lost_its_record = True
                continue
            except (ReplyLostError, StoreUnavailableError, DatabaseInvalidError) as error:
                if self.doubt is None and not (is_sent and isinstance(error, ReplyLostError)):
                    raise
                self.doubt = error
            if asked == 1:
                logger.warning(
                    "%s: whether the last %d steps were made is not known yet (%s). Their requests "
                    "are answered once it is.",
                    self.where,
                    batch.steps,
                    self.doubt,
                    extra=event("unknown", steps=batch.steps),
                )
            self._sleep(PAUSES[min(asked, len(PAUSES) - 1)])
            asked += 1

    def _connected(self) -> Link:
        """The connection that there is, or a new one.

        Raises:
            EngineUnavailableError, DatabaseInvalidError: there is none; nothing was sent.
        """
        if self._link is not None and (self._link.has_ended() or self._has_changed(self._link)):
            # To send a batch there would be to leave open what becomes of it.
            self._drop()
        if self._link is None:
            with lost_is_unavailable(self.where):
                link = self._engine.connect(self._identity.process, self._identity.record)
                try:
                    if self._identity.record is None:
                        self._identity.make_record(link)
                except BaseException:
                    link.close()
                    raise
            self._link = link
            self._next_look = self._clock() + LOOK_SECONDS
            self.warnings = link.warnings
        return self._link

    def _has_changed(self, link: Link) -> bool:
        """Whether the engine is set in another way than when ``link`` was made."""
        if self._clock() < self._next_look:
            return False
        self._next_look = self._clock() + LOOK_SECONDS
        try:
            return not link.is_as_it_was()
        except (ReplyLostError, StoreUnavailableError, DatabaseInvalidError):
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
        except (ReplyLostError, StoreUnavailableError, DatabaseInvalidError):
            # Another host may have taken over.
            self._drop()
            raise

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _clean(self) -> None:
        """Do a piece of the cleaning if one is due; that it fails matters to nobody."""
        if self._link is None or not (self._keyed > self._max_keys // 8 or self._cleaner.is_due()):
            return
        try:
            with self._dropping_if_it_fails():
                if self._keyed > self._max_keys // 8:
                    self._keyed = 0
                    self._link.drop_keys(self._max_keys)
                else:
                    self._cleaner.do_a_piece(self._link, str(self._identity.record))
        except (ReplyLostError, StoreUnavailableError, DatabaseInvalidError) as error:
            logger.warning(
                "%s: what is needed no more is not removed (%s): records of processes that have "
                "ended, or keys. It takes space there, and does no other harm.",
                self.where,
                error,
                extra=event("records kept"),
            )

    def close(self) -> None:
        """Let go of the engine; nothing is lost."""
        link, self._link = self._link, None
        if link is not None:
            with contextlib.suppress(ReplyLostError, StoreUnavailableError, DatabaseInvalidError):
                link.forget()
            link.close()


class EngineOpener:
    """A sequence in an engine: any number of processes may open it at once.

    Args:
        engine: where it is.
        max_keys: of how many keyed steps the last are kept; see ``keys``.
        draw: see ``Identity``.
        sleep: see ``EngineStore``.
        clock: see ``EngineStore``.
    """

    def __init__(
        self,
        engine: Engine,
        max_keys: int = DEFAULT_MAX_KEYS,
        *,
        draw: Callable[[], uuid.UUID] = uuid.uuid4,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.engine = engine
        self._max_keys = max_keys
        self.sequence = engine.sequence
        self._draw = draw
        self._sleep = sleep
        self._clock = clock
        self._kept: list[Identity] = []
        """That of a try which failed; a list, as several threads may open the sequence."""

    @property
    def where(self) -> str:
        """The URL without a password."""
        return self.engine.where

    def stand_by(self, report: Callable[[int | None], None]) -> None:
        """Return at once: there is no lock to wait for."""

    def peek(self) -> int | None:
        """None: nobody stands by."""
        return None

    def open(self) -> EngineStore:
        """Connect.

        Each try has the identity of the one before, and so ends what that has left behind. A store
        that is open keeps it, and whoever opens another one is another process.
        """
        identity = self._kept.pop() if self._kept else Identity(self._draw)
        try:
            return EngineStore(
                self.engine, identity, self._max_keys, sleep=self._sleep, clock=self._clock
            )
        except BaseException:
            self._kept.append(identity)
            raise

    def describe(self) -> Description:
        with contextlib.closing(self.open()) as store:
            return Description(store.read(), warnings=store.warnings)

    def create(self, index: int = 0) -> int | None:
        return self.engine.create(index)

    def set_index(self, index: int, *, lower: bool = False) -> Moved:
        """Have it be at ``index``.

        Nodes may serve meanwhile: one that finds it higher goes on from there, and one that finds
        it lower ends.
        """
        try:
            before = self.engine.set_index(index, lower=lower)
        except SequenceMissingError:
            there = self.engine.create(index)
            if there is None:
                return Moved(None)
            before = self.engine.set_index(index, lower=lower)
        if before > index and not lower:
            raise LowerError(self.where, index, before)
        return Moved(before)

    def backup(self, target: Path) -> int:
        copies.check_target(target)
        index = self.describe().index
        copies.write(target, index)
        return index

    def alone(self) -> AbstractContextManager[None]:
        """Nothing keeps nodes from stepping it."""
        return contextlib.nullcontext()
