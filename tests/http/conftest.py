"""Connections without sockets need a loop that ends when there is nothing left to do."""

from collections.abc import Iterator

import pytest

from tests.support.connections import Loop
from tests.support.served import Service


@pytest.fixture
def loop() -> Iterator[Loop]:
    """An event loop; the services on it are closed at the end."""
    loop = Loop()
    yield loop
    while Service.opened:
        Service.opened[-1].close()
    loop.close()
