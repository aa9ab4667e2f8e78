"""The Starlette application: the table of endpoints, and errors as RFC 9457 has them."""

import asyncio

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from web import answers
from web.answers import Answer
from web.endpoints import ENDPOINTS, Endpoint, Request
from web.negotiation import EntityTags, is_prefetch, preferred
from web.service import Service

__all__ = ["create_app"]


def create_app(service: Service) -> Starlette:
    """The application that offers ``service``, which the caller starts and stops."""
    app = Starlette(
        routes=[Route(each.path, _Adapter(each, service)) for each in ENDPOINTS],
        exception_handlers={HTTPException: _http_error, Exception: _server_error},
    )
    # A redirect from /next/ to /next would make a client step that meant something else.
    app.router.redirect_slashes = False
    return app


class _Adapter:
    """An endpoint as an ASGI application.

    Not a function, so that Starlette hands the request over as it is: no HEAD is added to GET,
    and the pieces of the body are sent as they are.
    """

    def __init__(self, endpoint: Endpoint, service: Service) -> None:
        self._endpoint = endpoint
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoint
        if not await _has_arrived(receive):
            return
        if scope["method"] not in endpoint.methods:
            state = self._service.state if endpoint.number else None
            answer = answers.method_not_allowed(
                scope["method"],
                endpoint.path,
                endpoint.methods,
                index=None if state is None else state.index,
                cache_control=endpoint.cache_control,
            )
        else:
            answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

            def reply(answer: Answer) -> None:
                if not answered.done():
                    answered.set_result(answer)

            endpoint.respond(self._service, _request_of(scope), reply)
            answer = await answered
        await _send(answer, scope, send)


async def _has_arrived(receive: Receive) -> bool:
    """Wait for the end of the request, whose body says nothing here; tell whether it came.

    A request that turns out malformed, or that ends half-way, must not have stepped.
    """
    while (message := await receive())["type"] == "http.request":
        if not message.get("more_body", False):
            return True
    return False


def _request_of(scope: Scope) -> Request:
    headers = Headers(scope=scope)

    def tags(name: str) -> EntityTags | None:
        values = headers.getlist(name)
        return EntityTags(values) if values else None

    return Request(
        representation=preferred(headers.getlist("accept")),
        if_match=tags("if-match"),
        if_none_match=tags("if-none-match"),
        prefetch=is_prefetch(headers.getlist("sec-purpose") + headers.getlist("purpose")),
    )


async def _send(answer: Answer, scope: Scope, send: Send) -> None:
    # Our own connection counts what is not sent yet; another server need not.
    hold = scope.get("extensions", {}).get("fibcore", {}).get("hold")
    if hold is not None:
        for piece in answer.body:
            hold(piece)
    await send(
        {"type": "http.response.start", "status": answer.status, "headers": list(answer.headers)}
    )
    *pieces, last = answer.body or (b"",)
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": last})


class _Problem(Response):
    """An answer of our own where Starlette wants a response."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(b"".join(answer.body), answer.status)
        self.raw_headers = list(answer.headers)


async def _http_error(request: StarletteRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    paths = ", ".join(endpoint.path for endpoint in ENDPOINTS)
    return _Problem(
        answers.problem(
            error.status_code,
            f"There is nothing at {request.url.path}. Nothing has stepped. The paths are {paths}.",
        )
    )


async def _server_error(request: StarletteRequest, error: Exception) -> Response:  # noqa: ARG001
    return _Problem(
        answers.problem(
            500,
            "The server has failed at this request; its log says why. A step may have been made: "
            "ask /current where the sequence stands.",
        )
    )
