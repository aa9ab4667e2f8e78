"""What is used of uvicorn beyond its documented interface: what has moved when the pin is raised.

Its minor version is pinned. To raise it is to change ``pyproject.toml``, run ``make lock``, and see
what these tests say: each names what has moved, and where it is used.
"""

import ast
import asyncio
import importlib
import importlib.metadata
import inspect
import logging
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from tests.support.connections import Loop
from tests.support.fake_stores import FakeStore
from tests.support.in_process import PLAIN_APPLICATION, InProcessService
from tests.support.servers import listening_socket
from tests.support.waiting import in_a_loop

TOP: Final = Path(__file__).parents[2]
ACCESS_LOG: Final = "web/http/access_log.py"
ASGI: Final = "web/http/asgi.py"
PROTOCOL: Final = "web/http/protocol.py"
SERVER: Final = "web/server.py"

CYCLE: Final = (
    "scope",
    "transport",
    "flow",
    "logger",
    "access_logger",
    "access_log",
    "default_headers",
    "message_event",
    "expect_100_continue",
    "keep_alive",
    "on_response",
)

USED: Final = {
    "uvicorn.protocols.http.flow_control.FlowControl": (ASGI, "transport"),
    "uvicorn.protocols.http.httptools_impl.RequestResponseCycle": (ASGI, " ".join(CYCLE)),
    "uvicorn.middleware.proxy_headers.ProxyHeadersMiddleware": (ACCESS_LOG, "app trusted_hosts"),
    "uvicorn.protocols.utils.get_client_addr": (ACCESS_LOG, "scope"),
    "uvicorn.protocols.utils.get_local_addr": (ASGI, "transport"),
    "uvicorn.protocols.utils.get_remote_addr": (ASGI, "transport"),
    "uvicorn.protocols.utils.is_ssl": (ASGI, "transport"),
    "uvicorn.server.ServerState": (PROTOCOL, ""),
}
"""Each name that is imported from within uvicorn: where it is used, and what it takes."""


def moved(what: str, where: str) -> str:
    return f"uvicorn {uvicorn.__version__}: {what} has moved, and {where} uses it"


async def nothing(scope: object, receive: object, send: object) -> None:  # noqa: ARG001
    raise AssertionError("no request is made")


def test_the_minor_version_is_pinned_to_the_one_tested_here() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    (pin,) = (each for each in project["dependencies"] if each.startswith("uvicorn"))
    major, minor = map(int, importlib.metadata.version("uvicorn").split(".")[:2])
    assert pin == f"uvicorn>={major}.{minor},<{major}.{minor + 1}"


def test_every_name_from_within_uvicorn_is_in_the_list() -> None:
    imported = set()
    for file in sorted((TOP / "web").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("uvicorn"):
                imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    assert imported == USED.keys()


@pytest.mark.parametrize("name", USED)
def test_each_name_is_there_and_takes_what_it_is_given(name: str) -> None:
    where, taken = USED[name]
    module, _, attribute = name.rpartition(".")
    found = getattr(importlib.import_module(module), attribute, None)
    assert found is not None, moved(name, where)
    takes = inspect.signature(found).parameters
    assert list(takes) == taken.split(), moved(f"what {name} takes", where)


def test_a_protocol_counts_itself_in_the_state_of_a_server() -> None:
    kept = vars(ServerState())
    wanted: dict[str, object] = {"connections": set(), "tasks": set(), "default_headers": []}
    for name, value in wanted.items():
        assert kept.get(name) == value, moved(f"ServerState.{name}", PROTOCOL)


def test_a_configuration_holds_what_a_protocol_reads_in_it() -> None:
    config = uvicorn.Config(nothing, lifespan="off", log_config=None, root_path="/a")
    config.load()
    for name in ("access_log", "asgi_version", "http_protocol_class", "loaded_app", "root_path"):
        assert getattr(config, name, None) is not None, moved(f"Config.{name}", ASGI)


def cycle_on(
    transport: asyncio.Transport, flow: FlowControl, on_response: Callable[[], None]
) -> RequestResponseCycle:
    given = {
        "scope": {"type": "http", "method": "GET"},
        "transport": transport,
        "flow": flow,
        "logger": logging.getLogger("uvicorn.error"),
        "access_logger": logging.getLogger("uvicorn.access"),
        "access_log": False,
        "default_headers": [(b"a", b"b")],
        "message_event": asyncio.Event(),
        "expect_100_continue": False,
        "keep_alive": True,
        "on_response": on_response,
    }
    assert tuple(given) == CYCLE
    return RequestResponseCycle(**given)  # type: ignore[arg-type]


@in_a_loop
async def test_a_cycle_hands_on_its_body_and_says_when_it_is_over() -> None:
    messages: list[Any] = []
    answered: list[bool] = []
    written: list[bytes] = []

    class Transport(asyncio.Transport):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            written.append(bytes(data))

        def close(self) -> None:
            written.append(b"closed")

    async def app(_: Any, receive: Any, send: Any) -> None:
        messages.append(await receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"answer"})
        messages.append(await receive())

    transport = Transport()
    cycle = cycle_on(transport, FlowControl(transport), lambda: answered.append(True))
    cycle.body += b"body"
    cycle.more_body = False
    cycle.message_event.set()
    cycle.keep_alive = False
    await cycle.run_asgi(app)
    assert messages == [
        {"type": "http.request", "body": b"body", "more_body": False},
        {"type": "http.disconnect"},
    ], moved("what RequestResponseCycle hands on", ASGI)
    assert answered == [True], moved("RequestResponseCycle.on_response", ASGI)
    head = b"HTTP/1.1 200 OK\r\na: b\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    assert written == [head, b"6\r\nanswer\r\n0\r\n\r\n", b"closed"]


@in_a_loop
async def test_a_cycle_whose_client_is_gone_tells_the_application() -> None:
    transport = asyncio.Transport()
    flow = FlowControl(transport)
    flow.pause_writing()
    cycle = cycle_on(transport, flow, lambda: None)
    told = asyncio.Event()

    async def app(_: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.disconnect"
        # It does not wait for a client that is gone.
        await send({"type": "http.response.start", "status": 200, "headers": []})
        told.set()

    task = asyncio.create_task(cycle.run_asgi(app))
    cycle.disconnected = True
    cycle.message_event.set()
    flow.resume_writing()
    await task
    assert told.is_set(), moved("RequestResponseCycle.disconnected", ASGI)


@in_a_loop
async def test_a_server_makes_protocols_so_and_has_them_shut_down() -> None:
    connected: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    told_to_stop = asyncio.Event()

    class Protocol(asyncio.Protocol):
        def __init__(self, **given: Any) -> None:
            self.given = given

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport
            self.given["server_state"].connections.add(self)
            connected.set_result(self.given)

        def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
            self.given["server_state"].connections.discard(self)

        def shutdown(self) -> None:
            told_to_stop.set()
            self.transport.close()

    config = uvicorn.Config(nothing, http=Protocol, lifespan="off", log_config=None)
    config.load()
    server = uvicorn.Server(config)
    # Not ``serve``, which takes the signals over.
    with listening_socket() as listener:
        serving = asyncio.create_task(server._serve([listener]))
        _, writer = await asyncio.open_connection(*listener.getsockname())
        given = await connected
        assert set(given) == {"config", "server_state", "app_state", "_loop"}, moved(
            "what a server makes a protocol with", PROTOCOL
        )
        assert given["config"] is config
        assert given["app_state"] == {}
        state = given["server_state"]
        headers = state.default_headers
        assert [name for name, _ in headers] == [b"date", b"server"]
        await server.on_tick(0)
        assert state.default_headers is not headers, moved(
            "that a server makes the list of its headers anew", "web/http/hub.py"
        )
        server.should_exit = True
        await serving
    assert told_to_stop.is_set(), moved("that a server has its connections shut down", PROTOCOL)
    writer.close()


def test_a_server_takes_its_signals_with_a_method_of_this_name() -> None:
    takes = inspect.signature(uvicorn.Server.handle_exit).parameters
    assert list(takes) == ["self", "sig", "frame"], moved("Server.handle_exit", SERVER)
    server = uvicorn.Server(uvicorn.Config(nothing, log_config=None))
    for name in ("should_exit", "force_exit"):
        assert getattr(server, name, None) is False, moved(f"Server.{name}", SERVER)
    assert "sockets" in inspect.signature(server.serve).parameters, moved("Server.serve", SERVER)


def test_a_peer_of_a_socket_is_told_by_these_functions() -> None:
    utils = importlib.import_module("uvicorn.protocols.utils")
    loop = Loop()
    served = InProcessService(loop, PLAIN_APPLICATION, FakeStore(loop))
    connection = served.connect()
    assert utils.get_remote_addr(connection) == ("192.0.2.1", 4711)
    assert utils.get_local_addr(connection) == ("192.0.2.2", 80)
    assert utils.is_ssl(connection) is False
    scope = {"client": ("192.0.2.1", 4711), "path": "/a b", "query_string": b"c"}
    assert utils.get_client_addr(scope) == "192.0.2.1:4711"
    assert utils.get_path_with_query_string(scope) == "/a%20b?c"
    served.close()
    loop.close()
