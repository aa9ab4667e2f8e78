"""What a power cut could leave of a recorded folder, and what the product makes of it.

A disk keeps what was synced. Of what was written since, it may have any part: each page and each
name survives or does not. After a failed sync the kernel takes what was written for synced, so it
stays uncertain until it is written again.
"""

import itertools
import os
import random
import subprocess
import sys
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from tests.crash.record import Operation

DATABASE: Final = "fibcore.db"

PAGE: Final = 4096

MEMORY: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where images are written: nothing needs to reach a disk here."""

AT_ONCE: Final = 100
"""Images that one process opens."""

BOOTED: Final = [
    *("unshare", "--map-root-user", "--mount", "sh", "-c"),
    'mount --bind "$BOOT" /proc/sys/kernel/random/boot_id && exec "$@"',
    "sh",
]
"""How a command is run on a machine that was booted."""

CLOSE: Final = 6
"""So many writes after another operation are each followed by images, then every thirtieth."""

Survives = Callable[[], bool]


class Change:
    """One page that was written, or a truncation (without data)."""

    def __init__(self, at: int, data: bytes | None) -> None:
        self.at, self.data = at, data
        self.is_sure = self.has_failed = False

    def apply(self, content: bytearray) -> None:
        end = self.at if self.data is None else self.at + len(self.data)
        content.extend(bytes(max(0, end - len(content))))
        if self.data is None:
            del content[self.at :]
        else:
            content[self.at : end] = self.data


class File:
    def __init__(self) -> None:
        self._base = bytearray()
        self._changes: list[Change] = []

    def write(self, at: int, data: bytes) -> None:
        parts = range(0, len(data), PAGE)
        self._changes += (Change(at + part, data[part : part + PAGE]) for part in parts)

    def truncate(self, size: int) -> None:
        self._changes.append(Change(size, None))

    def sync(self, *, fails: bool) -> None:
        for each in self._changes:
            each.has_failed = each.has_failed or (fails and not each.is_sure)
            each.is_sure = not each.has_failed
        while self._changes and self._changes[0].is_sure:
            self._changes.pop(0).apply(self._base)

    def content(self, survives: Survives) -> bytes:
        content = bytearray(self._base)
        for each in self._changes:
            if each.is_sure or survives():
                each.apply(content)
        return bytes(content)


class Disk:
    """The folder."""

    def __init__(self) -> None:
        self._files: dict[str, File] = {}
        self._synced: dict[str, File] = {}
        self._renamed: list[dict[str, File | None]] = []
        """Changes of names that are not synced."""

    def do(self, it: Operation) -> None:
        match it.kind:
            case "create" | "replace":
                if it.name not in self._files:
                    self._name({it.name: File()})
                if it.kind == "replace":
                    self._files[it.name].truncate(0)
            case "rename":
                self._name({it.target: self._files[it.name], it.name: None})
            case "unlink":
                self._name({it.name: None})
            case "write":
                self._files[it.name].write(it.at, it.data)
            case "truncate":
                self._files[it.name].truncate(it.at)
            case "sync" | "failed sync":
                if it.name != ".":
                    self._files[it.name].sync(fails=it.kind == "failed sync")
                elif it.kind == "sync":
                    self._synced, self._renamed = dict(self._files), []

    def _name(self, change: dict[str, File | None]) -> None:
        self._renamed.append(change)
        _apply(change, self._files)

    def left(self, survives: Survives) -> dict[str, bytes]:
        """What a power cut could leave now."""
        names = dict(self._synced)
        for change in self._renamed:
            if survives():
                _apply(change, names)
        return {name: file.content(survives) for name, file in names.items()}


def _apply(change: dict[str, File | None], names: dict[str, File]) -> None:
    for name, file in change.items():
        if file is None:
            names.pop(name, None)
        else:
            names[name] = file


class Promise(NamedTuple):
    """Between which indexes a database or a copy must be."""

    low: int
    high: int
    may_be_invalid: bool = False
    since: int = -1
    """The index from which the last batch with keys was sent."""

    def after(self, it: Operation) -> "Promise":
        """Take in a line of a report."""
        match it.kind:
            case "begin":
                return self._replace(low=min(self.low, it.at), high=max(self.high, it.at))
            case "setting":  # An index by a person, who may lower it.
                return Promise(min(self.low, it.at), max(self.high, it.at), True, self.since)
            case "done":
                return Promise(it.at, it.at, since=self.since)
            case "kept":  # In a copy.
                return self._replace(low=it.at)
            case "keyed":
                return self._replace(since=it.at)
        raise AssertionError(it)


NO_COPY: Final = Promise(0, 0, may_be_invalid=True)
REPORTS: Final = ("begin", "setting", "done", "kept", "keyed")
Promises = dict[str, Promise]


class Image(NamedTuple):
    moment: int
    """The number of operations before it."""
    files: dict[str, bytes]
    promises: Promises


def promised(operations: Iterable[Operation]) -> Promises:
    promises = defaultdict(lambda: NO_COPY, {DATABASE: Promise(0, 0)})
    for it in operations:
        if it.kind in REPORTS:
            promises[it.name] = promises[it.name].after(it)
    return dict(promises)


def images(operations: list[Operation], seed: int = 0) -> Iterator[Image]:
    """Yield four images after each operation, without those that were yielded before."""
    choice = random.Random(seed)
    disk, seen, writes = Disk(), set[int](), 0
    for moment, it in enumerate(operations, 1):
        if it.kind not in REPORTS:
            disk.do(it)
        writes = writes + 1 if it.kind == "write" else 0
        if writes > CLOSE and writes % 30:
            continue
        promises = promised(operations[:moment])
        share = choice.random()
        for chance in (0, 1, share, share):
            files = disk.left(lambda chance=chance: choice.random() < chance)  # type: ignore[misc]
            known = hash((frozenset(files.items()), frozenset(promises.items())))
            if known not in seen:
                seen.add(known)
                yield Image(moment, files, promises)


def left(database: Path, operations: Iterable[Operation]) -> Image:
    """What a process has left that did ``operations`` and was killed: nothing is lost then."""
    files = {each.name: each.read_bytes() for each in database.parent.iterdir()}
    return Image(0, files, promised(operations))


class Verdict(NamedTuple):
    """What the product finds in all images."""

    images: int = 0
    lost: int = 0
    invalid: int = 0
    beyond: int = 0
    """At an index that nobody has asked for."""
    first: str = ""
    """What was wrong first."""


def judge(made: Iterable[Image], *, booted: bool = True) -> Verdict:
    """Open all images, each in a folder of its own.

    Args:
        booted: whether the machine was, as after a power cut.
    """
    verdict, made = Verdict(), iter(made)
    while some := list(itertools.islice(made, AT_ONCE)):
        with TemporaryDirectory(dir=MEMORY) as folder:
            verdict = _judged(verdict, some, Path(folder), BOOTED if booted else [])
    return verdict


def _judged(verdict: Verdict, made: list[Image], folder: Path, prefix: list[str]) -> Verdict:
    (folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
    asked = []
    for number, image in enumerate(made):
        place = folder / str(number)
        place.mkdir()
        for name, data in image.files.items():
            (place / name).write_bytes(data)
        # The database last: to open it changes files.
        names = sorted(image.promises, key=lambda name: name == DATABASE)
        asked += [(image, name, f"{place / name}\t{image.promises[name].since}") for name in names]
    answers = subprocess.run(
        [*prefix, sys.executable, "-m", "tests.crash.opened", DATABASE],
        input="\n".join(line for *_, line in asked),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "BOOT": str(folder / "boot_id")},
    ).stdout.splitlines()
    counts = verdict._asdict() | {"images": verdict.images + len(made)}
    for (image, name, _), answer in zip(asked, answers, strict=True):
        wrong = _wrong(image.promises[name], answer)
        if wrong:
            counts[wrong] += 1
            counts["first"] = counts["first"] or f"{wrong} at {image.moment}: {name}: {answer}"
    return Verdict(**counts)


def _wrong(promise: Promise, answer: str) -> str:
    if "keys lost" in answer:
        return "lost"
    if not answer.isdigit():
        return "" if promise.may_be_invalid else "invalid"
    if int(answer) < promise.low:
        return "lost"
    return "beyond" if int(answer) > promise.high else ""
