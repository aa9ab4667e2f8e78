"""The logic of a call, without I/O: which server to ask, when to retry, how to read the answer.

A call is a generator. It yields an ``Ask``, and is sent the ``Reply`` or ``Lost`` that results, or
it yields a ``Wait``. It returns a ``Number`` or a key, or raises.
"""

import itertools
import random
import re
import secrets
from base64 import b64encode
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from time import monotonic
from typing import Final, TypeAlias, TypeVar
from urllib.parse import unquote

from fibcore.client.errors import (
    ClientError,
    KeyAheadError,
    KeyForgottenError,
    LargestIndexError,
    NoAnswerError,
    RejectedError,
    StepInDoubtError,
    UnavailableError,
    UnexpectedReplyError,
)
from fibcore.client.number import Number
from fibcore.client.replies import Lost, Reply

FIRST_WAIT_SECONDS: Final = 0.05
"""A server that was killed is replaced within milliseconds."""
LONGEST_WAIT_SECONDS: Final = 2.0
LONGEST_SECONDS: Final = 86_400.0
"""For an attempt, and for a wait: the system takes no timeout of any length."""
RANDOM_BYTES: Final = 16
"""Random bytes of a key: enough to be unique."""
DIGITS_OF_64_BITS: Final = 20
LARGEST_IN_64_BITS: Final = 93
"""The last index whose number is the same modulo 2^64."""

LABEL: Final = r"[\w-]{1,63}"
URL: Final = re.compile(
    r"(?P<scheme>https?)://(?:(?P<user>[^/?#]*)@)?"
    rf"(?P<authority>(?P<host>{LABEL}(?:\.{LABEL})*\.?|\[[\da-f:.]+(?:%[\w.-]+)?\])"
    r"(?::(?P<port>\d{1,5})?)?)(?P<prefix>(?:/[^?#@]*)?)",
    re.ASCII | re.IGNORECASE,
)
"""Where parsers may disagree on where a password ends, it does not match."""
KEY: Final = re.compile(r"(0|[1-9]\d{0,18}):[\w-]{16,64}", re.ASCII)
TAG: Final = re.compile(r'(?:W/)?"(\d{1,19})(-uint64)?(-text)?"', re.ASCII)
DIGITS: Final = re.compile(rb"0|[1-9][0-9]*")

AGAIN: Final = frozenset({408, 425, 429, 503})
"""No step was made; retrying may work."""
SETTLING: Final = KeyAheadError | KeyForgottenError | LargestIndexError
"""Errors that settle what is known of a step, even if earlier answers were lost."""
UNKNOWN: Final = frozenset({500, 502, 504})
"""Equivalent to no answer: from a proxy, or from a server that does not know the outcome."""


@dataclass(frozen=True, slots=True)
class Node:
    """A server, from its URL."""

    url: str
    secure: bool
    host: str
    port: int
    authority: str
    """The value of ``Host``."""
    prefix: str
    """The start of each path."""

    authorization: str
    """A header line for the user in the URL; empty without one."""

    @classmethod
    def at(cls, url: str) -> "Node":
        """Raises ValueError if ``url`` is not the URL of a server."""
        parts = URL.fullmatch(url)
        secure = parts is not None and parts["scheme"].lower() == "https"
        port = int(parts["port"] or (443 if secure else 80)) if parts is not None else 0
        if parts is None or not 1 <= port <= 65535 or re.fullmatch(r"[!-~]+", url) is None:
            # Not quoted: it may contain a password.
            raise ValueError(
                "this is not the URL of a server (in a password, / ? # and @ are percent-encoded), "
                "such as http://127.0.0.1:8080"
            )
        user, authority, prefix = parts["user"], parts["authority"], parts["prefix"].rstrip("/")
        shown = f"{parts['scheme']}://{authority}{prefix}"
        basic = b64encode(unquote(user or "").encode()).decode()
        authorization = "" if user is None else f"Authorization: Basic {basic}\r\n"
        host = parts["host"].strip("[]")
        return cls(shown, secure, host, port, authority, prefix, authorization)


@dataclass(frozen=True, slots=True)
class Ask:
    """Send ``request`` to ``node``, and wait for the answer until ``deadline``."""

    node: Node
    request: bytes
    deadline: float
    """By ``time.monotonic``."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait."""

    seconds: float


T = TypeVar("T")

Call: TypeAlias = Generator[Ask | Wait, Reply | Lost | None, T]


class Calls:
    """The calls of one client. Several may be under way at the same time, in any threads.

    Args:
        urls: of the servers of one sequence, such as ``http://127.0.0.1:8080``; a call that one
            of them does not answer goes to the next.
        timeout: seconds that a call takes at most, all attempts together.
        attempt_timeout: seconds after which an attempt to step, or to read where the sequence is,
            is considered lost.

    Raises:
        ValueError: an argument is invalid.
    """

    def __init__(self, urls: str | Iterable[str], timeout: float, attempt_timeout: float) -> None:
        self.nodes = [Node.at(url) for url in ([urls] if isinstance(urls, str) else urls)]
        if not self.nodes:
            raise ValueError("a client needs the URL of a server")
        self._timeout = timeout
        self._attempt_timeout = attempt_timeout
        self._at = 0
        """The node to ask next, modulo their number: the last one that answered."""
        self._seen: int | None = None
        """The index of the sequence in the last answer. For a key, any that was seen will do."""

    def new_key(self, end: float | None = None) -> Call[str]:
        """A key for one step. It holds an index that the sequence had reached before that step."""
        if self._seen is None:
            yield from self._ask("current", self._end(None) if end is None else end)
        return f"{self._seen}:{secrets.token_urlsafe(RANDOM_BYTES)}"

    def next(self, key: str | None, timeout: float | None) -> Call[Number]:
        end = self._end(timeout)
        if key is None:
            key = yield from self.new_key(end)
        elif KEY.fullmatch(key) is None:
            raise ValueError(
                f"{key!r} is not INDEX:RANDOM, with 16 to 64 random letters, digits, - or _"
            )
        return (yield from self._ask("next", end, key=key))

    def current(self, timeout: float | None) -> Call[Number]:
        return self._ask("current", self._end(timeout))

    def previous(self, timeout: float | None) -> Call[Number]:
        return self._ask("previous", self._end(timeout))

    def number(self, index: int, timeout: float | None) -> Call[Number]:
        if not 0 <= index < 2**63:
            raise ValueError(f"index must be from 0 to 2^63 - 1, not {index}")
        return self._ask(f"numbers/{index}", self._end(timeout), index=index)

    def _end(self, timeout: float | None) -> float:
        return monotonic() + (self._timeout if timeout is None else timeout)

    def _ask(
        self, path: str, end: float, *, key: str | None = None, index: int | None = None
    ) -> Call[Number]:
        """Ask until an answer settles it, or time runs out.

        A step is requested with the same key each time, so that it is made once. After a lost
        answer the step is in doubt, even if a node rejects the next attempt.
        """
        waits = _waits()
        in_doubt = False
        unavailable: UnavailableError | None = None
        for attempt in itertools.count(1):
            at = self._at
            node = self.nodes[at % len(self.nodes)]
            # A long number may have to wait; any other answer comes soon or is lost.
            patience = LONGEST_SECONDS if index is not None else self._attempt_timeout
            deadline = min(end, monotonic() + min(patience, LONGEST_SECONDS))
            reply = yield Ask(node, self._request(node, path, key), deadline)
            assert reply is not None
            if isinstance(reply, Reply):
                if index is None and (tag := TAG.fullmatch(reply.fields.get("etag", ""))):
                    self._seen = int(tag[1])
                if reply.status == HTTPStatus.OK:
                    return _number(node, path, reply, key, index)
            error = _error(node, reply, key)
            settles = not in_doubt or isinstance(error, SETTLING)
            if settles and not isinstance(error, NoAnswerError | UnavailableError):
                raise error
            if isinstance(error, UnavailableError):
                unavailable = error
            in_doubt |= key is not None and _may_have_stepped(reply)
            self._at = at + 1
            # Ask every node once, then wait.
            wait = 0.0 if attempt % len(self.nodes) else max(next(waits), _retry_after(reply))
            wait = min(wait, LONGEST_SECONDS)
            if monotonic() + wait >= end:
                if in_doubt and key is not None:
                    raise StepInDoubtError(node.url, error.reason, key)
                # A server's reason says more than a timeout.
                raise unavailable or error
            if wait:
                yield Wait(wait)
        raise AssertionError

    @staticmethod
    def _request(node: Node, path: str, key: str | None) -> bytes:
        method = "GET"
        more = node.authorization
        if key is not None:
            method = "POST"
            more += f'Idempotency-Key: "{key}"\r\nContent-Length: 0\r\n'
        return (
            f"{method} {node.prefix}/{path} HTTP/1.1\r\nHost: {node.authority}\r\n"
            f"Accept: text/plain\r\nUser-Agent: fibcore-client\r\n{more}\r\n"
        ).encode("latin-1")


def _waits() -> Iterator[float]:
    """Seconds, growing up to a bound; random, so that many clients do not come back together."""
    wait = FIRST_WAIT_SECONDS
    while True:
        yield wait * random.uniform(0.5, 1.0)
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)


def _retry_after(reply: Reply | Lost) -> float:
    """The seconds in ``Retry-After``; 0 if it is missing, or a date."""
    text = reply.fields.get("retry-after", "") if isinstance(reply, Reply) else ""
    return float(text) if text.isascii() and text.isdigit() else 0.0


def _may_have_stepped(reply: Reply | Lost) -> bool:
    """Whether the step may have been made: for this request, or for another with its key."""
    if isinstance(reply, Lost):
        return reply.sent
    return reply.status in UNKNOWN or reply.problem.get("key") == "outstanding"


def _error(node: Node, reply: Reply | Lost, key: str | None) -> ClientError:
    """The error for an answer without a number."""
    if isinstance(reply, Lost):
        return NoAnswerError(node.url, reply.reason)
    status, reason = reply.status, reply.reason
    if status in AGAIN | UNKNOWN:
        return UnavailableError(node.url, reason)
    if status == HTTPStatus.CONFLICT and key is not None:
        index = reply.problem.get("index")
        index = index if isinstance(index, int) else None
        match reply.problem.get("key"):
            case "outstanding":
                return UnavailableError(node.url, reason)
            case "dropped":
                return KeyForgottenError(node.url, reason, key, index)
            case "ahead":
                return KeyAheadError(node.url, reason, key, index)
            case _:
                return LargestIndexError(node.url, reason, index)
    if 400 <= status < 500:
        return RejectedError(node.url, reason, status)
    return UnexpectedReplyError(node.url, reason, key)


def _number(node: Node, path: str, reply: Reply, key: str | None, index: int | None) -> Number:
    """The number in an answer, verified.

    Raises:
        UnexpectedReplyError: it has none.
    """
    tag = TAG.fullmatch(reply.fields.get("etag", ""))
    kind = reply.fields.get("content-type", "")
    if tag is None or tag[3] is None or not kind.startswith("text/plain"):
        raise UnexpectedReplyError(node.url, "it has no ETag of a plain-text number", key)
    if DIGITS.fullmatch(reply.body) is None:
        raise UnexpectedReplyError(node.url, "its body is not a number", key)
    at, modular = int(tag[1]), tag[2] is not None
    if modular and len(reply.body) > DIGITS_OF_64_BITS:
        raise UnexpectedReplyError(node.url, "its number is longer than its ETag allows", key)
    if index not in (None, at):
        raise UnexpectedReplyError(node.url, f"it is the number at index {at}", key)
    if key is not None and at <= int(key.partition(":")[0]):
        reason = f"a step led to index {at}, where the sequence had been before"
        raise UnexpectedReplyError(node.url, reason, key)
    if path == "previous":
        at = max(at - 1, 0)
    return Number(at, reply.body.decode(), exact=not modular or at <= LARGEST_IN_64_BITS)
