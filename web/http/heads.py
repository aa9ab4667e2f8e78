"""The heads of requests: parsed by httptools, then recognized by their bytes.

This is no HTTP parser. httptools finds the fields; their meaning is determined once, and a head
that a client repeats byte for byte is looked up instead of parsed.

Cython compiles this module unchanged.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar
from urllib.parse import unquote

import httptools

from fibcore.idempotency_key import key_of
from web.http.answers import Header
from web.http.origins import cors_headers, is_allowed_host
from web.http.request import CHANGING, NOTHING, Request, changed, request_of, with_changing
from web.http.routing import CONNECTION_FIELDS, ELSEWHERE, MISDIRECTED, Endpoint, Responder, Table

MAX_KNOWN_SIZE: Final = 2048
"""Bytes. A longer head is parsed each time."""

MAX_HEADS: Final = 512
"""Entries of each cache: with ``MAX_KNOWN_SIZE``, a megabyte at most. The oldest is evicted."""

MAX_SEEN: Final = 1024
"""Slots of the seen-once filter: a head is cached at its second appearance."""

Template: TypeAlias = tuple[bytes, bytes]
"""A head without the value of one field: all bytes before and after it."""

_FIRST: Final = 0x21
_LAST: Final = 0x7E
"""The bytes of a value that fills a template: visible ASCII, of which none ends a line."""

HTTP_VERSIONS: Final = ("1.0", "1.1")

_HOST: Final = re.compile(
    rb"(?:\[[0-9A-Fa-fvV:.%\w\-]+\]|[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*(?::[0-9]*)?"
)
"""``uri-host [ ":" port ]``: RFC 9110, 7.2; RFC 3986, 3.2.2."""


_PROTOCOL: Final = re.compile(rb" HTTP/\d\.\d[ \r]*$")
"""The end of a request line. httptools also accepts RTSP and ICE."""


class MalformedError(Exception):
    """The bytes are not a request per RFC 9112; the message is a clause with the reason."""


class RequestLine(NamedTuple):
    """The parts of a request line."""

    method: str
    target: bytes
    """The path or a whole URL, undecoded."""
    version: str


class Logged(NamedTuple):
    """The access log's text of a head, made once for all its repetitions."""

    client: str
    """The client that a trusted proxy names; empty if none."""
    text: str
    """The request and the user agent."""


@dataclass(slots=True)
class Head:
    """The meaning of a request's head."""

    request: Request
    """The request; of the head, only this depends on conditions and keys."""
    endpoint: Endpoint | None
    """None if the path is a page's, which Starlette answers."""
    respond: Responder
    """Answers the request, whatever its method, if there is an endpoint."""
    method: str
    target: bytes
    path: str
    """The decoded path of the target."""
    version: str
    keep_alive: bool
    """Whether the connection stays open for another request."""
    plain: bool
    """Whether the answer is sent exactly as rendered."""
    more: tuple[Header, ...]
    """More headers of the answer."""
    awaits_continue: bool
    """Whether the client waits for 100 before it sends the body."""
    length: int | None
    """Bytes of the body; None if it is chunked."""
    counts: list[int]
    """Requests answered at this endpoint, by status."""
    varying: Sequence[Header] = ()
    """The fields that are not part of the key in ``Heads``; if it was filled, its template's."""
    logged: Logged | None = None
    """Set when first logged."""

    def asking(self, request: Request, varying: Sequence[Header]) -> "Head":
        """A copy for another request; ``dataclasses.replace`` takes ten times as long."""
        return Head(
            request,
            self.endpoint,
            self.respond,
            self.method,
            self.target,
            self.path,
            self.version,
            self.keep_alive,
            self.plain,
            self.more,
            self.awaits_continue,
            self.length,
            self.counts,
            varying,
        )


def mark(name: bytes) -> int:
    """A case-insensitive hash of ``name``, below 1,024."""
    return (len(name) & 31) << 5 | name[0] & 31


class Heads:
    """Three bounded caches of heads.

    Args:
        table: the endpoints, which name the fields that matter.
        answered: requests answered, by endpoint path and status.
        origins: the origins whose pages may read the answers.
        hosts: allowed host names besides addresses and localhost; None: any.
        logged: the fields that are logged, in lower case.
    """

    def __init__(
        self,
        table: Table,
        answered: Mapping[str, list[int]],
        origins: Collection[str] = (),
        hosts: Collection[str] | None = None,
        logged: frozenset[bytes] = frozenset(),
    ) -> None:
        self._table = table
        self._answered = answered
        self._origins = origins
        self._hosts = hosts
        self._varying = CHANGING | logged
        """The fields that vary while the rest of the head stays the same."""
        names = table.fields | CONNECTION_FIELDS | logged
        self.counting = {spelled: name for name in names for spelled in (name, name.title())}
        """The lower-case name of each field that matters, by its usual spellings."""
        marks = bytearray(1024)
        for name in names:
            marks[mark(name)] = 1
        self.marks = bytes(marks)
        """For each mark, whether a field that matters has it."""
        self.known: dict[bytes, Head] = {}
        """Complete requests for an endpoint of the table, by all their bytes."""
        self._templates: dict[Template, Head] = {}
        """The same for heads that differ in the value of a single field; see ``fill``."""
        self._holes: dict[bytes, bytes] = {}
        """The beginnings of the lines with a hole, as spelled; each with the field's name."""
        self._seen = [0] * MAX_SEEN
        self._read: dict[tuple[object, ...], Head] = {}
        """Heads by the fields that matter: read once, whatever else varies."""

    def remember(self, data: bytes, head: Head) -> None:
        """Cache ``data``, a head that is a complete request, at its second appearance."""
        if len(data) > MAX_KNOWN_SIZE or head.endpoint is None:
            return
        if self._is_repeated(data):
            _put(self.known, data, head)
        if not head.varying:
            return
        changing = [field for field in head.varying if field[0] in CHANGING]
        if len(changing) != 1:
            return
        ((name, value),) = changing
        for spelled in (name.title(), name):
            begin = b"\r\n%b: " % spelled
            template, found = _cut(data, begin)
            if found and found == value:
                if self._is_repeated(template):
                    self._holes[begin] = name
                    # Copies, since ``fill`` changes both.
                    _put(self._templates, template, head.asking(copy(head.request), head.varying))
                return

    def _is_repeated(self, data: bytes | Template) -> bool:
        """Whether ``data`` was seen before: what is seen once must not evict what is repeated."""
        key = hash(data)
        place = key % len(self._seen)
        if self._seen[place] == key:
            return True
        self._seen[place] = key
        return False

    def fill(self, data: bytes) -> Head | None:
        """The head of ``data``, if it differs from a known one in the value of one field alone.

        The field is one of ``CHANGING``, such as ``Idempotency-Key``. **Heads that are equal before
        and after the value mean the same but for it**: no byte of the value can end its line, so
        httptools would find the same fields, and the one that was parsed had no other field of
        ``CHANGING``. The value itself is read as always.

        Returns:
            None if it must be parsed. The head is that of all heads that differ so: the next call
            changes its ``request``, and that one's ``key``.
        """
        if len(data) > MAX_KNOWN_SIZE:
            return None
        for begin, name in self._holes.items():
            template, value = _cut(data, begin)
            head = self._templates.get(template)
            if head is not None:
                request = head.request
                if request.keyed:
                    request.key = key_of(value)
                elif request.conditional:
                    # Another one, since conditions are read later, too.
                    head.request = changed(request, {name: [value.decode("latin-1")]})
                return head
        return None

    def read(
        self,
        line: bytes,
        fields: list[Header],
        keep_alive: bool,
        parsed: Callable[[], RequestLine],
    ) -> Head:
        """Read a head that httptools has parsed.

        Args:
            line: the bytes of the request line, part of the cache key.
            fields: the fields that matter, in their order, names in lower case.
            keep_alive: whether the connection may stay open after it.
            parsed: returns the parsed request line; called if the head is not cached.

        Raises:
            MalformedError: it is not a valid request.
        """
        varying = [field for field in fields if field[0] in self._varying]
        if varying:
            fields = [field for field in fields if field[0] not in self._varying]
        key = (line, keep_alive, *fields)
        head = self._read.get(key)
        if head is None:
            if _PROTOCOL.search(line) is None:
                raise MalformedError("its request line does not end with an HTTP version")
            head = self._read_anew(*parsed(), fields, keep_alive)
            if len(line) + len(b"".join([value for _, value in fields])) <= MAX_KNOWN_SIZE:
                _put(self._read, key, head)
        if not varying:
            return head
        counting = () if head.endpoint is None else head.endpoint.fields
        return head.asking(with_changing(head.request, varying, counting), varying)

    def _read_anew(
        self, method: str, target: bytes, version: str, fields: list[Header], keep_alive: bool
    ) -> Head:
        if version not in HTTP_VERSIONS:
            raise MalformedError(f"HTTP/{version} is not supported")
        found: dict[bytes, bytes] = {}
        for name, value in fields:
            if name == b"host" and name in found:
                raise MalformedError("it has more than one Host")
            found[name] = value
        if b"host" not in found:
            if version == "1.1":
                raise MalformedError("it has no Host")
        elif _HOST.fullmatch(found[b"host"]) is None:
            raise MalformedError("its Host is not a valid host")
        chunked = b"transfer-encoding" in found
        if chunked and version == "1.0":
            raise MalformedError("it has a Transfer-Encoding, which HTTP/1.0 does not support")
        path, authority = parts_of(target)
        if authority is not None:
            # The target's host replaces the field: RFC 9112, 3.2.2.
            fields = with_host(fields, authority)
            found[b"host"] = authority
        endpoint, parameters = self._table.find(path) or (None, NOTHING)
        respond = _nobody if endpoint is None else endpoint.responder(method)
        if endpoint is None and not self._table.is_page(path):
            endpoint, parameters = self._table.nowhere, {"path": path}
            respond = endpoint.respond
        host = found.get(b"host")
        if host is not None and not is_allowed_host(host.decode("latin-1"), self._hosts):
            endpoint, respond = MISDIRECTED, MISDIRECTED.respond
        request = request_of(method, parameters, fields, endpoint.fields if endpoint else ())
        named = endpoint is not None and endpoint.path != ELSEWHERE
        more = cors_headers(request.origin, self._origins) if named else ()
        expects = {value.lower() for name, value in fields if name == b"expect"}
        return Head(
            request,
            endpoint,
            respond,
            method,
            target,
            path,
            version,
            keep_alive,
            plain=keep_alive and method != "HEAD" and not more,
            more=more,
            awaits_continue=b"100-continue" in expects and version == "1.1",
            # Python rejects numbers of many thousand digits, counting leading zeros.
            length=None if chunked else int(found.get(b"content-length", b"").lstrip(b"0") or 0),
            counts=self._answered[endpoint.path if endpoint else ELSEWHERE],
        )


def _cut(data: bytes, begin: bytes) -> tuple[Template, bytes]:
    """The template of ``data``, and the value that it lacks: that of the first line with ``begin``.

    All are empty if there is no such line.
    """
    at = data.find(begin)
    if at < 0:
        return (b"", b""), b""
    text, size, first, last = data, len(data), _FIRST, _LAST
    at += len(begin)
    end = at
    while end < size and first <= text[end] <= last:
        end += 1
    return (text[:at], text[end:size]), text[at:end]


def _nobody(*_: object) -> None:
    raise AssertionError("this request is for Starlette")


Key = TypeVar("Key")


def _put(look_up: dict[Key, Head], key: Key, head: Head) -> None:
    if len(look_up) >= MAX_HEADS:
        del look_up[next(iter(look_up))]
    look_up[key] = head


def parts_of(target: bytes) -> tuple[str, bytes | None]:
    """The decoded path of a request's target, and its host and port if the target is a URL.

    Raises:
        MalformedError: it is neither a path nor a URL, or it names a user.
    """
    try:
        url = httptools.parse_url(target)
        path = (url.path or b"/").decode("ascii")
    except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
        raise MalformedError("its target is neither a path nor a URL") from None
    return unquote(path) if "%" in path else path, authority_of(url, target)


def authority_of(url: Any, target: bytes) -> bytes | None:
    """The host and port that a target names; None if it is a path."""
    if not url.host:
        return None
    if url.userinfo:
        # It could disguise the host from a reader of the log: RFC 9110, 4.2.4.
        raise MalformedError("its target names a user")
    # The authority as written: httptools strips the brackets of an IPv6 address.
    return re.split(b"[/?#]", target.partition(b"://")[2], maxsplit=1)[0]


def with_host(fields: Iterable[Header], host: bytes) -> list[Header]:
    """``fields`` with ``Host`` replaced by ``host``."""
    return [(b"host", host), *(field for field in fields if field[0] != b"host")]
