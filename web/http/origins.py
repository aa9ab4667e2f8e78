"""What a browser says of where a request comes from, and what is made of it.

A page may have a browser send a request to any address, with an image or a form, and whoever looks
at the page has not meant it. The browser says so, by ``Sec-Fetch-Site`` (W3C, Fetch Metadata) or by
``Origin`` (RFC 6454), and a program says neither. What pages of other origins may read is CORS
(https://fetch.spec.whatwg.org/#http-cors-protocol).
"""

import ipaddress
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from web.http.answers import Answer, Header, PlainAnswer

CORS: Final = frozenset((b"origin", b"access-control-request-method"))
"""By which a browser says that a page of another origin wants to read the answer."""

MEANT: Final = ("same-origin", "none")
"""From a page of ours, or from nobody's: the user has typed it, or opened a bookmark. ``same-site``
is another origin: a program on another port, or somebody else's subdomain."""

DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}

VARY: Final[Header] = (b"vary", b"origin")
READABLE: Final[Header] = (b"access-control-expose-headers", b"etag, retry-after")
SENT: Final[Header] = (
    b"access-control-allow-headers",
    b"if-match, if-none-match, cache-control, idempotency-key",
)
PREFLIGHT_SECONDS: Final[Header] = (b"access-control-max-age", b"600")


def is_cross_origin(site: Iterable[str], origins: Sequence[str], hosts: Sequence[str]) -> bool:
    """Tell whether a browser marks a request as made by a page of another origin.

    Args:
        site: the values of ``Sec-Fetch-Site``, which decides where there is one.
        origins: those of ``Origin``, which is then held against ``Host``.
        hosts: those of ``Host``.
    """
    sites = [value for each in site if (value := each.strip(" \t").lower())]
    if sites:
        return any(each not in MEANT for each in sites)
    if not origins:
        return False
    scheme, _, authority = origins[0].strip(" \t").lower().partition("://")
    # A proxy may speak TLS for us, so that our own scheme is not known.
    port = DEFAULT_PORTS.get(scheme, "")
    named = {each.strip(" \t").lower().removesuffix(port) for each in hosts}
    return len(origins) > 1 or not authority or {authority.removesuffix(port)} != named


def is_allowed_host(host: str, allowed: Collection[str] | None) -> bool:
    """Tell whether requests for ``host``, as in the field, are answered.

    An address is always allowed, and so is ``localhost``: any other name comes from DNS, and a page
    can have its own name turned to this machine (DNS rebinding). A browser then takes us for the
    page's origin, so that neither ``Origin`` nor ``Sec-Fetch-Site`` tells the two apart.

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
    """What is added to an answer of an endpoint for ``origin``, where pages of some are allowed."""
    if not allowed:
        return ()
    if origin is None or origin not in allowed:
        return (VARY,)
    return (VARY, (b"access-control-allow-origin", origin.encode("latin-1")), READABLE)


def preflight(methods: Sequence[str]) -> Answer:
    """204: a page of an allowed origin may send what it asks about, by ``methods``."""
    allowed = ", ".join(methods).encode()
    return PlainAnswer(204, ((b"access-control-allow-methods", allowed), SENT, PREFLIGHT_SECONDS))
