"""``fibcore``: looks at a state, verifies it, copies it, and sets where it stands.

Exit status: 0 when it is done; 2 when the command is not understood; 65 (EX_DATAERR) when a state
or a copy is refused; 74 (EX_IOERR) when the disk fails; 75 (EX_TEMPFAIL) when it can't be done
now, as while a server holds the state; 1 when it is not done for another reason, which is said.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

from fibcore import MAX_EXACT_INDEX, MAX_INDEX, figures, maintenance
from fibcore.stores import (
    CommitFailedError,
    StateRefusedError,
    StoreUnavailableError,
    lock,
    mark,
    statefile,
)
from fibcore.stores.mark import Note

__all__ = ["main"]

DEFAULT_STATE: Final = "var/fibcore.db"
BAR_WIDTH: Final = 40

LARGEST_INDEX: Final = {"exact": MAX_EXACT_INDEX, "uint64": MAX_INDEX}


class TooLargeError(Exception):
    """The index is past the largest for the kind of integer. Nothing has been changed."""


STATUSES: Final = {
    StateRefusedError: os.EX_DATAERR,
    StoreUnavailableError: os.EX_TEMPFAIL,
    maintenance.InUseError: os.EX_TEMPFAIL,
    CommitFailedError: os.EX_IOERR,
    OSError: os.EX_IOERR,
    TooLargeError: 1,
    maintenance.LowerError: 1,
    maintenance.InTheWayError: 1,
    maintenance.CopyFailedError: os.EX_IOERR,
}

LEVELS: Final = {
    "full": "no step that was answered is lost, not even in a power cut",
    "normal": "a power cut loses the last steps",
    "off": "a power cut loses steps, and may lose the state",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the status to exit with."""
    options = _parser().parse_args(arguments)
    # What is made here is, as the state is, nobody else's to read.
    umask = os.umask(0o077)
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has enough. At its end Python would try to write the rest once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except tuple(STATUSES) as error:
        print(f"fibcore: {error}", file=sys.stderr)
        return next(status for kind, status in STATUSES.items() if isinstance(error, kind))
    finally:
        os.umask(umask)
    return 0


# The commands.


def _show(options: argparse.Namespace) -> None:
    state: Path = options.state
    index = maintenance.stands_at(state)
    _check_index(index, options.integers)
    if options.digits:
        with _progress(sys.stderr) as report:
            for piece in figures.digits(index, options.integers, report):
                sys.stdout.write(piece)
            sys.stdout.write("\n")
        return
    shape = figures.outline(index, options.integers)
    whole = shape.digits <= len(shape.first)
    number = shape.first if whole else f"{shape.first}...{shape.last}"
    server = lock.server_of(state)
    _print("state", state)
    _print("index", index)
    _print("number", f"{number} ({shape.digits} digit{'' if shape.digits == 1 else 's'})")
    _print("served by", "nobody" if server is None else f"process {server}")
    _print("durability", _durability(mark.read(state)))
    _print("spare copy", _spare(state))


def _verify(options: argparse.Namespace) -> None:
    state: Path = options.state
    # Before the state, which may stand higher: a server may be stepping.
    witnesses = mark.Witnesses.of(state)
    note = witnesses.mark
    _print("mark", "none that says anything" if note is None else _what_is_noted(note))
    _print("spare copy", _spare(state))
    try:
        _print("state", f"good, at index {maintenance.stands_at(state)}")
    except StateRefusedError:
        _print("state", "refused")
        if witnesses.largest:
            _print("way out", f"it stood at index {witnesses.largest}, to go on from there:")
            _print("", f"fibcore set-index {witnesses.largest}")
        raise
    if statefile.spare_path(state).exists():
        statefile.verify_file(statefile.spare_path(state))


def _backup(options: argparse.Namespace) -> None:
    index = maintenance.backup(options.state, options.file)
    print(f"{options.file}: a verified copy at index {index}")


def _restore(options: argparse.Namespace) -> None:
    _move(options, statefile.verify_file(options.file))


def _set_index(options: argparse.Namespace) -> None:
    _check_index(options.index, options.integers)
    _move(options, options.index)


def _move(options: argparse.Namespace, index: int) -> None:
    before, kept = maintenance.set_index(options.state, index, lower=options.lower)
    was = "" if before is None else f"; it stood at {before}"
    print(f"{options.state} stands at index {index}{was}")
    if kept is not None:
        print(f"what was there could not be trusted, and is kept as {kept}")


def _check_index(index: int, integers: str) -> None:
    if index > LARGEST_INDEX[integers]:
        raise TooLargeError(
            f"{index} is past {LARGEST_INDEX[integers]}, the largest index with integers "
            f"{integers}. Nothing has been changed. With --integers uint64, as for a server with "
            f"FIB_INTEGERS=uint64, it is {MAX_INDEX}."
        )


# What they print.


def _print(name: str, value: object) -> None:
    print(f"{name:<12}{value}")


def _durability(note: Note | None) -> str:
    if note is None:
        return "not known: it has not been served yet"
    return f"synchronous={note.synchronous} when last written: {LEVELS[note.synchronous]}"


def _what_is_noted(note: Note) -> str:
    counts = "counts" if note.counts else "does not count, as steps may be lost at a power cut"
    return f"index {note.index}, noted with synchronous={note.synchronous}: {counts}"


def _spare(state: Path) -> str:
    spare = statefile.spare_path(state)
    if not spare.exists():
        return "none"
    try:
        return f"good, at index {statefile.verify_file(spare)}"
    except (StateRefusedError, StoreUnavailableError):
        return "damaged"


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


# The command line.


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fibcore", description="Look after the state of a fibcore server."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, run: Callable[[argparse.Namespace], None], what: str) -> Any:
        command = commands.add_parser(name, help=what, description=f"{what.capitalize()}.")
        command.set_defaults(run=run)
        _add_option(
            command, "state", DEFAULT_STATE, _path, f"the state file, by default {DEFAULT_STATE}"
        )
        _add_option(command, "integers", "exact", _integers, "exact, the default, or uint64")
        return command

    show = add("show", _show, "say where the sequence stands")
    show.add_argument("--digits", action="store_true", help="print the number and nothing else")
    add("verify", _verify, "check the state and its spare copy")
    backup = add("backup", _backup, "write a verified copy of the state")
    backup.add_argument("file", metavar="FILE", type=_path, help="an older copy is replaced")
    restore = add("restore", _restore, "go on from a copy; the server must be stopped")
    restore.add_argument("file", metavar="FILE", type=_path, help="a backup, or the spare copy")
    set_index = add("set-index", _set_index, "set the index; the server must be stopped")
    set_index.add_argument("index", metavar="N", type=_index, help="a whole number from 0")
    for command in (restore, set_index):
        command.add_argument(
            "--lower", action="store_true", help="even if the sequence has stood higher"
        )
    return parser


def _add_option(
    command: argparse.ArgumentParser,
    name: str,
    default: str,
    parse: Callable[[str], object],
    what: str,
) -> None:
    """An option whose default is the server's setting of that name, if it is there."""
    variable = f"FIB_{name.upper()}"
    command.add_argument(
        f"--{name}",
        metavar=name.upper(),
        type=parse,
        default=os.environ.get(variable, default),
        help=f"{what}; {variable} in the environment says otherwise",
    )


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("a file is named by more than nothing")
    return Path(text).absolute()


def _integers(text: str) -> str:
    if text not in LARGEST_INDEX:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(LARGEST_INDEX)}")
    return text


def _index(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)
