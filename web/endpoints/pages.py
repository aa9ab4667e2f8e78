"""The status page at ``/``: the files of ``web/endpoints/page``, as ordinary Starlette routes.

The page loads nothing from other servers. It polls ``/status``.
"""

import functools
import hashlib
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from web.http.negotiation import EntityTags

TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
"""Media types of the files that are served, by suffix."""

SECURITY: Final = {
    # Another site that frames this page could trick its visitors into clicking "Next".
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}


@functools.cache
def page_routes() -> tuple[Route, ...]:
    """``/``, and ``/page/NAME`` for each file beside it."""
    files = {
        each.name: each.read_bytes()
        for each in (resources.files(__package__) / "page").iterdir()
        if each.name.rpartition(".")[2] in TYPES
    }
    index = files.pop("index.html")
    return (
        Route("/", _serve("index.html", index)),
        *(Route(f"/page/{name}", _serve(name, content)) for name, content in files.items()),
    )


def is_page(path: str) -> bool:
    """Whether one of these routes is at ``path``, for any method."""
    return any(route.path_regex.match(path) for route in page_routes())


def _serve(name: str, content: bytes) -> Callable[[Request], Awaitable[Response]]:
    tag = hashlib.sha256(content).hexdigest()[:16]
    # Revalidated each time, so that all files of a page are of one version.
    headers = {"Cache-Control": "no-cache", "ETag": f'"{tag}"', **SECURITY}
    media_type = TYPES[name.rpartition(".")[2]]

    async def respond(request: Request) -> Response:
        if EntityTags(request.headers.getlist("if-none-match")).hold(tag):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)

    return respond
