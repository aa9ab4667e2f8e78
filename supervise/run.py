"""``make run``: checks the settings and the system, then reports problems or becomes supervisord.

    python -m supervise.run

It exits with the status of the first problem (78: a setting; 65: the database; 73: the folder)
before anything has been started. All settings are in the environment of supervisord and of the
processes that it starts: an edited ``fibcore.conf`` takes effect at the next ``make run``, for all
of them at once.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final, NoReturn

from fibcore.appliance import process
from fibcore.appliance.ending import end_interrupted
from fibcore.appliance.process import PR_SET_PDEATHSIG
from fibcore.appliance.settings import Settings, gather, without_settings
from fibcore.command.check import check, is_final
from fibcore.problems import CantListenError, TextProblem, typed
from fibcore.stores.lock import server_of
from supervise.control import CONTROL, supervisord_of

LOG: Final = Path("var", "log")
LOGS: Final = tuple(LOG / f"web_{number}.log" for number in range(2))
OTHER_LOGS: Final = tuple(LOG / f"{name}.log" for name in ("supervisord", "watchdog", "backup"))
MAX_SOCKET_PATH: Final = 107 - len(f".{2**22}")
"""Bytes: the limit of unix(7), less the suffix that supervisord adds while it binds the socket."""


class NotStartedError(TextProblem):
    """Why supervisord is not started here."""

    status: int


def _check_the_name(folder: Path) -> None:
    """Reject a folder whose name can't be used in ``supervisord.conf``."""
    reason = None
    if any(each in str(folder) for each in '%"\n'):
        reason = "a percent sign or a double quote in the path"
    elif len(os.fsencode(folder / CONTROL)) > MAX_SOCKET_PATH:
        longest = MAX_SOCKET_PATH - len(os.fsencode(CONTROL)) - 1
        reason = f"paths of more than {longest} bytes"
    if reason is not None:
        raise NotStartedError(
            f"supervisord can't run in the folder {folder}: it does not support {reason}. Nothing "
            f"has been started or changed. Move this checkout to another folder.",
            os.EX_CANTCREAT,
        )


def _check_that_it_does_not_run(folder: Path) -> None:
    pid = supervisord_of(folder)
    if pid is not None:
        raise NotStartedError(
            f"The appliance of this folder is already running: its supervisord is process {pid}. "
            f"It has not been touched. {typed('supervisorctl status')} shows it, "
            f"{typed('supervisorctl shutdown')} stops it.",
            os.EX_TEMPFAIL,
        )


def _check_what_supervisord_needs(folder: Path, settings: Settings) -> None:
    if ":" in settings.host:
        raise NotStartedError(
            f"FIB_HOST is {settings.host}, an IPv6 address; supervisord, which holds the socket, "
            f"supports only IPv4. Nothing has been started or changed. Set FIB_HOST to an IPv4 "
            f"address, such as 0.0.0.0 for all.",
            os.EX_CONFIG,
        )
    server = None if settings.database is None else server_of(settings.database)
    if server is not None:
        raise NotStartedError(
            f"The database {settings.where} is already served by process {server}, started in "
            f"another folder. It has not been touched. Stop that process, or set FIB_STORE to "
            f"another file.",
            os.EX_TEMPFAIL,
        )
    # As supervisord will: over IPv4, and with nobody else there, not even a server of this folder.
    process.listen(settings.host, settings.port, socket.AF_INET).close()
    try:
        folder.joinpath(LOG).mkdir(parents=True, exist_ok=True)
        if not os.access(folder / LOG, os.W_OK | os.X_OK):
            raise PermissionError(None, "this user may not write there", folder / LOG)
        for log in (*LOGS, *OTHER_LOGS):
            folder.joinpath(log).touch()
    except OSError as error:
        raise NotStartedError(
            f"{error.filename} can't be used: {error.strerror}. Nothing has been started. Give "
            f"this user write permission there.",
            os.EX_CANTCREAT,
        ) from error


def _as_a_follower() -> None:
    """End with the parent, and not at a Ctrl-C, which ends the parent only after the last lines."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def main() -> NoReturn:
    """Check, and become supervisord."""
    folder = Path.cwd()
    os.umask(0o077)
    gathered = gather(folder=folder)
    settings = None
    try:
        _check_the_name(folder)
        _check_that_it_does_not_run(folder)
        settings, problems = check(gathered)
        wrong = [problem for problem in problems if is_final(problem)]
        if settings is not None and not wrong:
            _check_what_supervisord_needs(folder, settings)
    except (NotStartedError, CantListenError) as error:
        wrong = [error]
    if settings is None or wrong:
        for problem in wrong:
            print(f"fibcore: {problem.explain('')}", file=sys.stderr)
        sys.exit(wrong[0].status)
    if "JOURNAL_STREAM" not in os.environ:
        print(
            f"Starting; Ctrl-C stops it. In another terminal: {typed('fibcore show')}, "
            f"{typed('supervisorctl status')}, make restart",
            file=sys.stderr,  # Standard output has only the log, for jq.
            flush=True,
        )
    # Follow the servers' logs until this process, which becomes supervisord, exits. tail
    # is notified of changes to existing files, and polls for missing ones.
    subprocess.Popen(
        ["tail", "-q", "-n", "0", "-F", *LOGS],
        stderr=subprocess.DEVNULL,
        preexec_fn=_as_a_follower,
    )
    supervisord = str(Path(sys.prefix, "bin", "supervisord"))
    command = [supervisord, "--nodaemon", "--silent", "--configuration", "supervisord.conf"]
    port = {"FIB_PORT": str(settings.port)}  # supervisord expands it verbatim
    os.execve(supervisord, command, {**without_settings(), **gathered.environ(), **port})


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        end_interrupted()
