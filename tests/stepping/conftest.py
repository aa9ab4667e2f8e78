"""A stepper of a node lives on an event loop of the test's own time."""

from collections.abc import Iterator

import pytest

from tests.support.connections import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()
