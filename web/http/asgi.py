"""Hands a request that has no row in the table through uvicorn to Starlette.

Everything used of uvicorn beyond its documented interface is here and in the first lines of
``web.http.connection`` (``ServerState`` and the arguments of a protocol). Therefore uvicorn's minor
version is pinned; when it is raised, ``tests/http/test_uvicorn.py`` shows what has changed.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import httptools
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.protocols.utils import (
    get_local_addr,
    get_remote_addr,
    is_ssl,
)
from uvicorn.server import ServerState

from web.http.answers import Header
from web.http.heads import Head, authority_of, with_host

KEEP_ALIVE: Final = (b"connection", b"keep-alive")

_error_log = logging.getLogger("uvicorn.error")


def _scope(
    config: uvicorn.Config,
    transport: asyncio.Transport,
    head: Head,
    fields: list[Header],
    state: dict[str, Any],
) -> dict[str, Any]:
    """The request as an ASGI scope: https://asgi.readthedocs.io/en/latest/specs/www.html."""
    url = httptools.parse_url(head.target)
    authority = authority_of(url, head.target)
    if authority is not None:
        fields = with_host(fields, authority)
    return {
        "type": "http",
        "asgi": {"version": config.asgi_version, "spec_version": "2.3"},
        "http_version": head.version,
        "server": get_local_addr(transport),
        "client": get_remote_addr(transport),
        "scheme": "https" if is_ssl(transport) else "http",
        "root_path": config.root_path,
        "headers": fields,
        "state": state.copy(),
        "method": head.method,
        "path": config.root_path + head.path,
        "raw_path": config.root_path.encode("ascii") + (url.path or b"/"),
        "query_string": url.query or b"",
    }


class AsgiCycle:
    """One request that Starlette answers; its connection takes no other meanwhile."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        transport: asyncio.Transport,
        head: Head,
        fields: list[Header],
        body: bytes,
        on_answered: Callable[[], None],
    ) -> None:
        self.status = 0
        """Status of the answer; 0 until it begins."""
        self.size = 0
        """Bytes of its body sent so far."""
        more: list[Header] = [KEEP_ALIVE] if head.keep_alive and head.version == "1.0" else []
        self.flow = FlowControl(transport)
        self._uvicorn_cycle = RequestResponseCycle(
            scope=_scope(config, transport, head, fields, app_state),  # type: ignore[arg-type]
            transport=transport,
            flow=self.flow,
            logger=_error_log,
            access_logger=_error_log,
            access_log=False,
            default_headers=[*server_state.default_headers, *more],
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=head.keep_alive,
            on_response=on_answered,
        )
        self._uvicorn_cycle.body += body
        self._uvicorn_cycle.more_body = False

        async def app(scope: Any, receive: Any, send: Any) -> None:
            async def counted(message: Any) -> None:
                self.status = message.get("status", self.status)
                if head.method != "HEAD":
                    self.size += len(message.get("body", b""))
                await send(message)

            await config.loaded_app(scope, receive, counted)

        task = asyncio.get_running_loop().create_task(self._uvicorn_cycle.run_asgi(app))
        server_state.tasks.add(task)
        task.add_done_callback(server_state.tasks.discard)

    def close_behind(self) -> None:
        """Close the connection after the answer."""
        self._uvicorn_cycle.keep_alive = False

    def disconnect(self) -> None:
        """Notify the application that the client is gone."""
        self._uvicorn_cycle.disconnected = True
        self._uvicorn_cycle.message_event.set()
        self.flow.resume_writing()
