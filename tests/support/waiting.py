"""How tests wait: for an event, with a deadline that only a failing test reaches."""

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
"""Seconds for anything that should happen at once: only a failing test waits this long."""


def until(
    condition: Callable[[], bool], what: str | Callable[[], str], seconds: float = PATIENCE
) -> None:
    """Return once ``condition`` holds: for events that can't be waited for otherwise.

    Args:
        condition: polled.
        what: does not happen, where it comes to that; or what says so then.
        seconds: until it fails.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            said = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {seconds:g} s: {said}")
        time.sleep(0.01)


def until_ended(*pids: int) -> None:
    """Return when all of these processes have ended; see ``is_alive``."""
    until(lambda: not any(map(is_alive, pids)), f"processes {pids} have ended")


async def until_idle() -> None:
    """Run the event loop until nothing is ready."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(0)
    while loop._ready:  # type: ignore[attr-defined]
        await asyncio.sleep(0)


def is_alive(pid: int) -> bool:
    """Whether a process is running; a zombie is not."""
    return not states(pid) <= {"Z", "X"}


def states(pid: int) -> set[str]:
    """The states of a process's threads, by their letters in ``/proc``; none if it is gone."""
    found = set()
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.add(path.read_text().rpartition(")")[2].split()[0])
    return found


def in_a_loop(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an async test, with its fixtures, bounded in time."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(PATIENCE):
                await test(*args, **kwargs)

        asyncio.run(bounded())

    return run


class Log:
    """A log that is being written; each search begins after the last match."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0

    @property
    def text(self) -> str:
        """All of it."""
        try:
            return self._path.read_text()
        except FileNotFoundError:
            return ""

    def find(self, pattern: str) -> re.Match[str] | None:
        """Search the present text for ``pattern``, after the last match."""
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
        """Search only what is written from now on."""
        self._position = len(self.text)
