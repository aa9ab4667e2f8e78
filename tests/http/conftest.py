"""Connections without sockets need a loop that ends when there is nothing left to do."""

from collections.abc import Iterator

import pytest

from tests.support.connections import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()
