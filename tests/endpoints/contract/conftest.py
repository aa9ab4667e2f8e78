"""The servers that the contract is tested with.

With ``--base-url`` it is a running server, at any index. Otherwise they are servers at
several indexes, and for each shared store three nodes behind a load balancer, where each connection
reaches another node.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import NamedTuple

import pytest

from tests.conftest import Engines
from tests.support.engines import ENGINES, Engine
from tests.support.implementations import serving
from tests.support.nodes import Nodes
from tests.support.proxy import Proxy
from tests.support.servers import Client

NODES = 3

STARTS = [0, 92, 30_000]
"""Small numbers, both sides of 64 bits, and more than the 4,300 digits that Python converts."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "url" in metafunc.fixturenames:
        given = metafunc.config.getoption("--base-url")
        places: list[object] = [given]
        if given is None:
            places = [*STARTS]
            places += [Shared(kind, NODES) for kind in ENGINES]
        metafunc.parametrize("url", places, indirect=True, scope="package", ids=str)


class Shared(NamedTuple):
    """Several nodes behind a load balancer."""

    engine: type[Engine]
    nodes: int

    def __str__(self) -> str:
        return f"{self.engine.__name__.lower()}-{self.nodes}"


@pytest.fixture(scope="package")
def url(
    request: pytest.FixtureRequest, engines: Engines, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    place, folder = request.param, tmp_path_factory.mktemp("contract")
    if isinstance(place, str):
        yield place
    elif isinstance(place, Shared):
        with ExitStack() as stack:
            nodes = Nodes(engines(place.engine), folder, stack, first=92)
            servers = [nodes.start() for _ in range(place.nodes)]
            ports = (each.wait_until_it_serves().client.port for each in servers)
            yield f"http://127.0.0.1:{stack.enter_context(Proxy(*ports)).port}"
    else:
        with serving(folder, place) as client:
            yield f"http://{client.host}:{client.port}"


@pytest.fixture
def client(url: str) -> Client:
    return Client(url)


@pytest.fixture
def methods(client: Client) -> dict[str, set[str]]:
    """Each path of the served document, with its methods; a preflight's aside."""
    paths = json.loads(client.get("/openapi.json").body)["paths"]
    return {path: {each.upper() for each in paths[path]} - {"OPTIONS"} for path in paths}


@pytest.fixture
def no_step_paths(methods: dict[str, set[str]]) -> list[str]:
    """An example of each path, but for that which steps."""
    return [path.replace("{index}", "7") for path in methods if path != "/next"]


NoStep = Callable[[], AbstractContextManager[int]]


@pytest.fixture
def no_step(client: Client) -> NoStep:
    """``with no_step() as index:`` asserts that the index is the same afterwards."""

    @contextmanager
    def check() -> Iterator[int]:
        # Each node reads the index: a rejection shows the last one that its node has read.
        before = [client.index for _ in range(NODES)][-1]
        yield before
        assert client.index == before

    return check
