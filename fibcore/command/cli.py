"""``fibcore``: shows, verifies and copies a sequence, and sets its index.

Exit status: 0 on success; 2 if the command line is invalid; 65 (EX_DATAERR) if a database or a copy
is invalid; 66 (EX_NOINPUT) if it does not exist; 69 (EX_UNAVAILABLE) if the server is unhealthy or
does not answer; 73 (EX_CANTCREAT) if the target folder can't be used; 74 (EX_IOERR) if the disk
fails; 75 (EX_TEMPFAIL) if it can't be done now, as while a server holds the database, or if a step
is in doubt; 77 (EX_NOPERM) if this user lacks a permission; 78 (EX_CONFIG) if the settings are
wrong; 1 for any other problem, which is printed.
"""

import argparse
import io
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NoReturn, TextIO

import shtab

from fibcore.appliance.ending import end_interrupted
from fibcore.appliance.servers import servers_of
from fibcore.appliance.settings import (
    DEFAULT_SEQUENCE,
    LARGEST_INDEX,
    SQLITE,
    STORE,
    Given,
    Settings,
    gather,
    home,
)
from fibcore.command import ask, check, server, store
from fibcore.command.store import Report
from fibcore.problems import OtherStoreError, Problem, explain, status_of

RELEVANT: Final = (STORE, "FIB_SEQUENCE", "FIB_INTEGERS")
"""The settings that matter here; a problem with any other does not stop the command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    for name in ("stdout", "stderr"):
        # Closed by the parent process: discard what would be written there.
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The name of a file may be any bytes, and is printed as it is.
        sys.stdout.reconfigure(errors="surrogateescape")
    # Like the database, files created here are private to this user.
    umask = os.umask(0o077)
    options = argparse.Namespace(option="")
    try:
        _parser().parse_args(arguments, options)
        if options.of_database:
            _fill_in(options)
        report = options.run(options)
        if report is not None and (report.lines or options.json):
            print(json.dumps(report.facts) if options.json else "\n".join(report.lines))
        sys.stdout.flush()
        if report is not None and report.problems:
            for each in report.problems:
                _print_problem(each, options.option)
            return status_of(report.problems[0]) if report.status is None else report.status
    except BrokenPipeError:
        # The reader has closed the pipe. On exit Python would try to write the rest again.
        _discard(sys.stdout)
    except KeyboardInterrupt:
        end_interrupted()
    except (Problem, OSError, MemoryError) as error:
        _print_problem(error, options.option)
        try:
            sys.stdout.flush()
        except OSError:
            _discard(sys.stdout)
        return status_of(error)
    finally:
        os.umask(umask)
    return 0


def _print_problem(error: Exception, option: str) -> None:
    try:
        print(f"fibcore: {explain(error, option)}", file=sys.stderr, flush=True)
    except OSError:
        _discard(sys.stderr)


def _discard(stream: TextIO) -> None:
    """Discard the buffered rest of an unwritable stream, so that Python's exit can't fail on it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


# The command line.


DESCRIPTION: Final = (
    "Serve the Fibonacci sequence over HTTP, get its numbers, and manage its database."
)

EXAMPLES: Final = """\
examples:
  fibcore serve                     serve at http://127.0.0.1:8080, in the foreground
  fibcore status                    show the state of that server
  fibcore next                      step exactly once, even if the connection breaks
  fibcore show --digits | less      the number itself
  fibcore show --json | jq -r .index
  fibcore backup /backups/fib.db    a verified copy, while a server runs

Settings are environment variables, or lines of fibcore.conf in the current folder or, if it has
none, in the folder of .venv. The default database is var/fibcore.db there.
Shell completion: fibcore --print-completion bash.
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors never print a URL, which may contain a password."""

    def error(self, message: str) -> NoReturn:
        super().error(re.sub(r"(?s)://.*", "://...", message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fibcore",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fibcore {version('fibcore')}")
    shtab.add_argument_to(parser, help="print a completion script for a shell, and exit")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_running(subparsers)
    ask.add_commands(subparsers)

    def add(name: str, run: Callable[[argparse.Namespace], Report | None], what: str) -> Any:
        command = subparsers.add_parser(name, help=what, description=f"{what.capitalize()}.")
        command.set_defaults(run=run, of_database=True)
        _add_file(command, "--database", "the database, instead of the one in the settings")
        command.add_argument(
            "--integers", type=_integers, help="exact or uint64, instead of the setting"
        )
        _add_json(command, "print JSON; problems are still printed as text on standard error")
        return command

    add("init", store.init, "create the sequence at index 0, if there is none")
    show = add("show", store.show, "show the index and the number of the sequence")
    show.add_argument("--digits", action="store_true", help="print only the number, in full")
    add("verify", store.verify, "check the database and its backup copy")
    backup = add("backup", store.backup, "write a verified copy of the database")
    _add_file(backup, "file", "where to write the copy; an existing copy is replaced")
    restore = add("restore", store.restore, "resume from a copy; stop the server first")
    _add_file(restore, "file", "the copy to resume from")
    set_index = add("set-index", store.set_index, "set the index; stop the server first")
    set_index.add_argument(
        "index", metavar="N", type=_index, help="the index, a whole number from 0"
    )
    copy = add("copy", store.copy, "move the sequence to another store; stop all servers first")
    copy.add_argument(
        "source",
        metavar="FROM",
        help="the store to copy, as in FIB_STORE; @FILE keeps a password private",
    )
    copy.add_argument(
        "target", metavar="TO", help="the store to copy to; its index must not be higher"
    )
    for command in (restore, set_index):
        command.add_argument(
            "--lower",
            action="store_true",
            help="allow an index below the highest that was committed",
        )
        command.add_argument(
            "--name", help="confirms --lower in a shared store: the name of the sequence"
        )
    return parser


def _add_json(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("--json", action="store_true", help=what)


def _add_file(command: argparse.ArgumentParser, name: str, what: str) -> None:
    """Add an argument for which shell completion offers file names."""
    argument = command.add_argument(name, metavar="FILE", type=_path, help=what)
    argument.complete = shtab.FILE  # type: ignore[attr-defined]


def _add_running(subparsers: Any) -> None:
    """Add the commands about a server rather than a database."""
    serve = subparsers.add_parser(
        "serve",
        help="serve in the foreground, until Ctrl-C",
        description="Serve in the foreground, until Ctrl-C: one process, with no supervisor. A "
        "second one with the same database is its standby. The options override the settings.",
    )
    serve.set_defaults(run=server.serve, of_database=False, option="", json=False)
    serve.add_argument("--host", help="the address to listen on; 0.0.0.0 for all")
    serve.add_argument("--port", help="the port to listen on")
    serve.add_argument(
        "--store",
        help="where the index is stored: sqlite:FILE, the URL of an engine, or @FILE with either",
    )
    for name, run, what in (
        ("config", server.config, "print every setting and where it comes from"),
        ("check", check.report, "check the settings, the port, the store and the file permissions"),
    ):
        command = subparsers.add_parser(name, help=what, description=f"{what.capitalize()}.")
        command.set_defaults(run=run, of_database=False, option="")
        _add_json(command, "print JSON")
    status = subparsers.add_parser(
        "status",
        help="show the state of a server",
        description="Show the state of a server: its number, load, takeovers and backup copy.",
        epilog="Exit status: 0 if the server is healthy; 69 if it is not, or does not answer.",
    )
    status.set_defaults(run=server.status, of_database=False, option="")
    status.add_argument(
        "--url", type=ask.url, help="the server, instead of the one in the settings"
    )
    status.add_argument(
        "--all",
        nargs="+",
        metavar="URL",
        type=ask.url,
        help="print one line for each of these nodes",
    )
    _add_json(status, "print the JSON of /status")


def _fill_in(options: argparse.Namespace) -> None:
    """Fill in missing options from the settings of the instance.

    Raises:
        SettingsError, StoreSettingError: the settings are invalid.
    """
    options.option, folder, given = "", home(), []
    if options.database is not None:
        given += [
            Given(STORE, f"{SQLITE}{options.database}", "--database"),
            Given("FIB_SEQUENCE", DEFAULT_SEQUENCE, "--database"),
        ]
    if options.integers is not None:
        given.append(Given("FIB_INTEGERS", options.integers, "--integers"))
    gathered = gather(options=given, folder=folder, only=RELEVANT)
    settings = Settings.of(gathered)
    if options.database is None:
        _reject_another(settings, folder, gathered.values[STORE].source)
    options.opener = settings.opener()
    options.integers = settings.integers
    file = settings.database
    if file not in (None, Settings.of(gather({}, folder=folder, only=[STORE])).database):
        options.option = f" --database {shlex.quote(str(file))}"


def _reject_another(settings: Settings, folder: Path, source: str) -> None:
    """Refuse a store if a server of ``folder`` uses another.

    Raises:
        OtherStoreError: one does.
    """
    for each in servers_of(folder):
        if not settings.has_same_store(each.settings):
            raise OtherStoreError(settings.where, source, each.pid, each.settings.where)


def _path(text: str) -> Path:
    path = Path(text).absolute()
    if not text or not path.name:
        raise argparse.ArgumentTypeError("the file name must not be empty")
    return path


def _integers(text: str) -> str:
    if text not in LARGEST_INDEX:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(LARGEST_INDEX)}")
    return text


def _index(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)
