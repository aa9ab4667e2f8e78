"""The Starlette application: the table of endpoints, with errors per RFC 9457.

It is complete and runs under any ASGI server. ``web.http.protocol`` answers the endpoints without
it, and is tested by comparison with it.
"""

import asyncio
from collections.abc import Collection, Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from web.endpoints.pages import page_routes
from web.endpoints.table import TABLE
from web.http import answers
from web.http.answers import Answer, Header
from web.http.origins import cors_headers, is_allowed_host
from web.http.request import request_of
from web.http.routing import ELSEWHERE, Endpoint, Table
from web.service import Service


def create_app(service: Service, table: Table = TABLE, *, counts: bool = True) -> Starlette:
    """The application that serves ``service``, which the caller starts and stops.

    Args:
        counts: whether it counts its answers; ``web.http.protocol`` does it itself.
    """

    async def http_error(request: StarletteRequest, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.scope["path"]
        if error.status_code == 404:
            return _AnswerResponse(answers.not_found(path, table.paths))
        if error.status_code == 405:
            allowed = (error.headers or {})["Allow"].split(", ")
            return _AnswerResponse(
                answers.method_not_allowed(request.method, path, sorted(allowed))
            )
        return _AnswerResponse(answers.problem(error.status_code, f"{error.detail}."))

    async def server_error(request: StarletteRequest, error: Exception) -> Response:  # noqa: ARG001
        if counts:
            service.answered[_path(request.scope)][500] += 1
        endpoint = request.scope.get("endpoint")
        steps = isinstance(endpoint, Endpoint) and endpoint.steps
        return _AnswerResponse(answers.failed(steps=steps))

    app = Starlette(
        routes=[_TableRoute(table, service), *page_routes()],
        exception_handlers={HTTPException: http_error, Exception: server_error},
    )
    # A redirect from /next/ to /next could step for a client that meant another path.
    app.router.redirect_slashes = False
    if service.settings.answered_hosts is not None:
        app.add_middleware(_HostCheck, allowed=service.settings.answered_hosts)
    if counts:
        app.add_middleware(_Count, answered=service.answered)
    return app


class _TableRoute(BaseRoute):
    """All endpoints of the table.

    Starlette's own routes don't fit: they ignore a newline at the end of a path, and add HEAD to
    GET.
    """

    def __init__(self, table: Table, service: Service) -> None:
        self._table = table
        self._service = service

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        found = scope["type"] == "http" and self._table.find(scope["path"])
        if not found:
            return Match.NONE, {}
        endpoint, parameters = found
        return Match.FULL, {"endpoint": endpoint, "path_params": parameters}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not await _has_arrived(receive):
            return
        endpoint = scope["endpoint"]
        request = request_of(
            scope["method"], scope["path_params"], scope["headers"], endpoint.fields
        )
        asking = _Asking(scope)
        endpoint.responder(request.method)(self._service, request, asking.reply)
        answer = await asking.answered
        more = cors_headers(request.origin, self._service.settings.allowed_origins)
        await _AnswerResponse(answer, *more)(scope, receive, send)


class _Asking:
    """A request whose answer is pending, and the client's address."""

    def __init__(self, scope: Scope) -> None:
        self.address = scope["client"][0] if scope.get("client") else ""
        self.answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def reply(self, answer: Answer) -> None:
        if not self.answered.done():
            self.answered.set_result(answer)


async def _has_arrived(receive: Receive) -> bool:
    """Read the request to its end, ignoring the body; return whether the end arrived.

    A request that proves malformed or incomplete must not have stepped.
    """
    while (message := await receive())["type"] == "http.request":
        if not message.get("more_body", False):
            return True
    return False


def _path(scope: Scope) -> str:
    """The path of the endpoint that the request was routed to."""
    endpoint = scope.get("endpoint")
    return endpoint.path if isinstance(endpoint, Endpoint) else ELSEWHERE


class _Count:
    """Counts answers by endpoint path and status."""

    def __init__(self, app: ASGIApp, answered: Mapping[str, list[int]]) -> None:
        self._app = app
        self._answered = answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def count(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._answered[_path(scope)][message["status"]] += 1
            await send(message)

        await self._app(scope, receive, count)


class _HostCheck:
    """Rejects every request whose ``Host`` is not allowed, with 421."""

    def __init__(self, app: ASGIApp, allowed: Collection[str]) -> None:
        self._app = app
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if all(is_allowed_host(host.decode("latin-1"), self._allowed) for host in hosts):
            await self._app(scope, receive, send)
        elif await _has_arrived(receive):
            await _AnswerResponse(answers.misdirected())(scope, receive, send)


class _AnswerResponse(Response):
    """One of our answers as a Starlette response."""

    def __init__(self, answer: Answer, *more: Header) -> None:
        super().__init__(b"".join(answer.body()), answer.status)
        self.raw_headers = [*answer.headers(), *more]
