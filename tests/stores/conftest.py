"""Shared by tests of stores: stores of a sequence in a real engine."""

import uuid
from collections.abc import Iterator
from contextlib import closing

import pytest

from fibcore.stores.engine import EngineOpener, EngineStore
from tests.support.engine_stores import opener
from tests.support.engines import Engine
from tests.support.proxy import Proxy


@pytest.fixture
def sequence() -> str:
    return f"test-{uuid.uuid4()}"


@pytest.fixture
def made(engine: Engine, sequence: str) -> EngineOpener:
    """A new sequence, at 0."""
    opened = opener(engine, sequence)
    assert opened.create(0) is None
    return opened


@pytest.fixture
def store(made: EngineOpener) -> Iterator[EngineStore]:
    with closing(made.open()) as store:
        yield store


@pytest.fixture
def proxy(engine: Engine) -> Iterator[Proxy]:
    with Proxy(engine.port) as proxy:
        yield proxy


@pytest.fixture
def far(engine: Engine, made: EngineOpener, sequence: str, proxy: Proxy) -> Iterator[EngineStore]:
    """Another store on the sequence, behind the proxy."""
    assert made.where
    with closing(opener(engine, sequence, proxy.port).open()) as far:
        yield far
