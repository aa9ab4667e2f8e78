"""Steppers of nodes run on an event loop with simulated time."""

from collections.abc import Iterator

import pytest

from tests.support.connections import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()
