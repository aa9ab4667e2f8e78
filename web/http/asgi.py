"""Hands a request that has no row in the table to Starlette, through ASGI.

The parts of uvicorn that are used beyond its documented interface are imported in
``web.http.access_log`` and ``web.http.connection``. Therefore uvicorn's minor version is pinned.
"""

import asyncio
from typing import Any

import httptools
import uvicorn

from web.http.answers import Answer, Header, PlainAnswer
from web.http.heads import Head, authority_of, with_host


def _scope(config: uvicorn.Config, head: Head, fields: list[Header]) -> dict[str, Any]:
    """The request as an ASGI scope: https://asgi.readthedocs.io/en/latest/specs/www.html.

    It has no addresses: no page needs them, and a client that has left has none.
    """
    url = httptools.parse_url(head.target)
    authority = authority_of(url, head.target)
    if authority is not None:
        fields = with_host(fields, authority)
    return {
        "type": "http",
        "asgi": {"version": config.asgi_version, "spec_version": "2.3"},
        "http_version": head.version,
        "scheme": "http",
        "root_path": config.root_path,
        "headers": fields,
        "state": {},
        "method": head.method,
        "path": config.root_path + head.path,
        "raw_path": config.root_path.encode("ascii") + (url.path or b"/"),
        "query_string": url.query or b"",
    }


async def ask(config: uvicorn.Config, head: Head, fields: list[Header], body: bytes) -> Answer:
    """The answer of the application, in one piece: its pages are small."""
    begin: dict[str, Any] = {}
    pieces: list[bytes] = []
    requests = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        # After the request, only a disconnect could come; a task that waits for it is cancelled.
        return requests.pop() if requests else await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            begin.update(message)
        else:
            pieces.append(message.get("body", b""))

    await config.loaded_app(_scope(config, head, fields), receive, send)
    status, headers, size = begin["status"], [*begin["headers"]], sum(map(len, pieces))
    if status not in (204, 304) and b"content-length" not in dict(headers):
        headers.append((b"content-length", b"%d" % size))
    return PlainAnswer(status, headers, *pieces)
