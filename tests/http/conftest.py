"""An event loop for connections without sockets, which stops when nothing is left to do."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.connections import Loop
from tests.support.served import Service


@pytest.fixture
def loop() -> Iterator[Loop]:
    """An event loop whose callbacks must not fail; the services on it are closed at the end."""
    loop = Loop()
    failed: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: failed.append(context))
    yield loop
    while Service.opened:
        Service.opened[-1].close()
    loop.close()
    assert failed == []
