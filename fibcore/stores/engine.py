"""What the stores in an engine have in common: a batch has an identity, and is asked about by it.

Each process has one small record in the engine, under a random name, beside the index. A batch has
a number, and the transaction that moves the index writes the number, and where that led, into the
record. It does so only if the record has a lower number: so a batch that arrives twice, however
late, happens once, and whoever asks again under the same number is told what came of it.

When there was no reply, that is asked on a new connection, for as long as it takes: the batch has
perhaps been committed, and nothing can be said of it before that is known.
"""

import abc
import contextlib
import logging
import re
import select
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from fibcore.events import event
from fibcore.stores import (
    DatabaseInvalidError,
    EngineUnavailableError,
    StoreUnavailableError,
    Weakness,
)

__all__ = [
    "RECORD_DAYS",
    "Batch",
    "Engine",
    "EngineOpener",
    "EngineStore",
    "Link",
    "LinkedEngine",
    "LostError",
    "has_input",
    "lost_is_unavailable",
    "member_of",
    "split",
    "without_secrets",
]

logger = logging.getLogger("fibcore")

PAUSES: Final = (0.0, 0.1, 0.25, 0.5, 1.0)
"""Seconds before each time that a batch is asked about again; the last one from then on."""

RECORD_DAYS: Final = 30
"""A record that has not been written for so long may be removed: its process ended without a word,
or has had nothing to write. (One that has been asking about a batch for all that time would no
longer be told the truth.)"""


def without_secrets(text: str, url: str | None = None) -> str:
    """``text`` as it may be shown: without what says who may use ``url``, or itself if it is one.

    Of a URL the query is left out, too.
    """
    if url is None:
        before, at, host = text.rpartition("@")
        if not at:
            return text.partition("?")[0]
        return f"{before.partition(':')[0]}://{host.partition('?')[0]}"
    user = url.partition("//")[2].rpartition("@")[0]
    settings = (each.partition("=") for each in url.partition("?")[2].split("&"))
    secrets = [value for name, _, value in settings if name.endswith("password")]
    secrets.append(user.partition(":")[2])
    for secret in sorted({*secrets, *map(unquote, secrets)}, key=len, reverse=True):
        if secret:
            text = text.replace(secret, "***")
    return text


def split(url: str) -> tuple[str, SplitResult]:
    """Who is asked by ``url``, users and hosts, and all else of it.

    ``urlsplit`` alone takes no list of hosts with an IPv6 address in it: not any more, since
    CPython's gh-105704.
    """
    scheme, _, rest = url.partition("://")
    asked = re.split("[/?#]", rest, maxsplit=1)[0]
    return asked, urlsplit(f"{scheme}://{rest[len(asked) :]}")


def member_of(text: str, port: int) -> tuple[str, int]:
    """The host and the port in ``HOST:PORT``, ``[ADDRESS]:PORT``, or without a port.

    Raises:
        ValueError: there is no host in it.
    """
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("it names no host")
    return parts.hostname, parts.port or port


def has_input(descriptor: int, seconds: float = 0.0) -> bool:
    """Whether there is something to read from a socket, or its end, within so many seconds."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, 1000 * seconds)))


class LostError(Exception):
    """There was no reply that can be trusted, and the connection is of no use any more.

    What was asked for may have been done, or may yet be.
    """


class Batch(NamedTuple):
    """What one commit is to do."""

    number: int
    """Higher than that of the batch before it."""
    steps: int
    expected: int | None
    limit: int | None


class Link(Protocol):
    """One connection to an engine, for one process. Every call on it is bounded in time.

    Each raises, besides what is said there:
        LostError: see there.
        EngineUnavailableError: the engine has said that it did not do it.
        DatabaseInvalidError: what the engine holds can't be trusted.
    """

    @property
    def weaknesses(self) -> tuple[Weakness, ...]:
        """In what the engine, as it is set, keeps less than was answered."""

    def commit(self, batch: Batch) -> int:
        """Do ``batch``, or find out that it has been done; return the index after it.

        Raises:
            StandsElsewhereError: it has not been done, because of its conditions.
        """

    def read(self) -> int:
        """Return the index: no lower than any that was committed before the call."""

    def has_ended(self) -> bool:
        """Whether the engine has said something unasked, as that it ends: nothing else is known."""

    def forget(self) -> None:
        """Remove the process's record: it asks for nothing any more."""

    def close(self) -> None:
        """Let go of the connection, whatever has become of it. It raises nothing."""


class Engine(Protocol):
    """A way to one sequence in an engine."""

    @property
    def where(self) -> str:
        """What messages call it: a URL without a password."""

    def connect(self, node: uuid.UUID) -> Link:
        """Make a connection for the process whose record is ``node``, which is made if need be.

        Raises:
            EngineUnavailableError: there is none to be had now.
            DatabaseInvalidError: what is there can't be trusted, or there is no such sequence.
        """

    def create(self, index: int) -> int | None:
        """Make the sequence, at ``index``; return None, or where it stands if it is there already.

        Raises:
            EngineUnavailableError, DatabaseInvalidError: it may have been made; do it again.
        """

    def place(self, index: int, *, lower: bool) -> int:
        """Have the sequence stand at ``index``, or higher without ``lower``; return where it stood.

        It is left where it is if that is higher and ``lower`` is false.

        Raises:
            EngineUnavailableError, DatabaseInvalidError: it may have been done; do it again.
        """


@contextlib.contextmanager
def lost_is_unavailable(where: str) -> Iterator[None]:
    """Take a lost reply for an engine that can't be used: where nothing is owed to anybody yet."""
    try:
        yield
    except LostError as error:
        raise EngineUnavailableError(where, str(error)) from error


class CommandLink(Link, Protocol):
    """A connection that can also do what a person asks for."""

    def create(self, index: int) -> int | None:
        """See ``Engine``."""

    def place(self, index: int, *, lower: bool) -> int:
        """See ``Engine``."""


class LinkedEngine(abc.ABC):
    """An engine that does everything on one kind of connection; see ``Engine``."""

    where: str

    @abc.abstractmethod
    def _link(self, node: uuid.UUID | None) -> CommandLink:
        """Make a connection, for the process whose record is ``node``, or for a command."""

    def connect(self, node: uuid.UUID) -> Link:
        """Make a connection; see ``Engine``."""
        return self._link(node)

    def create(self, index: int) -> int | None:
        """Make the sequence; see ``Engine``."""
        with lost_is_unavailable(self.where), contextlib.closing(self._link(None)) as link:
            return link.create(index)

    def place(self, index: int, *, lower: bool) -> int:
        """Have the sequence stand at ``index``; see ``Engine``."""
        with lost_is_unavailable(self.where), contextlib.closing(self._link(None)) as link:
            return link.place(index, lower=lower)


class EngineStore:
    """A store that others step, too. One thread at a time may use it.

    Args:
        engine: where the sequence is.
        link: a connection for ``node``, made already.
        node: the name of this process's record.
    """

    def __init__(self, engine: Engine, link: Link, node: uuid.UUID) -> None:
        self.where = engine.where
        self.weaknesses = link.weaknesses
        self._engine = engine
        self._link: Link | None = link
        self._node = node
        self._number = 0

    @property
    def exclusive(self) -> bool:
        """Others write, too."""
        return False

    def read(self) -> int:
        """Return the committed index; see ``Store``."""
        try:
            return self._asked(lambda link: link.read())
        except LostError:
            # A connection that has been idle may be long gone.
            with lost_is_unavailable(self.where):
                return self._asked(lambda link: link.read())

    def advance(self, steps: int, expected: int | None = None, limit: int | None = None) -> int:
        """Commit ``steps`` more; see ``Store``.

        Raises:
            StandsElsewhereError, StoreUnavailableError: nothing was committed.
        """
        self._number += 1
        batch = Batch(self._number, steps, expected, limit)
        asked = 0
        while True:
            try:
                return self._asked(lambda link: link.commit(batch))
            except (LostError, StoreUnavailableError) as error:
                if isinstance(error, StoreUnavailableError) and not asked:
                    raise
                if asked == 1:
                    logger.warning(
                        "%s: what has become of %d steps is not known (%s) and is asked until it "
                        "is. They are answered then.",
                        self.where,
                        steps,
                        error,
                        extra=event("unknown", steps=steps),
                    )
                time.sleep(PAUSES[min(asked, len(PAUSES) - 1)])
                asked += 1

    def _asked(self, question: Callable[[Link], int]) -> int:
        """Ask on the connection that there is, or on a new one."""
        if self._link is not None and self._link.has_ended():
            # To send a batch there would be to leave open what becomes of it.
            self._link.close()
            self._link = None
        if self._link is None:
            # Of what is to be asked now nothing has been sent.
            with lost_is_unavailable(self.where):
                self._link = self._engine.connect(self._node)
            self.weaknesses = self._link.weaknesses
        try:
            return question(self._link)
        except (LostError, EngineUnavailableError):
            # Another host may have taken over.
            self._link.close()
            self._link = None
            raise

    def close(self) -> None:
        """Let go of the engine; nothing is lost."""
        link, self._link = self._link, None
        if link is not None:
            with contextlib.suppress(LostError, StoreUnavailableError, DatabaseInvalidError):
                link.forget()
            link.close()


class EngineOpener:
    """A sequence in an engine: any number of processes may open it at once."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

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
        """Connect; see ``Opener``."""
        node = uuid.uuid4()
        with lost_is_unavailable(self.where):
            return EngineStore(self.engine, self.engine.connect(node), node)
