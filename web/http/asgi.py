"""How a request that the table doesn't know goes through uvicorn to Starlette.

All that is used of uvicorn beyond its documented interface stands here and in the first lines of
``web.http.protocol`` (``ServerState`` and the arguments that a protocol is made with). So its minor
version is pinned, and ``tests/http/test_uvicorn.py`` says what of it has moved when that is raised.
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
    get_client_addr,
    get_local_addr,
    get_remote_addr,
    is_ssl,
)
from uvicorn.server import ServerState

from web.http.access_log import AccessLog
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
    """The request as ASGI has it: https://asgi.readthedocs.io/en/latest/specs/www.html."""
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


class Exchange:
    """One request that Starlette answers, on a connection that takes no other meanwhile."""

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
        access: AccessLog | None = None,
    ) -> None:
        more: list[Header] = [KEEP_ALIVE] if head.keep_alive and head.version == "1.0" else []
        self.flow = FlowControl(transport)
        self._cycle = RequestResponseCycle(
            scope=_scope(config, transport, head, fields, app_state),  # type: ignore[arg-type]
            transport=transport,
            flow=self.flow,
            logger=_error_log,
            access_logger=access,  # type: ignore[arg-type]
            access_log=access is not None,
            default_headers=[*server_state.default_headers, *more],
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=head.keep_alive,
            on_response=on_answered,
        )
        self._cycle.body += body
        self._cycle.more_body = False
        task = asyncio.get_running_loop().create_task(self._cycle.run_asgi(config.loaded_app))
        server_state.tasks.add(task)
        task.add_done_callback(server_state.tasks.discard)

    def close_behind(self) -> None:
        """Have the connection closed behind the answer."""
        self._cycle.keep_alive = False

    def disconnect(self) -> None:
        """Say that the client is gone."""
        self._cycle.disconnected = True
        self._cycle.message_event.set()
        self.flow.resume_writing()


def client_of(transport: asyncio.Transport) -> str:
    """What an access log calls the client: its address and port."""
    scope: Any = {"client": get_remote_addr(transport)}
    return get_client_addr(scope)
