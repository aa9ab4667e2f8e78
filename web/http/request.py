"""A request as an endpoint sees it: everything else in its head is skipped."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from fibcore.idempotency_key import Key, key_of
from web.http.answers import Answer, Header, Latest
from web.http.negotiation import EntityTags, Representation, is_prefetch, list_of, preferred
from web.http.origins import CORS, is_cross_origin

REPRESENTATION: Final = frozenset((b"accept",))
CONDITIONS: Final = frozenset((b"if-match", b"if-none-match"))
KEY: Final = frozenset((b"idempotency-key",))
CHANGING: Final = CONDITIONS | KEY
"""The fields that vary from request to request while the rest of a client's head stays the same."""
PURPOSES: Final = (b"sec-purpose", b"purpose", b"x-purpose", b"x-moz")
"""The fields that mark a prefetch: the standard one and its predecessors."""
MEANT: Final = frozenset((*PURPOSES, b"sec-fetch-site", b"host"))
"""The fields by which, with ``Origin``, a browser marks a request that its user did not make."""

READ: Final = REPRESENTATION | CHANGING | MEANT | CORS
"""The header fields that ``Request`` has an attribute for."""

NOTHING: Final[Mapping[Any, str]] = MappingProxyType({})

Reply: TypeAlias = Callable[[Answer], None]
"""Takes the answer, once. A method of an object with an ``address``: see ``client_of``."""


@dataclass(slots=True)
class Request:
    """A request for an endpoint; identical requests share one object."""

    method: str
    parameters: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    """The values of the names in braces in the endpoint's path."""
    representation: Representation = Representation.JSON
    prefetch: bool = False
    cross_origin: bool = False
    """Whether a browser marks it as made by a page of another origin."""
    origin: str | None = None
    """The origin of the page that made it, if the browser names one."""
    preflight: bool = False
    """Whether it is a CORS preflight."""
    accept: str = ""
    """The ``Accept`` field, for answers in other formats."""
    fields: Mapping[bytes, str] = field(default_factory=lambda: NOTHING)
    """Other fields that the endpoint uses, by lower-case name; several lines are joined to a
    list."""
    if_match: EntityTags | None = None
    if_none_match: EntityTags | None = None
    conditional: bool = False
    """Whether it has either condition."""
    keyed: bool = False
    """Whether it has an ``Idempotency-Key``."""
    key: Key | None = None
    """That key; None if malformed. Only valid until the endpoint's function returns: requests that
    differ in nothing else share one object, too."""
    latest: Latest | None = field(default=None, compare=False, repr=False)
    """The cache entry of the last answer, for a read without conditions."""


def request_of(
    method: str,
    parameters: Mapping[str, str],
    fields: Iterable[Header],
    counting: Collection[bytes],
) -> Request:
    """Read a request.

    Args:
        method: as in the request line.
        parameters: from the path.
        fields: the header fields, names in lower case; no trailers, which must not be merged into
            the header (RFC 9110, 6.5.1).
        counting: the names of the fields that can change the answer.
    """
    found = _values(fields, counting)
    if not found:
        return Request(method, parameters)

    origins = found.get(b"origin", [])
    accept = list_of(found.get(b"accept", ()))
    request = Request(
        method,
        parameters,
        preferred(accept),
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
    return request if found.keys().isdisjoint(CHANGING) else changed(request, found)


def with_changing(
    request: Request, changing: Iterable[Header], counting: Collection[bytes]
) -> Request:
    """The same request with the fields ``changing``; ``counting`` as for ``request_of``."""
    found = _values(changing, counting)
    return changed(request, found) if found else request


def _values(fields: Iterable[Header], counting: Collection[bytes]) -> dict[bytes, list[str]]:
    """The values of each field that counts, by name."""
    found: dict[bytes, list[str]] = {}
    for name, value in fields:
        if name in counting:
            # Not every ASGI server strips the white space around a value.
            found.setdefault(name, []).append(value.strip(b" \t").decode("latin-1"))
    return found


def changed(request: Request, found: Mapping[bytes, list[str]]) -> Request:
    """The same request with the fields of ``CHANGING`` in ``found``, and without the others."""
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
        keyed=key is not None,
        # One line has one key.
        key=key_of(key[0].encode("latin-1")) if key and len(key) == 1 else None,
    )


def client_of(reply: Reply) -> str:
    """The client that a request counts for in per-client bounds: its address, or its IPv6 network.

    Clients behind one proxy share an address, and therefore one bound.
    """
    address = getattr(getattr(reply, "__self__", None), "address", "")
    try:
        found = IPv6Address(address)
    except ValueError:
        return str(address)
    # A single client usually has 2**64 addresses or more.
    return str(found.ipv4_mapped or IPv6Network((found, 64), strict=False))
