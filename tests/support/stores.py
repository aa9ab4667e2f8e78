"""Stores at their seam: a sequence in each of them, its keys, and processes that step it.

What a test knows of keys beyond ``Store.advance`` is here: how a store is opened with a small
window, and how the sequence is moved so far on that a key is forgotten.
"""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, Self, TypeAlias

from fibcore.stores import Key, KeyConflictError, Opener, Store, key_of, opener_of

Synchronous: TypeAlias = Literal["full", "normal", "off"]

WINDOW: Final = 1_000
"""The fewest keys that every store can be made to keep."""


@dataclass(frozen=True)
class Place:
    """A sequence in a store, which may not be there yet."""

    url: str
    """``FIB_STORE``."""
    sequence: str = "fibonacci"
    synchronous: Synchronous = "full"

    @property
    def database(self) -> Path | None:
        """The file of an embedded store; None for an engine."""
        scheme, _, rest = self.url.partition(":")
        return Path(rest) if scheme == "sqlite" else None

    def opener(self) -> Opener:
        return opener_of(self.url, self.sequence, self.synchronous, WINDOW)

    def another(self) -> Self:
        """Another sequence, in the same store if that holds several."""
        url = f"{self.url}.2" if self.database else self.url
        return replace(self, url=url, sequence=f"{self.sequence}.2")

    @contextmanager
    def opened(self) -> Iterator[Store]:
        """The open store. Of a file, as in a server that exits at the end of the block."""
        opener = self.opener()
        try:
            opener.stand_by(lambda _: None)
            with closing(opener.open()) as store:
                yield store
        finally:
            self._release()

    @contextmanager
    def created(self, index: int = 0) -> Iterator[Store]:
        """Create the sequence, and open it."""
        assert self.opener().create(index) is None
        with self.opened() as store:
            yield store

    @property
    def index(self) -> int:
        """The committed index."""
        description = self.opener().describe()
        assert description.problem is None, description.problem
        return description.index

    def _release(self) -> None:
        # Only the end of a server releases the lock of a file.
        lock = f"{self.database}.lock"
        for each in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):
                if str(each.readlink()) == lock:
                    os.close(int(each.name))


def file_at(database: Path, synchronous: Synchronous = "full") -> Place:
    """The embedded store in ``database``."""
    return Place(f"sqlite:{database}", synchronous=synchronous)


# Keys

_numbers: Final = itertools.count()


def key(since: int = 0) -> Key:
    """A key that was never used, by a client that has seen the index ``since``."""
    made = key_of(b'"%d:%022d"' % (since, next(_numbers)))
    assert made is not None
    return made


def step(store: Store, *keys: Key) -> int:
    """Make one step per key, in one batch; return the index after it."""
    return store.advance(len(keys), keys={each: place for place, each in enumerate(keys, 1)})


def outcomes(store: Store, *keys: Key) -> dict[Key, int | None]:
    """What the store knows of keys that are not new: their outcomes, None if rejected."""
    try:
        step(store, *keys)
    except KeyConflictError as conflict:
        return dict(conflict.found)
    raise AssertionError("they were new")


def outcome(store: Store, one: Key) -> int | None:
    """The outcome of a key that is not new; None if it is rejected."""
    found = outcomes(store, one)
    assert found.keys() == {one}
    return found[one]


def forget_keys(store: Store) -> None:
    """Move the sequence so far on that the keys of before are under the floor."""
    for _ in range(4):
        index = store.read()
        step(store, *(key(index) for _ in range(WINDOW)))
    store.advance(1)


# Processes

PROGRAM: Final = """
import sys
from fibcore.stores import opener_of
url, sequence, synchronous, window, steps, pause = sys.argv[1:]
opener = opener_of(url, sequence, synchronous, int(window))
if pause == "pause":
    print("ready", flush=True)
    sys.stdin.readline()
opener.stand_by(lambda _: None)
store = opener.open()
for _ in range(int(steps)):
    print(store.advance(1), flush=True)
store.close()
"""


class Writer:
    """A process that opens a store and steps it, printing each index; then it exits.

    Args:
        place: where; the sequence exists, or the store is a file.
        steps: how many.
        paused: it waits for ``go`` before it opens the store.
    """

    def __init__(self, place: Place, steps: int, *, paused: bool = False) -> None:
        told = (place.url, place.sequence, place.synchronous, WINDOW, steps)
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *map(str, told), "pause" if paused else ""],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if paused:
            assert self._line() == "ready\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.process.communicate()

    def go(self) -> None:
        """Let it go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def index(self) -> int:
        """Wait for its next index."""
        return int(self._line())

    def kill(self) -> None:
        """Kill it, if it still runs."""
        self.process.kill()

    def rest(self) -> list[int]:
        """The indexes that it has yet to print, until it has ended."""
        assert self.process.stdout is not None
        found = [int(line) for line in self.process.stdout]
        self.process.wait()
        return found

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()
