"""The model of a client of a service that steps: what it may be answered. See state_machine."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.support.connections import Connection
from tests.support.corpus import CHUNKED, UPGRADE, length, request
from tests.support.parsing import Answer, answer_at
from tests.support.reference import digits_of

N: Final = "{N}"
"""Stands in a request for an index that it names."""


@dataclass(frozen=True)
class Kind:
    """A kind of request, and the statuses that it may be answered with."""

    data: bytes
    statuses: frozenset[int]
    steps: bool = False
    """Whether it asks for a step, so that 200 is one."""
    reads: int | None = None
    """Where the number stands that it reads: 0 is the index, -1 the one before."""
    always: int | None = None
    """The index whose number it is answered, wherever the sequence stands."""
    closes: bool = False
    """Whether nothing is answered behind it."""

    @property
    def is_head(self) -> bool:
        return self.data.startswith(b"HEAD ")

    @property
    def is_text(self) -> bool:
        return b"text/plain" in self.data

    def naming(self, index: int) -> bytes:
        return self.data.replace(N.encode(), b"%d" % index)


def _step(data: bytes, *more: int, closes: bool = False) -> Kind:
    return Kind(data, frozenset((200, 409, 503, *more)), steps=True, closes=closes)


def _read(data: bytes, place: int, *more: int, closes: bool = False) -> Kind:
    return Kind(data, frozenset((200, 503, *more)), reads=place, closes=closes)


KINDS: Final = {
    "a step": _step(request("GET /next")),
    "a step as text": _step(request("GET /next", "Accept: text/plain")),
    "a step with a body": _step(request("POST /next", length(b"abc"), body=b"abc")),
    "a step in chunks": _step(
        request("POST /next", CHUNKED, body=b"3\r\nabc\r\n0\r\nX: y\r\n\r\n")
    ),
    "a step if": _step(request("GET /next", f'If-Match: "{N}"'), 412),
    "a step if not": _step(request("POST /next", f'If-None-Match: "{N}"'), 412),
    "a last step": _step(request("GET /next", "Connection: close"), closes=True),
    "a step of 1.0": _step(request("GET /next HTTP/1.0"), closes=True),
    "a step beside an upgrade": _step(request("POST /next", *UPGRADE, length(b"ab"), body=b"ab")),
    "a prefetch": Kind(request("GET /next", "Purpose: prefetch"), frozenset((503,))),
    "a HEAD of a step": Kind(request("HEAD /next"), frozenset((405,))),
    "a read": _read(request("GET /current"), 0),
    "a HEAD": _read(request("HEAD /current"), 0),
    "a read as text": _read(request("GET /previous", "Accept: text/plain"), -1),
    "a read if": _read(request("GET /current", f'If-Match: "{N}"'), 0, 412),
    "a read if not": _read(request("GET /previous", f'If-None-Match: "{N}"'), -1, 304),
    "a number": Kind(request("GET /numbers/19900"), frozenset((200, 503)), always=19_900),
    "health": Kind(request("GET /health"), frozenset((200, 503))),
    "a page": Kind(request("PUT /"), frozenset((405, 503))),
    "a page with a body": Kind(request("POST /", length(b"a"), body=b"a"), frozenset((405, 503))),
    "rubbish": Kind(b"rubbish\r\n\r\n", frozenset((400,)), closes=True),
    "no host": Kind(request("GET /next", host=None), frozenset((400,)), closes=True),
    "a chunk of no size": Kind(
        request("POST /next", CHUNKED, body=b"z\r\n"), frozenset((400,)), closes=True
    ),
    "nothing there": Kind(request("GET /nowhere"), frozenset((404,))),
}


@dataclass
class SentRequest:
    """A request of a client."""

    kind: Kind
    named: int
    """The index that it names, if it does."""
    floor: int = 0
    """What had been acknowledged to anybody when the last of it was sent."""
    is_whole: bool = False


@dataclass
class Ledger:
    """What has been answered to anybody.

    Args:
        start: where the sequence stood.
    """

    start: int
    steps: set[int] = field(default_factory=set)
    """The indexes that steps were answered with."""
    acknowledged: int = 0
    """The highest index that a client has read."""


class ClientModel:
    """A client, which remembers what it has asked and been answered."""

    def __init__(self, connection: Connection, ledger: Ledger) -> None:
        self.connection = connection
        self.asked: list[SentRequest] = []
        self.answers: list[Answer] = []
        self.has_ended = False
        self.was_turned_away = False
        """Whether it was told that there was no place for it."""
        self.may_be_dropped = False
        """Whether the server has been told to stop, and need not answer what is piped."""
        self._ledger = ledger
        self._rest = b""
        """Of the request that it is sending, what it has not sent."""
        self._at = 0
        """How far the answers go, in all that it was sent."""
        self._ends: list[int] = []
        """Where each answer ends."""
        self._acknowledged = 0

    # What it does.

    @property
    def can_send(self) -> bool:
        return not (self.has_ended or self.connection.is_gone or self.connection.lost)

    @property
    def can_ask(self) -> bool:
        return self.can_send and not self._rest and not (self.asked and self.asked[-1].kind.closes)

    @property
    def is_sending(self) -> bool:
        return self.can_send and bool(self._rest)

    @property
    def is_behind(self) -> bool:
        """Whether it could take more of what it is sent."""
        return self.connection.unsent > 0 and not (self.connection.is_gone or self.connection.lost)

    def ask(self, kinds: Sequence[Kind], named: int, half: int | None) -> None:
        """Send requests in one piece, and of the last so many bytes at the most; None for all."""
        piece = b""
        for number, kind in enumerate(kinds, 1):
            if self.can_ask:
                self.asked.append(SentRequest(kind, named))
                self._rest = kind.naming(named)
                piece += self._next(half if number == len(kinds) else None)
        self.connection.send(piece)

    def go_on(self, size: int | None) -> None:
        """Send so many bytes more at the most of the last request; None for all."""
        self.connection.send(self._next(size))

    def _next(self, size: int | None) -> bytes:
        piece, self._rest = (
            (self._rest, b"") if size is None else (self._rest[:size], self._rest[size:])
        )
        if not self._rest:
            self.asked[-1].is_whole = True
            self.asked[-1].floor = self._ledger.acknowledged
        return piece

    def end(self) -> None:
        self.has_ended = True
        self.connection.end()

    # What comes of it.

    @property
    def is_excused(self) -> bool:
        """Whether it need not be answered, since it is gone, or the server goes."""
        return self.connection.is_gone or self.was_turned_away or self.may_be_dropped

    @property
    def unanswered(self) -> list[SentRequest]:
        """What it has asked as a whole, and is to be answered."""
        closing = [number for number, each in enumerate(self.asked) if each.kind.closes]
        end = closing[0] + 1 if closing else len(self.asked)
        return [each for each in self.asked[len(self.answers) : end] if each.is_whole]

    def collect(self, committed: int) -> None:
        """Take in what the server has sent, and check it.

        Args:
            committed: where the store stands.
        """
        while self._at < len(self.connection.sent):
            number = len(self.answers)
            asked = self.asked[number] if number < len(self.asked) else None
            has_body = asked is None or not asked.kind.is_head
            found = answer_at(self.connection.sent, self._at, has_body=has_body)
            if found is None:
                break
            answer, self._at = found
            self._ends.append(self._at)
            self.answers.append(answer)
            if not self.asked and answer.status == 503:
                self.was_turned_away = True
            else:
                self._judge(answer, asked, committed)
        self._acknowledge()

    def _judge(self, answer: Answer, asked: SentRequest | None, committed: int) -> None:
        assert asked is not None, f"nothing was asked, and this answered: {answer}"
        kind = asked.kind
        assert asked.is_whole or answer.status == 400, f"this answers half of {asked}: {answer}"
        assert answer.status in kind.statuses or answer.status == 304, (kind, answer)
        closes = answer.field(b"connection") == b"close"
        assert closes or not kind.closes
        if kind.always is not None and answer.status == 200:
            assert answer.body.endswith(b": %b}" % digits_of(kind.always))
            return
        index = answer.index
        if answer.status == 304:
            assert b"If-None-Match" in kind.data
            assert index == asked.named
        if answer.status == 412:
            assert (index == asked.named) == (b"If-None-Match" in kind.data)
        if index is not None:
            assert index <= committed, f"{index} is answered, and {committed} committed"
            assert index >= asked.floor, f"{asked.floor} was known, and {index} is answered"
        if answer.status != 200 or not (kind.steps or kind.reads is not None):
            return
        assert index is not None
        if kind.steps:
            assert index > max(asked.floor, self._ledger.start)
            assert index not in self._ledger.steps, f"{index} is answered twice"
            self._ledger.steps.add(index)
            if b"If-Match" in kind.data:
                assert index == asked.named + 1
        digits = digits_of(index + (kind.reads or 0))
        if kind.is_text:
            assert answer.body == digits
        elif not kind.is_head:
            assert answer.body.endswith(b": %b}" % digits)

    def _acknowledge(self) -> None:
        """What the client has read of its answers, everybody may know."""
        taken = len(self.connection.taken)
        while self._acknowledged < len(self._ends) and self._ends[self._acknowledged] <= taken:
            index = self.answers[self._acknowledged].index or 0
            self._ledger.acknowledged = max(self._ledger.acknowledged, index)
            self._acknowledged += 1
