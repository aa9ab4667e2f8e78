"""Servers whose commits a test holds up: one on a file, and a node of an engine."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.conftest import Engines
from tests.support.engines import Redis
from tests.support.limits import Served, limited
from tests.support.nodes import Nodes
from tests.support.proxy import Proxy
from tests.support.raw_clients import locked

Kind = Literal["file", "engine"]


class Held:
    """A server, and ``commits()``: a context in which none of its commits is replied to."""

    def __init__(self, served: Served, commits: Callable[[], AbstractContextManager[Any]]) -> None:
        self.served = served
        self.commits = commits


class Node(Held):
    """A node of a sequence in Redis, behind a proxy."""

    def __init__(self, redis: Redis, folder: Path, stack: ExitStack, **settings: str) -> None:
        self.redis = redis
        self.proxy = stack.enter_context(Proxy(redis.port))
        self.nodes = Nodes(redis, folder, stack)
        named = {f"FIB_{name}": value for name, value in settings.items()}
        server = self.nodes.start(redis.url_at(self.proxy.port), settings=named)
        served = Served(server.wait_until_it_serves(), stack)
        super().__init__(served, partial(self.delayed, "requests"))

    @contextmanager
    def delayed(self, direction: Literal["requests", "replies"]) -> Iterator[None]:
        """What is sent in this direction arrives at the end."""
        self.proxy.hold(direction)
        yield
        self.proxy.heal()


Start = Callable[..., Held]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def node(engines: Engines, tmp_path: Path, stack: ExitStack) -> Node:
    return Node(engines(Redis), tmp_path, stack)


@pytest.fixture(params=["file", "engine"])
def start(request: pytest.FixtureRequest, tmp_path: Path, stack: ExitStack) -> Start:
    """Starts a server with settings such as ``MAX_INDEX="2"``."""

    def on_a_file(**settings: Any) -> Held:
        served = stack.enter_context(limited(tmp_path, **settings))
        return Held(served, partial(locked, tmp_path / "fibcore.db"))

    if request.param == "file":
        return on_a_file
    engines: Engines = request.getfixturevalue("engines")
    return partial(Node, engines(Redis), tmp_path, stack)
