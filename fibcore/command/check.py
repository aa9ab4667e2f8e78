"""The checks of ``fibcore check`` and ``make run``."""

import argparse
import errno
import os
from collections.abc import Iterator

from fibcore.appliance import process
from fibcore.appliance.servers import servers_of
from fibcore.appliance.settings import Gathered, Settings, gather, home
from fibcore.command.store import Report
from fibcore.problems import (
    CantListenError,
    FolderUnusableError,
    IndexPastLimitError,
    NoRightError,
    Problem,
    SettingsError,
    StoreNotThereError,
    StoreProblem,
    StoreSettingError,
    StoreUnavailableError,
)
from fibcore.stores import file_system
from fibcore.stores.files import folder_of
from fibcore.stores.sqlite_file import without_right


def check(gathered: Gathered) -> tuple[Settings | None, list[Problem]]:
    """Return the settings, and every problem that keeps a server from starting or from serving.

    A ``StoreUnavailableError`` may be temporary: a server starts and waits for the store.
    """
    try:
        settings = Settings.of(gathered)
    except SettingsError as error:
        return None, [error, *error.others]
    return settings, [*_of_socket(settings), *_of_rights(settings), *_of_sequence(settings)]


def is_final(problem: Problem) -> bool:
    """Tell whether a person must act before a server can serve."""
    passes = isinstance(problem, StoreUnavailableError)
    return not passes or isinstance(problem, (IndexPastLimitError, NoRightError))


def report(options: argparse.Namespace) -> Report:  # noqa: ARG001
    """Report every problem; the status is 0 or 78."""
    settings, problems = check(gather(folder=home()))
    status = os.EX_CONFIG if any(map(is_final, problems)) else os.EX_OK
    lines = []
    if status == os.EX_OK and settings is not None:
        lines = [f"A server can start at {settings.host}, port {settings.port}: {settings.where}"]
        risk = file_system.warning_at(settings.database)
        if risk is not None:
            lines.append(f"warning: {risk.explain('The database')}")
    facts = {"good": status == os.EX_OK, "problems": [each.explain("") for each in problems]}
    return Report(lines, facts, tuple(problems), status)


def _of_socket(settings: Settings) -> Iterator[Problem]:
    try:
        process.listen(settings.host, settings.port).close()
    except CantListenError as problem:
        ours = problem.error.errno == errno.EADDRINUSE and any(
            server.settings.port == settings.port for server in servers_of(home())
        )
        if not ours:
            yield problem


def _of_rights(settings: Settings) -> Iterator[Problem]:
    database = settings.database
    if database is None:
        return
    folder = folder_of(database)
    if not folder.is_dir():
        yield FolderUnusableError(database, f"{folder} is not a folder")
    for each in without_right(database):
        yield NoRightError(each, "permission denied")


def _of_sequence(settings: Settings) -> Iterator[Problem]:
    try:
        found = settings.opener().describe()
    except NoRightError:
        return  # Already reported for the file.
    except (StoreSettingError, StoreProblem) as error:
        yield error
    except OSError as error:
        yield StoreUnavailableError(settings.where, str(error))
    else:
        # The server creates a file that has never existed.
        if isinstance(found.problem, StoreNotThereError):
            return
        problem = found.problem or settings.problem_at(found.index)
        if problem is not None:
            yield problem
