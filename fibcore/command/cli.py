"""``fibcore``: looks at a sequence, verifies it, copies it, and sets where it stands.

Exit status: 0 when it is done; 2 when the command is not understood; 65 (EX_DATAERR) when a
database or a copy is invalid; 66 (EX_NOINPUT) when there is none; 73 (EX_CANTCREAT) when there is
no folder for the copy; 74 (EX_IOERR) when the disk fails; 75 (EX_TEMPFAIL) when it can't be done
now, as while a server holds the database, or when a step is in doubt; 78 (EX_CONFIG) when the
settings are wrong; 69 (EX_UNAVAILABLE) when no server says that it is well, or none answers; 1 when
it is not done for another reason, which is said.
"""

import argparse
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

LOOKED_AT: Final = (STORE, "FIB_SEQUENCE", "FIB_INTEGERS")
"""The settings that matter here; no other can keep the command from its work."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the status to exit with."""
    for name in ("stdout", "stderr"):
        # Closed by whoever started this: nobody wants what would be written there.
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
    # What is made here is, as the database is, nobody else's to read.
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
                _complain(each, options.option)
            return status_of(report.problems[0]) if report.status is None else report.status
    except BrokenPipeError:
        # Whoever reads has enough. At its end Python would try to write the rest once more.
        _discard(sys.stdout)
    except (Problem, OSError, MemoryError) as error:
        _complain(error, options.option)
        try:
            sys.stdout.flush()
        except OSError:
            _discard(sys.stdout)
        return status_of(error)
    finally:
        os.umask(umask)
    return 0


def _complain(error: Exception, option: str) -> None:
    try:
        print(f"fibcore: {explain(error, option)}", file=sys.stderr, flush=True)
    except OSError:
        _discard(sys.stderr)


def _discard(stream: TextIO) -> None:
    """Have what is left in a stream that can't be written go nowhere when Python exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


# The command line.


DESCRIPTION: Final = (
    "Serve the Fibonacci sequence over HTTP, ask for its numbers, and look after its database."
)

EXAMPLES: Final = """\
examples:
  fibcore serve                     serve at http://127.0.0.1:8080, in the foreground
  fibcore status                    ask that server how it is
  fibcore next                      step it, once, whatever is lost on the way
  fibcore show --digits | less      the number itself
  fibcore show --json | jq -r .index
  fibcore backup /backups/fib.db    a verified copy, beside a server that runs

Settings are environment variables, or lines of fibcore.conf in the current folder; without one
the database is var/fibcore.db here. Completion for a shell: fibcore --print-completion bash.
"""


class _Parser(argparse.ArgumentParser):
    """One whose errors show nothing of a URL: where it ends can't be told any more."""

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
    shtab.add_argument_to(parser, help="print what completes this command in a shell, and exit")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_running(subparsers)
    ask.add_commands(subparsers)

    def add(name: str, run: Callable[[argparse.Namespace], Report | None], what: str) -> Any:
        command = subparsers.add_parser(name, help=what, description=f"{what.capitalize()}.")
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
        _add_json(command, "print JSON, for programs; what is wrong is still said in words")
        return command

    add("init", store.init, "make the sequence, at index 0, where there is none")
    show = add("show", store.show, "say where the sequence stands")
    show.add_argument("--digits", action="store_true", help="print the number and nothing else")
    add("verify", store.verify, "check the database and its backup copy")
    backup = add("backup", store.backup, "write a verified copy of the database")
    file = backup.add_argument("file", metavar="FILE", type=_path, help="an older copy is replaced")
    _is_file(file)
    restore = add("restore", store.restore, "go on from a copy; the server must be stopped")
    file = restore.add_argument("file", metavar="FILE", type=_path, help="a backup, or such a copy")
    _is_file(file)
    set_index = add("set-index", store.set_index, "set the index; the server must be stopped")
    set_index.add_argument("index", metavar="N", type=_index, help="a whole number from 0")
    copy = add("copy", store.copy, "go on in another store; no server may step either")
    copy.add_argument(
        "source", metavar="FROM", help="a store as FIB_STORE names one: @FILE if it has a password"
    )
    copy.add_argument("target", metavar="TO", help="another one, which may not stand higher")
    for command in (restore, set_index):
        command.add_argument(
            "--lower", action="store_true", help="even if the sequence has been at a higher index"
        )
        command.add_argument("--name", help="with --lower in an engine: the sequence's name")
    return parser


def _add_json(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("--json", action="store_true", help=what)


def _is_file(argument: argparse.Action) -> None:
    """Have a shell complete it with the names of files."""
    argument.complete = shtab.FILE  # type: ignore[attr-defined]


def _add_running(subparsers: Any) -> None:
    """Add what is about a server that runs, not about a database."""
    serve = subparsers.add_parser(
        "serve",
        help="serve, in the foreground, until Ctrl-C",
        description="Serve, in the foreground, until Ctrl-C. One process, which needs nothing "
        "else; a second one with the same database stands by for it. What is not said here is as "
        "the settings say.",
    )
    serve.set_defaults(run=server.serve, of_database=False, option="", json=False)
    serve.add_argument("--host", help="the address to listen on; 0.0.0.0 for all")
    serve.add_argument("--port", help="the port to listen on")
    serve.add_argument(
        "--store", help="where the index lives: sqlite:FILE, an engine's URL, or @FILE that says so"
    )
    for name, run, what in (
        ("config", server.config, "print every setting in force, and where it comes from"),
        ("check", check.report, "check the settings, the port, the store and the rights"),
    ):
        command = subparsers.add_parser(name, help=what, description=f"{what.capitalize()}.")
        command.set_defaults(run=run, of_database=False, option="")
        _add_json(command, "print JSON, for programs")
    status = subparsers.add_parser(
        "status",
        help="ask a server how it is",
        description="Ask a server how it is: its number, load, takeovers, and backup copy.",
        epilog="It exits with 0 if the server is well, with 69 if it is not, or if none answers.",
    )
    status.set_defaults(run=server.status, of_database=False, option="")
    status.add_argument("--url", help="of another server than that of the settings")
    status.add_argument("--all", nargs="+", metavar="URL", help="one line for each of these nodes")
    _add_json(status, "print what /status says, for programs")


def _fill_in(options: argparse.Namespace) -> None:
    """Take what was not said from the settings of the instance that is looked after.

    Raises:
        SettingsError, StoreSettingError: they are not what they may be.
    """
    options.option, folder, given = "", home(), []
    if options.database is not None:
        given += [
            Given(STORE, f"{SQLITE}{options.database}", "--database"),
            Given("FIB_SEQUENCE", DEFAULT_SEQUENCE, "--database"),
        ]
    if options.integers is not None:
        given.append(Given("FIB_INTEGERS", options.integers, "--integers"))
    gathered = gather(options=given, folder=folder, only=LOOKED_AT)
    settings = Settings.of(gathered)
    if options.database is None:
        _reject_another(settings, folder, gathered.values[STORE].source)
    options.opener = settings.opener()
    options.integers = settings.integers
    file = settings.database
    if file not in (None, Settings.of(gather({}, folder=folder, only=[STORE])).database):
        options.option = f" --database {shlex.quote(str(file))}"


def _reject_another(settings: Settings, folder: Path, source: str) -> None:
    """Do nothing to a store beside which a server of ``folder`` has another.

    Raises:
        OtherStoreError: one has.
    """
    for each in servers_of(folder):
        if not settings.has_same_store(each.settings):
            raise OtherStoreError(settings.where, source, each.pid, each.settings.where)


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
