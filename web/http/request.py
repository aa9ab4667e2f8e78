"""What matters of a request that an endpoint answers: all else in its head is skipped."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from web.http.answers import Answer, Header, Latest
from web.http.negotiation import EntityTags, Representation, is_prefetch, list_of, preferred
from web.http.origins import CORS, is_cross_origin

REPRESENTATION: Final = frozenset((b"accept",))
CONDITIONS: Final = frozenset((b"if-match", b"if-none-match"))
KEY: Final = frozenset((b"idempotency-key",))
CHANGING: Final = CONDITIONS | KEY
"""The fields that differ each time, where the rest of a client's head doesn't."""
PURPOSES: Final = (b"sec-purpose", b"purpose", b"x-purpose", b"x-moz")
"""The fields that mark a prefetch: the standard's, and those that browsers sent before it."""
MEANT: Final = frozenset((*PURPOSES, b"sec-fetch-site", b"host"))
"""The fields by which a browser marks a request that its user did not ask for; with ``Origin``."""

READ: Final = REPRESENTATION | CHANGING | MEANT | CORS
"""What ``Request`` has a field for."""

NOTHING: Final[Mapping[Any, str]] = MappingProxyType({})

Reply: TypeAlias = Callable[[Answer], None]
"""Takes the answer, once. It is a method of what has an ``address``: see ``client_of``."""


@dataclass(slots=True)
class Request:
    """A request for an endpoint; the same for every request that asks for the same."""

    method: str
    parameters: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    """What stands in the path where the endpoint's has a name in braces."""
    representation: Representation = Representation.JSON
    prefetch: bool = False
    cross_origin: bool = False
    """Whether a browser says that a page of another origin has made it, whose user may not know."""
    origin: str | None = None
    """Of the page that has made it, where a browser says that."""
    preflight: bool = False
    """Whether a browser asks what a page of another origin may send."""
    accept: str = ""
    """What ``representation`` comes from, for answers of other forms."""
    fields: Mapping[bytes, str] = field(default_factory=lambda: NOTHING)
    """What else its endpoint counts, by name in lower case; several lines of one are a list."""
    if_match: EntityTags | None = None
    if_none_match: EntityTags | None = None
    conditional: bool = False
    """Whether it has one of these conditions."""
    key: str | None = None
    """The value of ``Idempotency-Key``; that of several lines has a comma in it."""
    latest: Latest | None = field(default=None, compare=False, repr=False)
    """Where the last answer is kept, for a read without conditions that has been answered."""


def request_of(
    method: str,
    parameters: Mapping[str, str],
    fields: Iterable[Header],
    counting: Collection[bytes],
) -> Request:
    """Read a request.

    Args:
        method: as it stands in the request line.
        parameters: from the path.
        fields: the header fields, their names in lower case; of trailers there are none here,
            since they are not to be merged into the header (RFC 9110, 6.5.1).
        counting: the names of those that can change the answer.
    """
    found: dict[bytes, list[str]] = {}
    for name, value in fields:
        if name in counting:
            found.setdefault(name, []).append(value.decode("latin-1"))
    if not found:
        return Request(method, parameters)

    origins = found.get(b"origin", [])
    accept = list_of(found.get(b"accept", ()))
    request = Request(
        method,
        parameters,
        preferred((accept,)),
        prefetch=is_prefetch(value for name in PURPOSES for value in found.get(name, ())),
        cross_origin=is_cross_origin(
            found.get(b"sec-fetch-site", ()), origins, found.get(b"host", ())
        ),
        origin=origins[0] if len(origins) == 1 else None,
        preflight=b"access-control-request-method" in found,
        accept=accept,
        fields={name: ", ".join(values) for name, values in found.items() if name not in READ}
        or NOTHING,
    )
    return request if found.keys().isdisjoint(CHANGING) else _changed(request, found)


def with_changing(
    request: Request, changing: Iterable[Header], counting: Collection[bytes]
) -> Request:
    """The same request with the fields ``changing``; ``counting`` as for ``request_of``."""
    found: dict[bytes, list[str]] = {}
    for name, value in changing:
        if name in counting:
            found.setdefault(name, []).append(value.decode("latin-1"))
    return _changed(request, found) if found else request


def _changed(request: Request, found: Mapping[bytes, list[str]]) -> Request:
    if_match, if_none_match = found.get(b"if-match"), found.get(b"if-none-match")
    key = found.get(b"idempotency-key")
    return Request(
        request.method,
        request.parameters,
        request.representation,
        request.prefetch,
        request.cross_origin,
        request.origin,
        request.preflight,
        request.accept,
        request.fields,
        None if if_match is None else EntityTags(if_match),
        None if if_none_match is None else EntityTags(if_none_match),
        conditional=if_match is not None or if_none_match is not None,
        key=None if key is None else ", ".join(key),
    )


def client_of(reply: Reply) -> str:
    """Whose share of what is bounded a request takes: the client's address, of IPv6 its network.

    Clients behind one proxy have one address, and so one share.
    """
    address = getattr(getattr(reply, "__self__", None), "address", "")
    try:
        found = IPv6Address(address)
    except ValueError:
        return str(address)
    # Anybody has 2**64 addresses, or more.
    return str(found.ipv4_mapped or IPv6Network((found, 64), strict=False))
