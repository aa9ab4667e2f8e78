"""The answers of the HTTP contract, as plain data and as the bytes to send.

Each is defined once: the Starlette application sends its status, headers and body; the protocol
sends the same as ``render`` makes it. Digits are never copied into a long answer: the body is a
few pieces, one of them the digits, which all answers with that number share.

Cython compiles this module unchanged, with the types in ``answers.pxd``.
"""

import json
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Final, TypeAlias

from fibcore import Snapshot
from fibcore.admission import UNCOUNTED_DIGITS
from web.http.negotiation import Representation

Header: TypeAlias = tuple[bytes, bytes]

RETRY_AFTER: Final = 1
"""Seconds."""

LARGEST_IN_64_BITS: Final = 93
"""The largest index whose number fits in 64 bits."""

RETRY: Final = (b"retry-after", b"%d" % RETRY_AFTER)
VARY: Final = (b"vary", b"accept")
NO_CACHE: Final = b"no-cache"
NO_STORE: Final = b"no-store"
FOR_EVER: Final = b"public, max-age=31536000, immutable"

SERVERS_OWN: Final[tuple[Header, ...]] = (
    (b"server", b"fibcore"),
    # A page of another origin can't embed an answer or load it as a script.
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""The headers of every answer, which the server adds along with the date."""

PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
STATUS_LINES: Final = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, phrase.encode()) for status, phrase in PHRASES.items()
}


class ServerHeaders:
    """The header lines that the server puts before those of each answer, such as the date.

    An answer rendered with an object of this class is valid as long as that object is in use.
    """

    __slots__ = ("formats", "text")

    def __init__(self, headers: Iterable[Header] = ()) -> None:
        self.text = b"".join([b"%b: %b\r\n" % header for header in headers])
        self.formats: dict[Form, tuple[bytes, bytes]] = {}
        """By form: the format of what precedes the digits, and the format of the whole answer."""


def head(status: int, lines: bytes, headers: Iterable[Header]) -> bytes:
    """Everything before a body; ``lines``: the server's own header lines, which come first."""
    written = b"".join([b"%b: %b\r\n" % header for header in headers])
    return b"%b%b%b\r\n" % (STATUS_LINES[status], lines, written)


class Answer:
    """One answer: its status, its headers without the server's own, its body in pieces."""

    __slots__ = ("_lines", "_pieces", "status")

    status: int
    _lines: ServerHeaders | None
    _pieces: tuple[bytes, ...]

    def headers(self) -> Sequence[Header]:
        """The headers, names in lower case; with a body, Content-Length is among them."""
        raise NotImplementedError

    def body(self) -> tuple[bytes, ...]:
        """The body in pieces; a long piece is shared with other answers."""
        raise NotImplementedError

    def render(self, lines: ServerHeaders) -> tuple[bytes, ...]:
        """All bytes to send, in the pieces to write (one if short). Made only once."""
        raise NotImplementedError

    def render_anew(self, lines: ServerHeaders, *more: Header, body: bool) -> tuple[bytes, ...]:
        """The same with ``more`` headers appended, or without the body, as for ``HEAD``."""
        first = head(self.status, lines.text, (*self.headers(), *more))
        return (first, *self.body()) if body else (first,)


class PlainAnswer(Answer):
    """An answer with fixed headers and body."""

    __slots__ = ("_body", "_headers")

    def __init__(self, status: int, headers: Sequence[Header], *body: bytes) -> None:
        self.status = status
        self._headers = headers
        self._body = body
        self._lines = None

    def headers(self) -> Sequence[Header]:
        return self._headers

    def body(self) -> tuple[bytes, ...]:
        return self._body

    def render(self, lines: ServerHeaders) -> tuple[bytes, ...]:
        if self._lines is not lines:
            pieces = self.render_anew(lines, body=True)
            short = sum(map(len, self._body)) < UNCOUNTED_DIGITS
            self._lines, self._pieces = lines, (b"".join(pieces),) if short else pieces
        return self._pieces


class Form:
    """What all answers with a number share at one path and in one representation.

    Args:
        key: its name in JSON.
        cache_control: how it may be cached.
        representation: JSON or text, each with a strong entity tag of its own (RFC 9110, 8.8.3).
        wrapped: whether the numbers are ``uint64`` ones past the point where they wrap.
    """

    __slots__ = (
        "_after",
        "_around",
        "_before",
        "_tag",
        "headers",
        "representation",
    )

    def __init__(
        self,
        key: bytes,
        cache_control: bytes,
        representation: Representation,
        *,
        wrapped: bool = False,
    ) -> None:
        self.representation = representation
        text = representation is Representation.TEXT
        self._tag = b'"%%d%b%b"' % (b"-uint64" if wrapped else b"", b"-text" if text else b"")
        self._before, self._after = (b"", b"") if text else (b'{"%b": ' % key, b"}")
        self._around = len(self._before) + len(self._after)
        self.headers: tuple[Header, ...] = (
            (b"content-type", representation.value),
            (b"content-length", b"%d"),
            (b"etag", self._tag),
            (b"cache-control", cache_control),
            VARY,
        )
        """With placeholders for the length and the index."""

    def tag(self, index: int) -> str:
        """The opaque part of the entity tag at ``index``."""
        return (self._tag % index)[1:-1].decode()

    def headers_of(self, index: int, size: int) -> tuple[Header, ...]:
        """The headers of an answer at ``index`` with a number of ``size`` digits."""
        kind, length, etag, *rest = self.headers
        length = (length[0], length[1] % (self._around + size))
        return (kind, length, (etag[0], etag[1] % index), *rest)

    def not_modified(self, index: int) -> Answer:
        """304: the client already has this representation."""
        etag, cache_control, vary = self.headers[2:]
        return PlainAnswer(304, ((etag[0], self._tag % index), cache_control, vary))

    def body(self, digits: bytes) -> tuple[bytes, ...]:
        """The pieces of the body."""
        return (self._before, digits, self._after) if self._around else (digits,)

    def render(self, lines: ServerHeaders, index: int, digits: bytes) -> tuple[bytes, ...]:
        """The whole answer in the pieces to write; long digits are a piece of their own."""
        formats = lines.formats.get(self)
        if formats is None:
            first = head(200, lines.text.replace(b"%", b"%%"), self.headers) + self._before
            formats = lines.formats[self] = first, first + b"%b" + self._after
        size = self._around + len(digits)
        if size < UNCOUNTED_DIGITS:
            return (formats[1] % (size, index, digits),)
        return (formats[0] % (size, index), digits, self._after)


class NumberAnswer(Answer):
    """200 with a number; its form determines everything else."""

    __slots__ = ("_form", "digits", "index")

    def __init__(self, form: Form, index: int, digits: bytes) -> None:
        self.status = 200
        self._form = form
        self.digits = digits
        self.index = index
        """The index after the request."""
        self._lines = None

    def headers(self) -> Sequence[Header]:
        return self._form.headers_of(self.index, len(self.digits))

    def body(self) -> tuple[bytes, ...]:
        return self._form.body(self.digits)

    def render(self, lines: ServerHeaders) -> tuple[bytes, ...]:
        if self._lines is not lines:
            self._pieces = self._form.render(lines, self.index, self.digits)
            self._lines = lines
        return self._pieces


class Latest:
    """The last answer to a read in one form; valid until the sequence moves."""

    __slots__ = ("answer", "snapshot")

    answer: NumberAnswer
    snapshot: Snapshot


JSON: Final = Representation.JSON


class Number:
    """One of the served numbers, such as the current one, in all of its forms.

    Args:
        key: its name in JSON.
        cache_control: how it may be cached.
    """

    __slots__ = ("cache_control", "json", "text", "wrapped")

    def __init__(self, key: bytes, cache_control: bytes) -> None:
        self.cache_control = cache_control
        self.json = Form(key, cache_control, Representation.JSON)
        self.text = Form(key, cache_control, Representation.TEXT)
        self.wrapped = {
            form: Form(key, cache_control, form.representation, wrapped=True)
            for form in (self.json, self.text)
        }
        """Their replacements past the point where a 64-bit sequence has wrapped."""

    def form(self, index: int, representation: Representation, wraps: bool) -> Form:
        """The form at ``index``; ``wraps``: whether the sequence is computed modulo 2**64."""
        form = self.json if representation is JSON else self.text
        return form if not wraps or index <= LARGEST_IN_64_BITS else self.wrapped[form]


def problem(
    status: int,
    detail: str,
    *headers: Header,
    index: int | None = None,
    cache_control: bytes = NO_STORE,
    key: str | None = None,
) -> Answer:
    """An error per RFC 9457.

    Args:
        status: the status, whose phrase is the title.
        detail: what happened, what it means for the sequence, what to do.
        headers: more headers.
        index: the index of the sequence, if known; also sent as ``ETag``.
        cache_control: as on the good answers of the same path.
        key: code of the problem with the idempotency key.
    """
    where = "" if key is None else f', "key": "{key}"'
    if index is not None:
        where += f', "index": {index}'
        headers = (*headers, (b"etag", b'"%d"' % index))
    # Formatted by hand for speed: a failed condition is as frequent as one that holds.
    body = (
        f'{{"type": "about:blank", "title": "{PHRASES[status]}", "status": {status}, '
        f'"detail": {json.dumps(detail)}{where}}}'
    ).encode()
    fixed = (
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", cache_control),
    )
    return PlainAnswer(status, (*fixed, *headers), body)


def bad_request(reason: str) -> Answer:
    """400: the bytes are not a request per RFC 9112; ``reason`` is a clause."""
    return problem(
        400,
        f"This is not a valid HTTP request: {reason}. Nothing has stepped. The connection is "
        f"closed, since the start of the next request is unknown.",
    )


def not_found(path: str, paths: Iterable[str]) -> Answer:
    """404: ``path`` is none of ``paths``."""
    return problem(
        404,
        f"There is nothing at {path}. Nothing has stepped. The paths are {', '.join(paths)}.",
    )


def misdirected() -> Answer:
    """421: ``Host`` is not allowed."""
    return problem(
        421,
        "This server does not accept requests for the host named in Host. Nothing has stepped. "
        "Use the server's address, or list the name in FIB_ALLOWED_HOSTS.",
    )


def failed(*, steps: bool) -> Answer:
    """500: an unexpected error.

    Args:
        steps: whether the request may have made a step.
    """
    state = (
        "A step may have been made: GET /current returns the current number."
        if steps
        else "Nothing has stepped."
    )
    return problem(500, f"An unexpected error occurred; see the server's log. {state}")


def unavailable(
    reason: str,
    *,
    state: str = "This request has not stepped.",
    is_lasting: bool = False,
    index: int | None = None,
    cache_control: bytes = NO_STORE,
) -> Answer:
    """503: this request has not stepped.

    Args:
        reason: what happened, as a sentence.
        state: what that means for the sequence, as a sentence.
        is_lasting: whether retrying never helps: then there is no ``Retry-After``.
        index: the index of the sequence, if known.
        cache_control: as on the good answers of the same path.
    """
    advice = f"Retry after {RETRY_AFTER} s."
    if is_lasting:
        advice = "Retrying does not help until the limit is raised."
    return problem(
        503,
        f"{reason} {state} {advice}",
        *(() if is_lasting else (RETRY,)),
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
        f"{path} does not support {method}. Nothing has stepped. Use {allow}.",
        (b"allow", allow.encode()),
        index=index,
        cache_control=cache_control,
    )


def ok(
    content_type: bytes, body: bytes, *headers: Header, cache_control: bytes = NO_CACHE
) -> Answer:
    """200 with ``body`` and more headers, if any."""
    fixed = (
        (b"content-type", content_type),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", cache_control),
    )
    return PlainAnswer(200, (*fixed, *headers), body)
