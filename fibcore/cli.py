"""``fibcore``: looks at a sequence, verifies it, copies it, and sets where it stands.

Exit status: 0 when it is done; 2 when the command is not understood; 65 (EX_DATAERR) when a
database or a copy is invalid; 66 (EX_NOINPUT) when there is none; 73 (EX_CANTCREAT) when there is
no folder for the copy; 74 (EX_IOERR) when the disk fails; 75 (EX_TEMPFAIL) when it can't be done
now, as while a server holds the database; 78 (EX_CONFIG) when the settings are wrong; 69
(EX_UNAVAILABLE) when no server says that it is well; 1 when it is not done for another reason,
which is said.
"""

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, TextIO

import shtab

from fibcore import (
    MAX_EXACT_INDEX,
    MAX_INDEX,
    configuration,
    figures,
    maintenance,
    running,
    upkeep,
)
from fibcore.maintenance import Description
from fibcore.settings import SQLITE, Settings, SettingsError
from fibcore.stores import (
    CommitFailedError,
    DatabaseInvalidError,
    StoreNotThereError,
    StoreUnavailableError,
    Weakness,
)
from fibcore.stores.engine import without_secrets
from fibcore.stores.high_water_mark import Record
from fibcore.stores.opening import StoreSettingError
from fibcore.words import explain

__all__ = ["main"]

STORES: Final = ("FIB_STORE", "FIB_STATE")
LOOKED_AT: Final = (*STORES, "FIB_SEQUENCE", "FIB_INTEGERS")
"""The settings that matter here; no other can keep the command from its work."""

BAR_WIDTH: Final = 40

LARGEST_INDEX: Final = {"exact": MAX_EXACT_INDEX, "uint64": MAX_INDEX}


class TooLargeError(Exception):
    """The index is past the largest for the kind of integer. Nothing has been changed."""


STATUSES: Final[dict[type[Exception], int]] = {
    SettingsError: os.EX_CONFIG,
    StoreSettingError: os.EX_CONFIG,
    StoreNotThereError: os.EX_NOINPUT,
    DatabaseInvalidError: os.EX_DATAERR,
    StoreUnavailableError: os.EX_TEMPFAIL,
    maintenance.InUseError: os.EX_TEMPFAIL,
    CommitFailedError: os.EX_IOERR,
    OSError: os.EX_IOERR,
    TooLargeError: 1,
    maintenance.LowerError: 1,
    upkeep.SteppedMeanwhileError: 1,
    maintenance.InTheWayError: 1,
    maintenance.BackupCopyDamagedError: os.EX_DATAERR,
    maintenance.CopyMissingError: os.EX_NOINPUT,
    maintenance.CopyInvalidError: os.EX_DATAERR,
    maintenance.NoFolderError: os.EX_CANTCREAT,
    maintenance.CopyFailedError: os.EX_IOERR,
    running.NotAnsweringError: os.EX_UNAVAILABLE,
    running.NotHealthyError: os.EX_UNAVAILABLE,
}

LEVELS: Final = {
    "full": "no step that was answered is lost, not even in a power cut",
    "normal": "a power cut loses the last steps",
    "off": "a power cut loses steps, and may lose the database",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the status to exit with."""
    options = _parser().parse_args(arguments)
    # What is made here is, as the database is, nobody else's to read.
    umask = os.umask(0o077)
    try:
        if options.of_database:
            _fill_in(options)
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has enough. At its end Python would try to write the rest once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except tuple(STATUSES) as error:
        print(f"fibcore: {explain(error, options.option)}", file=sys.stderr)
        return next(status for kind, status in STATUSES.items() if isinstance(error, kind))
    finally:
        os.umask(umask)
    return 0


# The commands.


def _init(options: argparse.Namespace) -> None:
    name, there = _name(options), upkeep.create(options.place)
    if there is None:
        print(f"{name} is made, at index 0")
    else:
        print(f"{name} stands at index {there} already; nothing has been changed")


def _show(options: argparse.Namespace) -> None:
    found = None
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
        return
    shape = figures.outline(index, options.integers)
    whole = shape.digits <= len(shape.first)
    number = shape.first if whole else f"{shape.first}...{shape.last}"
    _print("database" if found else "store", found.database if found else options.place.where)
    if found is None:
        _print("sequence", options.sequence)
    _print("index", index)
    _print("number", f"{number} ({shape.digits} digit{'' if shape.digits == 1 else 's'})")
    if found is None:
        _print_durability(weaknesses)
        return
    _print("served by", "nobody" if found.server is None else f"process {found.server}")
    _print("durability", _durability(found.high_water_mark))
    _print("backup copy", _backup_copy(found))


def _verify(options: argparse.Namespace) -> None:
    if not isinstance(options.place, Path):
        index, weaknesses = upkeep.look(options.place)
        _print("sequence", f"good, at index {index}")
        _print_durability(weaknesses)
        return
    found = maintenance.describe(options.place)
    _print(
        "high-water mark",
        "none that says anything"
        if found.high_water_mark is None
        else _recorded(found.high_water_mark),
    )
    _print("backup copy", _backup_copy(found))
    if found.trouble is not None:
        _print("database", "invalid")
        raise found.trouble
    _print("database", f"good, at index {found.index}")
    if isinstance(found.backup_copy, DatabaseInvalidError):
        raise maintenance.BackupCopyDamagedError(found.backup_copy)


def _backup(options: argparse.Namespace) -> None:
    index = upkeep.backup(options.place, options.file)
    print(f"{options.file}: a verified copy at index {index}")


def _restore(options: argparse.Namespace) -> None:
    _say_moved(options, *upkeep.restore(options.place, options.file, lower=options.lower))


def _set_index(options: argparse.Namespace) -> None:
    _check_index(options.index, options.integers)
    moved = upkeep.set_index(options.place, options.index, lower=options.lower)
    _say_moved(options, options.index, moved)


def _copy(options: argparse.Namespace) -> None:
    source = _place_at(options.source, options.sequence)
    options.place = _place_at(options.target, options.sequence)
    _say_moved(options, *upkeep.copy(source, options.place))
    print(
        f"nobody may step {without_secrets(options.source)} any more: the two would answer each "
        f"index twice"
    )


def _place_at(store: str, sequence: str) -> upkeep.Place:
    settings = {"FIB_STORE": store}
    if not store.startswith(SQLITE):
        settings["FIB_SEQUENCE"] = sequence
    return upkeep.place_of(Settings.from_environ(settings))


def _say_moved(options: argparse.Namespace, index: int, moved: maintenance.Moved) -> None:
    was = "" if moved.before is None else f"; it stood at {moved.before}"
    print(f"{_name(options)} stands at index {index}{was}")
    if moved.kept is not None:
        print(f"what was there could not be trusted, and is kept as {moved.kept}")


def _check_index(index: int, integers: str) -> None:
    if index > LARGEST_INDEX[integers]:
        raise TooLargeError(
            f"{index} is past {LARGEST_INDEX[integers]}, the largest index with integers "
            f"{integers}. Nothing has been changed. With --integers uint64, as for a server with "
            f"FIB_INTEGERS=uint64, it is {MAX_INDEX}."
        )


# What they print.


def _name(options: argparse.Namespace) -> str:
    if isinstance(options.place, Path):
        return str(options.place)
    return f"the sequence {options.sequence} in {options.place.where}"


def _print_durability(weaknesses: tuple[Weakness, ...]) -> None:
    if not weaknesses:
        _print("durability", LEVELS["full"])
    for weakness in weaknesses:
        _print("durability", f"{weakness.setting}: {weakness.risk.value}")


def _print(name: str, value: object) -> None:
    print(f"{name:<17}{value}")


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


DESCRIPTION: Final = "Serve the Fibonacci sequence over HTTP, and look after its database."

EXAMPLES: Final = """\
examples:
  fibcore serve                     serve at http://127.0.0.1:8080, in the foreground
  fibcore status                    ask that server how it is
  fibcore show --digits | less      the number itself
  fibcore backup /backups/fib.db    a verified copy, beside a server that runs

Settings are environment variables, or lines of fibcore.conf in the current folder; without one
the database is var/fibcore.db here. Completion for a shell: fibcore --print-completion bash.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fibcore",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fibcore {version('fibcore')}")
    shtab.add_argument_to(parser, help="print what completes this command in a shell, and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_running(commands)

    def add(name: str, run: Callable[[argparse.Namespace], None], what: str) -> Any:
        command = commands.add_parser(name, help=what, description=f"{what.capitalize()}.")
        command.set_defaults(run=run, of_database=True)
        database = command.add_argument(
            "--database",
            metavar="FILE",
            type=_path,
            help="another database than that of the settings",
        )
        _is_file(database)
        command.add_argument(
            "--integers", type=_integers, help="exact or uint64, instead of what the settings say"
        )
        return command

    add("init", _init, "make the sequence, at index 0, where there is none")
    show = add("show", _show, "say where the sequence stands")
    show.add_argument("--digits", action="store_true", help="print the number and nothing else")
    add("verify", _verify, "check the database and its backup copy")
    backup = add("backup", _backup, "write a verified copy of the database")
    file = backup.add_argument("file", metavar="FILE", type=_path, help="an older copy is replaced")
    _is_file(file)
    restore = add("restore", _restore, "go on from a copy; the server must be stopped")
    file = restore.add_argument("file", metavar="FILE", type=_path, help="a backup, or such a copy")
    _is_file(file)
    set_index = add("set-index", _set_index, "set the index; the server must be stopped")
    set_index.add_argument("index", metavar="N", type=_index, help="a whole number from 0")
    copy = add("copy", _copy, "go on in another store; no server may step either")
    copy.add_argument("source", metavar="FROM", help="a store as FIB_STORE names one")
    copy.add_argument("target", metavar="TO", help="another one, which may not stand higher")
    for command in (restore, set_index):
        command.add_argument(
            "--lower", action="store_true", help="even if the sequence has stood higher"
        )
    return parser


def _is_file(argument: argparse.Action) -> None:
    """Have a shell complete it with the names of files."""
    argument.complete = shtab.FILE  # type: ignore[attr-defined]


def _add_running(commands: Any) -> None:
    """Add what is about a server that runs, not about a database."""
    serve = commands.add_parser(
        "serve",
        help="serve, in the foreground, until Ctrl-C",
        description="Serve, in the foreground, until Ctrl-C. One process, which needs nothing "
        "else; a second one with the same database stands by for it. What is not said here is as "
        "the settings say.",
    )
    serve.set_defaults(run=running.serve, of_database=False, option="")
    serve.add_argument("--host", help="the address to listen on; 0.0.0.0 for all")
    serve.add_argument("--port", help="the port to listen on")
    serve.add_argument("--store", help="where the index lives, such as sqlite:FILE")
    status = commands.add_parser(
        "status",
        help="ask a server how it is",
        description="Ask a server how it is: its number, load, takeovers, and backup copy.",
        epilog="It exits with 0 if the server is well, with 69 if it is not, or if none answers.",
    )
    status.set_defaults(run=running.status, of_database=False, option="")
    status.add_argument("--url", help="of another server than that of the settings")
    status.add_argument("--json", action="store_true", help="print what /status says, for programs")


def _fill_in(options: argparse.Namespace) -> None:
    """Take what was not said from the settings of the instance that is looked after.

    Raises:
        SettingsError, StoreSettingError: they are not what they may be.
    """
    options.option = ""
    home = configuration.home()
    settings = _settings(configuration.started_with(home), LOOKED_AT)
    options.place = options.database or upkeep.place_of(settings)
    options.sequence = settings.sequence
    options.integers = options.integers or settings.integers
    if not isinstance(options.place, Path):
        return
    if options.place != _settings(configuration.started_with(home, {}), STORES).database:
        options.option = f" --database {shlex.quote(str(options.place))}"


def _settings(configured: Mapping[str, str], names: Collection[str]) -> Settings:
    return Settings.from_environ({name: configured[name] for name in names if name in configured})


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
