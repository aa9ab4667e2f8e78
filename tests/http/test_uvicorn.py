"""The parts of uvicorn that are used beyond its documented interface.

Its minor version is pinned. To raise it, change ``pyproject.toml``, run ``make lock``, and run
these tests: each names what has changed, and where it is used.
"""

import ast
import importlib
import importlib.metadata
import inspect
import tomllib
from pathlib import Path
from typing import Final

import pytest
import uvicorn
from uvicorn.server import ServerState

TOP: Final = Path(__file__).parents[2]
ACCESS_LOG: Final = "web/http/access_log.py"
ASGI: Final = "web/http/asgi.py"
PROTOCOL: Final = "web/http/protocol.py"
SERVER: Final = "web/server.py"

USED: Final = {
    "uvicorn.middleware.proxy_headers.ProxyHeadersMiddleware": (ACCESS_LOG, "app trusted_hosts"),
    "uvicorn.protocols.utils.get_client_addr": (ACCESS_LOG, "scope"),
    "uvicorn.protocols.utils.get_remote_addr": (ACCESS_LOG, "transport"),
    "uvicorn.server.ServerState": (PROTOCOL, ""),
}
"""Each name that is imported from within uvicorn, with its user and its parameters."""


def moved(what: str, where: str) -> str:
    return f"uvicorn {uvicorn.__version__}: {what} has moved, and {where} uses it"


async def nothing(scope: object, receive: object, send: object) -> None:  # noqa: ARG001
    raise AssertionError("no request is made")


def test_the_minor_version_is_pinned_to_the_one_tested_here() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    (pin,) = (each for each in project["dependencies"] if each.startswith("uvicorn"))
    major, minor = map(int, importlib.metadata.version("uvicorn").split(".")[:2])
    assert pin == f"uvicorn>={major}.{minor},<{major}.{minor + 1}"


def test_every_internal_name_of_uvicorn_is_listed() -> None:
    imported = set()
    for file in sorted((TOP / "web").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("uvicorn"):
                imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    assert imported == USED.keys()


@pytest.mark.parametrize("name", USED)
def test_each_name_of_uvicorn_exists_with_its_parameters(name: str) -> None:
    where, taken = USED[name]
    module, _, attribute = name.rpartition(".")
    found = getattr(importlib.import_module(module), attribute, None)
    assert found is not None, moved(name, where)
    takes = inspect.signature(found).parameters
    assert list(takes) == taken.split(), moved(f"what {name} takes", where)


def test_a_protocol_registers_itself_with_the_server() -> None:
    kept = vars(ServerState())
    wanted: dict[str, object] = {"connections": set(), "tasks": set(), "default_headers": []}
    for name, value in wanted.items():
        assert kept.get(name) == value, moved(f"ServerState.{name}", PROTOCOL)


def test_a_configuration_has_the_attributes_that_a_protocol_uses() -> None:
    config = uvicorn.Config(nothing, lifespan="off", log_config=None, root_path="/a")
    config.load()
    for name in ("access_log", "asgi_version", "http_protocol_class", "loaded_app", "root_path"):
        assert getattr(config, name, None) is not None, moved(f"Config.{name}", ASGI)


def test_a_server_handles_signals_in_this_method() -> None:
    takes = inspect.signature(uvicorn.Server.handle_exit).parameters
    assert list(takes) == ["self", "sig", "frame"], moved("Server.handle_exit", SERVER)
    server = uvicorn.Server(uvicorn.Config(nothing, log_config=None))
    for name in ("should_exit", "force_exit"):
        assert getattr(server, name, None) is False, moved(f"Server.{name}", SERVER)
    assert "sockets" in inspect.signature(server.serve).parameters, moved("Server.serve", SERVER)
