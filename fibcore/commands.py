"""What the ``fibcore`` command does to a sequence, and what it has to say of it."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

from fibcore import MAX_EXACT_INDEX, MAX_INDEX, figures, maintenance, problems, upkeep
from fibcore.maintenance import Description
from fibcore.problems import DatabaseInvalidError, TooLargeError, explain
from fibcore.settings import SQLITE, Settings
from fibcore.stores import Weakness
from fibcore.stores.high_water_mark import Record

__all__ = [
    "LARGEST_INDEX",
    "Report",
    "backup",
    "copy",
    "init",
    "restore",
    "row",
    "set_index",
    "show",
    "verify",
]

BAR_WIDTH: Final = 40

LARGEST_INDEX: Final = {"exact": MAX_EXACT_INDEX, "uint64": MAX_INDEX}

LEVELS: Final = {
    "full": "no step that was answered is lost, not even in a power cut",
    "normal": "a power cut loses the last steps",
    "off": "a power cut loses steps, and may lose the database",
}


class Report(NamedTuple):
    """What a command has to say when it has been done."""

    lines: list[str]
    """For a person."""
    facts: dict[str, Any]
    """For a program, as JSON. An index is a string, as JSON's numbers end at 2^53 for many."""
    trouble: Exception | None = None
    """What is wrong all the same."""


def init(options: argparse.Namespace) -> Report:
    """Make the sequence where there is none."""
    there = upkeep.create(options.place)
    if there is None:
        line = f"{_name(options)} is made, at index 0"
    else:
        line = f"{_name(options)} stands at index {there} already; nothing has been changed"
    return Report([line], {**_where(options), "index": str(there or 0), "made": there is None})


def show(options: argparse.Namespace) -> Report | None:
    """Say where the sequence stands; None where the digits alone have been printed."""
    found: Description | None = None
    weaknesses: tuple[Weakness, ...] = ()
    if isinstance(options.place, Path):
        found = maintenance.describe(options.place)
        if found.trouble is not None:
            raise found.trouble
        index = found.index
    else:
        index, weaknesses = upkeep.look(options.place)
    _check_index(index, options.integers)
    if options.digits:
        with _progress(sys.stderr) as report:
            for piece in figures.digits(index, options.integers, report):
                sys.stdout.write(piece)
            sys.stdout.write("\n")
        return None
    shape = figures.outline(index, options.integers)
    whole = shape.digits <= len(shape.first)
    number = shape.first if whole else f"{shape.first}...{shape.last}"
    told = f"{number} ({shape.digits} digit{'' if shape.digits == 1 else 's'})"
    facts = {
        **_where(options),
        "index": str(index),
        "integers": options.integers,
        **shape._asdict(),
    }
    if found is None:
        return Report(
            [
                row("store", options.place.where),
                row("sequence", options.sequence),
                row("index", index),
                row("number", told),
                *_weak(weaknesses),
            ],
            {**facts, "warnings": _warnings(weaknesses)},
        )
    mark = found.high_water_mark
    return Report(
        [
            row("database", found.database),
            row("index", index),
            row("number", told),
            row("served by", "nobody" if found.server is None else f"process {found.server}"),
            row("durability", _durability(mark)),
            row("backup copy", _backup_copy(found)),
        ],
        {
            **facts,
            "server": found.server,
            "synchronous": None if mark is None else mark.synchronous,
            "backup_copy": _copy_facts(found),
        },
    )


def verify(options: argparse.Namespace) -> Report:
    """Check the sequence, and what is kept beside it."""
    if not isinstance(options.place, Path):
        index, weaknesses = upkeep.look(options.place)
        return Report(
            [row("sequence", f"good, at index {index}"), *_weak(weaknesses)],
            {**_where(options), **_good(index), "warnings": _warnings(weaknesses)},
        )
    found = maintenance.describe(options.place)
    mark = found.high_water_mark
    lines = [
        row("high-water mark", "none that says anything" if mark is None else _recorded(mark)),
        row("backup copy", _backup_copy(found)),
        row("database", f"good, at index {found.index}" if found.trouble is None else "invalid"),
    ]
    facts = {
        **_where(options),
        **_good(found.index),
        "high_water_mark": None
        if mark is None
        else {"index": str(mark.index), "synchronous": mark.synchronous, "counts": mark.counts},
        "backup_copy": _copy_facts(found),
    }
    trouble: Exception | None = found.trouble
    if trouble is not None:
        facts |= {"good": False, "index": None, "complaint": explain(trouble, options.option)}
    elif isinstance(found.backup_copy, DatabaseInvalidError):
        trouble = problems.BackupCopyDamagedError(found.backup_copy.where, found.backup_copy.reason)
    return Report(lines, facts, trouble)


def backup(options: argparse.Namespace) -> Report:
    """Write a copy."""
    index = upkeep.backup(options.place, options.file)
    return Report(
        [f"{options.file}: a verified copy at index {index}"],
        {**_where(options), "file": str(options.file), "index": str(index)},
    )


def restore(options: argparse.Namespace) -> Report:
    """Go on from a copy."""
    return _moved(options, *upkeep.restore(options.place, options.file, lower=options.lower))


def set_index(options: argparse.Namespace) -> Report:
    """Set where the sequence stands."""
    _check_index(options.index, options.integers)
    moved = upkeep.set_index(options.place, options.index, lower=options.lower)
    return _moved(options, options.index, moved)


def copy(options: argparse.Namespace) -> Report:
    """Go on in another store."""
    source = _place_at(options.source, options.sequence)
    options.place = _place_at(options.target, options.sequence)
    moved = _moved(options, *upkeep.copy(source, options.place))
    warning = (
        f"nobody may step {upkeep.where(source)} any more: the two would answer each index twice"
    )
    return Report([*moved.lines, warning], moved.facts)


def _place_at(store: str, sequence: str) -> upkeep.Place:
    settings = {"FIB_STORE": store}
    if not store.startswith(SQLITE):
        settings["FIB_SEQUENCE"] = sequence
    return upkeep.place_of(Settings.from_environ(settings))


def _moved(options: argparse.Namespace, index: int, moved: maintenance.Moved) -> Report:
    was = "" if moved.before is None else f"; it stood at {moved.before}"
    lines = [f"{_name(options)} stands at index {index}{was}"]
    if moved.kept is not None:
        lines.append(f"what was there could not be trusted, and is kept as {moved.kept}")
    return Report(
        lines,
        {
            **_where(options),
            "index": str(index),
            "before": None if moved.before is None else str(moved.before),
            "kept": None if moved.kept is None else str(moved.kept),
        },
    )


def _check_index(index: int, integers: str) -> None:
    if index > LARGEST_INDEX[integers]:
        raise TooLargeError(
            f"{index} is past {LARGEST_INDEX[integers]}, the largest index with integers "
            f"{integers}. Nothing has been changed. With --integers uint64, as for a server with "
            f"FIB_INTEGERS=uint64, it is {MAX_INDEX}."
        )


# What they say.


def row(name: str, value: object) -> str:
    """A line of a table of two columns."""
    return f"{name:<17}{value}"


def _name(options: argparse.Namespace) -> str:
    if isinstance(options.place, Path):
        return str(options.place)
    return f"the sequence {options.sequence} in {options.place.where}"


def _where(options: argparse.Namespace) -> dict[str, Any]:
    if isinstance(options.place, Path):
        return {"store": str(options.place), "sequence": None}
    return {"store": options.place.where, "sequence": options.sequence}


def _good(index: int) -> dict[str, Any]:
    return {"good": True, "index": str(index), "complaint": None}


def _weak(weaknesses: tuple[Weakness, ...]) -> list[str]:
    if not weaknesses:
        return [row("durability", LEVELS["full"])]
    return [row("durability", warning) for warning in _warnings(weaknesses)]


def _warnings(weaknesses: tuple[Weakness, ...]) -> list[str]:
    return [f"{weakness.setting}: {weakness.risk.value}" for weakness in weaknesses]


def _durability(record: Record | None) -> str:
    if record is None:
        return "not known: it has not been served yet"
    return f"synchronous={record.synchronous} when last written: {LEVELS[record.synchronous]}"


def _recorded(record: Record) -> str:
    counts = "counts" if record.counts else "does not count, as steps may be lost at a power cut"
    return f"index {record.index}, recorded with synchronous={record.synchronous}: {counts}"


def _backup_copy(found: Description) -> str:
    if found.backup_copy is None:
        return "none"
    return (
        "damaged"
        if isinstance(found.backup_copy, Exception)
        else f"good, at index {found.backup_copy}"
    )


def _copy_facts(found: Description) -> dict[str, Any] | None:
    if found.backup_copy is None:
        return None
    good = not isinstance(found.backup_copy, Exception)
    return {"good": good, "index": str(found.backup_copy) if good else None}


@contextlib.contextmanager
def _progress(stream: TextIO) -> Iterator[Callable[[float], None]]:
    """Draw what is reported, from 0 to 1, as a bar that is gone at the end.

    Nothing is drawn if the stream is not a terminal, or if the output goes to one, too.
    """
    if not stream.isatty() or sys.stdout.isatty():
        yield lambda _: None
        return

    def draw(done: float) -> None:
        stream.write(f"\r[{'#' * round(BAR_WIDTH * done):{BAR_WIDTH}}] {done:4.0%}")
        stream.flush()

    try:
        yield draw
    finally:
        stream.write("\r\x1b[K")
        stream.flush()
