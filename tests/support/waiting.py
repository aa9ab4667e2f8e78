"""Waiting in tests: for an event, with a timeout that only a failing test reaches."""

import asyncio
import contextlib
import functools
import os
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, ParamSpec

P = ParamSpec("P")

PATIENCE: Final = float(os.environ.get("TESTS_PATIENCE", "60"))
"""Timeout, seconds. Only a failing test waits this long."""


def until(
    condition: Callable[[], bool], what: str | Callable[[], str], seconds: float = PATIENCE
) -> None:
    """Poll until ``condition`` holds, for events that can't be awaited otherwise.

    Args:
        condition: polled.
        what: the expected event, for the error message; or a function that returns it.
        seconds: the timeout.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            text = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {seconds:g} s: {text}")
        time.sleep(0.01)


def until_ended(*pids: int) -> None:
    """Wait until all of these processes have ended; see ``is_alive``."""
    until(lambda: not any(map(is_alive, pids)), f"processes {pids} have ended")


def is_alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    return not states(pid) <= {"Z", "X"}


def states(pid: int) -> set[str]:
    """Return the state letters of a process's threads, as in ``/proc``; empty if it is gone."""
    found = set()
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.add(path.read_text().rpartition(")")[2].split()[0])
    return found


def in_a_loop(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an async test with its fixtures and a timeout."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(PATIENCE):
                await test(*args, **kwargs)

        asyncio.run(bounded())

    return run


class Log:
    """A growing log; each search starts after the last match."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0

    @property
    def text(self) -> str:
        try:
            return self._path.read_text()
        except FileNotFoundError:
            return ""

    def find(self, pattern: str) -> re.Match[str] | None:
        """Search the current text for ``pattern``, after the last match."""
        match = re.compile(pattern).search(self.text, self._position)
        if match:
            self._position = match.end()
        return match

    def expect(self, pattern: str, seconds: float = PATIENCE) -> re.Match[str]:
        """Wait for ``pattern`` after the last match."""
        found: list[re.Match[str]] = []

        def is_there() -> bool:
            if match := self.find(pattern):
                found.append(match)
            return bool(found)

        until(
            is_there,
            lambda: f"{pattern}, in {self._path.name}:\n{self.text[self._position :]}",
            seconds,
        )
        return found[0]

    def skip(self) -> None:
        """Ignore everything written so far."""
        self._position = len(self.text)
