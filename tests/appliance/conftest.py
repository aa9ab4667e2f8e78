"""A log that goes into a pipe."""

import contextlib
import logging
import os
import re
from collections.abc import Iterator

import pytest

from fibcore.appliance.logs import Log
from tests.support.waiting import until


class Pipe:
    """A log that goes into a pipe, with simulated time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        self.log = Log(logging.Formatter("%(levelname)s %(message)s"), self._write_end, self.time)
        self.logger = logging.Logger("test")
        self.logger.addHandler(self.log)
        self.text = ""

    def time(self) -> float:
        return self.now

    def read(self) -> str:
        """Everything written so far."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._read_end, 2**16):
                self.text += data.decode()
        return self.text

    def read_until(self, pattern: str) -> str:
        until(lambda: re.search(pattern, self.read()) is not None, f"it says {pattern}")
        return self.text

    def close(self) -> None:
        os.close(self._read_end)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    with contextlib.closing(Pipe()) as pipe:
        yield pipe
