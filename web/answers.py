"""The answers of the contract, as plain data: the application sends them, so does the fast path.

A number's digits are never copied into an answer: the body is a few pieces, one of them the
digits that every answer about that number shares.
"""

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, NamedTuple

from web.negotiation import Representation

__all__ = [
    "NO_CACHE",
    "NO_STORE",
    "Answer",
    "Number",
    "healthy",
    "method_not_allowed",
    "not_modified",
    "number",
    "problem",
    "unavailable",
]

Header = tuple[bytes, bytes]


class Answer(NamedTuple):
    """One answer: its status, its headers without the date, and the pieces of its body."""

    status: int
    headers: Sequence[Header]
    body: tuple[bytes, ...]


class Number(NamedTuple):
    """One of the three numbers that are served: its JSON key and how it may be cached."""

    key: bytes
    cache_control: bytes


RETRY_AFTER: Final = 1
"""Seconds."""

JSON_TAIL: Final = b"}"
VARY: Final = (b"vary", b"accept")
NO_CACHE: Final = b"no-cache"
NO_STORE: Final = b"no-store"


def number(kind: Number, index: int, digits: bytes, representation: Representation) -> Answer:
    """200 with ``digits``; ``index`` is where the sequence stands after the request."""
    body: tuple[bytes, ...]
    if representation is Representation.JSON:
        body = (b'{"' + kind.key + b'": ', digits, JSON_TAIL)
    else:
        body = (digits,)
    headers = (
        (b"content-type", representation.value),
        (b"content-length", b"%d" % sum(map(len, body))),
        (b"etag", b'"%d"' % index),
        (b"cache-control", kind.cache_control),
        VARY,
    )
    return Answer(200, headers, body)


def not_modified(kind: Number, index: int) -> Answer:
    """304: the client has this already."""
    headers = ((b"etag", b'"%d"' % index), (b"cache-control", kind.cache_control), VARY)
    return Answer(304, headers, ())


def problem(
    status: int,
    detail: str,
    *headers: Header,
    index: int | None = None,
    cache_control: bytes = NO_STORE,
) -> Answer:
    """An error as RFC 9457 has it.

    Args:
        status: its title is the phrase of the status.
        detail: what happened, what it means for the state, what to do.
        headers: more headers.
        index: where the sequence stands, where that is known; also given as ``ETag``.
        cache_control: as it is on the good answers of the same path.
    """
    members: dict[str, str | int] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if index is not None:
        members["index"] = index
        headers = (*headers, (b"etag", b'"%d"' % index))
    body = json.dumps(members).encode()
    return Answer(
        status,
        (
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", cache_control),
            *headers,
        ),
        (body,),
    )


def unavailable(
    reason: str, *, index: int | None = None, cache_control: bytes = NO_STORE
) -> Answer:
    """503: nothing has stepped.

    Args:
        reason: what happened, as a sentence.
        index: where the sequence stands, where that is known.
        cache_control: as it is on the good answers of the same path.
    """
    return problem(
        503,
        f"{reason} Nothing has stepped. Ask again after {RETRY_AFTER} s.",
        (b"retry-after", b"%d" % RETRY_AFTER),
        index=index,
        cache_control=cache_control,
    )


def method_not_allowed(
    method: str,
    path: str,
    allowed: Sequence[str],
    *,
    index: int | None = None,
    cache_control: bytes = NO_STORE,
) -> Answer:
    """405 with ``Allow``; the other arguments as for ``problem``."""
    allow = ", ".join(allowed)
    return problem(
        405,
        f"{path} does not take {method}. Nothing has stepped. Use {allow}.",
        (b"allow", allow.encode()),
        index=index,
        cache_control=cache_control,
    )


def healthy() -> Answer:
    """200: the store can be used."""
    body = b'{"status": "healthy"}'
    headers = (
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", NO_CACHE),
    )
    return Answer(200, headers, (body,))
