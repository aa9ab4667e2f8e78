"""The ``fibcore`` commands that read or change a sequence, and their reports."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TextIO

from fibcore import MAX_INDEX
from fibcore.appliance.settings import LARGEST_INDEX, SQLITE, Settings
from fibcore.numbers import outline
from fibcore.problems import (
    BackupCopyDamagedError,
    DatabaseInvalidError,
    LowerBesideNodesError,
    SteppedMeanwhileError,
    TooLargeError,
    explain,
)
from fibcore.stores import Beside, Description, Moved, Opener, copies
from fibcore.stores.high_water_mark import Record

BAR_WIDTH: Final = 40

LEVELS: Final = {
    "full": "no acknowledged step is lost, even in a power cut",
    "normal": "a power cut may lose the last steps",
    "off": "a power cut may lose steps, or the database",
}


class Report(NamedTuple):
    """The result of a command."""

    lines: list[str]
    """For a person."""
    facts: dict[str, Any]
    """For a program, as JSON. An index is a string, as many JSON parsers are exact only to 2^53."""
    problems: Sequence[Exception] = ()
    """Problems that were found."""
    status: int | None = None
    """The exit status, if not that of the first problem."""


def init(options: argparse.Namespace) -> Report:
    """Create the sequence, if there is none."""
    existing = options.opener.create()
    if existing is None:
        line = f"{_name(options.opener)} has been created, at index 0"
    else:
        line = f"{_name(options.opener)} is at index {existing} already; nothing has been changed"
    facts = {**_where(options.opener), "index": str(existing or 0), "made": existing is None}
    return Report([line], facts)


def show(options: argparse.Namespace) -> Report | None:
    """Show the sequence; None if only the digits have been printed."""
    found = _valid(options.opener)
    _check_index(found.index, options.integers)
    if options.digits:
        with _progress(sys.stderr) as report:
            for piece in outline.digits(found.index, options.integers, report):
                sys.stdout.write(piece)
            sys.stdout.write("\n")
        return None
    shape = outline.outline(found.index, options.integers)
    whole = shape.digits <= len(shape.first)
    number = shape.first if whole else f"{shape.first}...{shape.last}"
    shown = f"{number} ({shape.digits} digit{'' if shape.digits == 1 else 's'})"
    where, sequence = options.opener.where, options.opener.sequence
    lines = [row("index", found.index), row("number", shown)]
    facts = {
        **_where(options.opener),
        "index": str(found.index),
        "integers": options.integers,
        **shape._asdict(),
    }
    beside = found.beside
    if beside is None:
        lines = [row("store", where), row("sequence", sequence), *lines, *_durability_rows(found)]
        return Report(lines, {**facts, "warnings": _warnings(found)})
    mark = beside.high_water_mark
    lines = [
        row("database", where),
        *lines,
        row("served by", "no process" if beside.server is None else f"process {beside.server}"),
        row("durability", _durability(mark)),
        row("backup copy", _backup_copy(beside)),
    ]
    facts |= {
        "server": beside.server,
        "synchronous": None if mark is None else mark.synchronous,
        "backup_copy": _copy_facts(beside),
    }
    return Report(lines, facts)


def verify(options: argparse.Namespace) -> Report:
    """Check the sequence, and the files beside it."""
    found = options.opener.describe()
    facts = {**_where(options.opener), "good": True, "index": str(found.index), "problem": None}
    beside = found.beside
    if beside is None:
        return Report(
            [row("sequence", f"good, at index {found.index}"), *_durability_rows(found)],
            {**facts, "warnings": _warnings(found)},
        )
    mark = beside.high_water_mark
    lines = [
        row("high-water mark", "none, or damaged" if mark is None else _recorded(mark)),
        row("backup copy", _backup_copy(beside)),
        row("database", f"good, at index {found.index}" if found.problem is None else "invalid"),
    ]
    facts |= {
        "high_water_mark": None
        if mark is None
        else {"index": str(mark.index), "synchronous": mark.synchronous, "counts": mark.counts},
        "backup_copy": _copy_facts(beside),
    }
    problem: Exception | None = found.problem
    if problem is not None:
        facts |= {"good": False, "index": None, "problem": explain(problem, options.option)}
    elif isinstance(beside.backup_copy, DatabaseInvalidError):
        problem = BackupCopyDamagedError(beside.backup_copy.where, beside.backup_copy.reason)
    return Report(lines, facts, [] if problem is None else [problem])


def backup(options: argparse.Namespace) -> Report:
    """Write a verified copy."""
    index = options.opener.backup(options.file)
    return Report(
        [f"{options.file}: a verified copy at index {index}"],
        {**_where(options.opener), "file": str(options.file), "index": str(index)},
    )


def restore(options: argparse.Namespace) -> Report:
    """Resume from a copy."""
    return _set(options, copies.index_of(options.file))


def set_index(options: argparse.Namespace) -> Report:
    """Set the index of the sequence."""
    _check_index(options.index, options.integers)
    return _set(options, options.index)


def _set(options: argparse.Namespace, index: int) -> Report:
    opener = options.opener
    if options.lower and opener.sequence not in (None, options.name):
        raise LowerBesideNodesError(opener.where, opener.sequence)
    return _moved(opener, index, opener.set_index(index, lower=options.lower))


def copy(options: argparse.Namespace) -> Report:
    """Copy the sequence to another store."""
    source = _opener_at(options.source, options.opener.sequence)
    target = _opener_at(options.target, options.opener.sequence)
    with source.alone():
        index = _valid(source).index
        moved = _moved(target, index, target.set_index(index))
        if _valid(source).index != index:
            raise SteppedMeanwhileError(source.where, target.where)
    warning = f"do not step {source.where} any more: both would hand out the same indexes"
    return Report([*moved.lines, warning], moved.facts)


def _valid(opener: Opener) -> Description:
    """What is known of a sequence that can be served from."""
    found = opener.describe()
    if found.problem is not None:
        raise found.problem
    return found


def _opener_at(store: str, sequence: str | None) -> Opener:
    settings = {"FIB_STORE": store}
    if sequence is not None and not store.startswith(SQLITE):
        settings["FIB_SEQUENCE"] = sequence
    return Settings.from_environ(settings).opener()


def _moved(opener: Opener, index: int, moved: Moved) -> Report:
    was = "" if moved.before is None else f"; previously at {moved.before}"
    lines = [f"{_name(opener)} is at index {index}{was}"]
    if moved.kept is not None:
        lines.append(f"the previous database was invalid; it is kept as {moved.kept}")
    return Report(
        lines,
        {
            **_where(opener),
            "index": str(index),
            "before": None if moved.before is None else str(moved.before),
            "kept": None if moved.kept is None else str(moved.kept),
        },
    )


def _check_index(index: int, integers: str) -> None:
    if index > LARGEST_INDEX[integers]:
        raise TooLargeError(
            f"{index} is past {LARGEST_INDEX[integers]}, the largest index with integers "
            f"{integers}. Nothing has been changed. With --integers uint64, for a server with "
            f"FIB_INTEGERS=uint64, the largest is {MAX_INDEX}."
        )


# Their output.


def row(name: str, value: object) -> str:
    """A line of a table of two columns."""
    return f"{name:<17}{value}"


def _name(opener: Opener) -> str:
    if opener.sequence is None:
        return opener.where
    return f"the sequence {opener.sequence} in {opener.where}"


def _where(opener: Opener) -> dict[str, Any]:
    return {"store": opener.where, "sequence": opener.sequence}


def _durability_rows(found: Description) -> list[str]:
    if not found.warnings:
        return [row("durability", LEVELS["full"])]
    return [row("durability", warning) for warning in _warnings(found)]


def _warnings(found: Description) -> list[str]:
    return [f"{warning.setting}: {warning.risk.value}" for warning in found.warnings]


def _durability(record: Record | None) -> str:
    if record is None:
        return "unknown: there is no valid high-water mark"
    return f"synchronous={record.synchronous} when last written: {LEVELS[record.synchronous]}"


def _recorded(record: Record) -> str:
    counts = "usable as evidence" if record.counts else "not evidence: a power cut may lose steps"
    return f"index {record.index}, recorded with synchronous={record.synchronous}: {counts}"


def _backup_copy(beside: Beside) -> str:
    if beside.backup_copy is None:
        return "none"
    is_good = isinstance(beside.backup_copy, int)
    return f"good, at index {beside.backup_copy}" if is_good else "damaged"


def _copy_facts(beside: Beside) -> dict[str, Any] | None:
    if beside.backup_copy is None:
        return None
    good = not isinstance(beside.backup_copy, Exception)
    return {"good": good, "index": str(beside.backup_copy) if good else None}


@contextlib.contextmanager
def _progress(stream: TextIO) -> Iterator[Callable[[float], None]]:
    """Draw the reported progress, from 0 to 1, as a bar that is erased at the end.

    Nothing is drawn if the stream is not a terminal, or if the output is one.
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
