"""Cross-origin requests: how browsers mark them, and which are allowed.

A page can make a browser send a request to any address, with an image or a form, without its
visitor's intent. The browser marks it with ``Sec-Fetch-Site`` (W3C, Fetch Metadata) or ``Origin``
(RFC 6454); other programs send neither. CORS governs what pages of other origins may read
(https://fetch.spec.whatwg.org/#http-cors-protocol).
"""

import ipaddress
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from web.http.answers import Answer, Header, PlainAnswer

CORS: Final = frozenset((b"origin", b"access-control-request-method"))
"""The fields by which a browser marks a page of another origin that wants to read the answer."""

MEANT: Final = ("same-origin", "none")
"""From a page of ours, or from none: the user typed the URL or opened a bookmark. ``same-site`` is
a different origin: a program on another port, or a foreign subdomain."""

DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}

VARY: Final[Header] = (b"vary", b"origin")
READABLE: Final[Header] = (b"access-control-expose-headers", b"etag, retry-after")
SENT: Final[Header] = (
    b"access-control-allow-headers",
    b"if-match, if-none-match, cache-control, idempotency-key",
)
PREFLIGHT_SECONDS: Final[Header] = (b"access-control-max-age", b"600")


def is_cross_origin(site: Iterable[str], origins: Sequence[str], hosts: Sequence[str]) -> bool:
    """Whether a browser marks the request as made by a page of another origin.

    Args:
        site: the values of ``Sec-Fetch-Site``, which decides if present.
        origins: the values of ``Origin``, otherwise compared with ``Host``.
        hosts: the values of ``Host``.
    """
    sites = [value for each in site if (value := each.lower())]
    if sites:
        return any(each not in MEANT for each in sites)
    if not origins:
        return False
    scheme, _, authority = origins[0].lower().partition("://")
    # Behind a proxy that terminates TLS our own scheme is unknown.
    port = DEFAULT_PORTS.get(scheme, "")
    named = {each.lower().removesuffix(port) for each in hosts}
    return len(origins) > 1 or not authority or {authority.removesuffix(port)} != named


def is_allowed_host(host: str, allowed: Collection[str] | None) -> bool:
    """Whether requests for ``host`` are accepted.

    Addresses and ``localhost`` always are. Any other name comes from DNS, and a page can make its
    own name resolve to this machine (DNS rebinding). The browser then takes this server for the
    page's origin, which neither ``Origin`` nor ``Sec-Fetch-Site`` reveals.

    Args:
        host: the value of ``Host``.
        allowed: other names that are allowed, in lower case; None: any.
    """
    if allowed is None:
        return True
    name = re.sub(r":\d*$", "", host.strip(" \t").lower()).rstrip(".")
    if name in allowed or name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def cors_headers(origin: str | None, allowed: Collection[str]) -> tuple[Header, ...]:
    """The CORS headers of an endpoint's answer to ``origin``; none if no origin is allowed."""
    if not allowed:
        return ()
    if origin is None or origin not in allowed:
        return (VARY,)
    return (VARY, (b"access-control-allow-origin", origin.encode("latin-1")), READABLE)


def preflight(methods: Sequence[str]) -> Answer:
    """204: a page of an allowed origin may send the request, with any of ``methods``."""
    allowed = ", ".join(methods).encode()
    return PlainAnswer(204, ((b"access-control-allow-methods", allowed), SENT, PREFLIGHT_SECONDS))
