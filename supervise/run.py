"""``make run``: checks what can be checked, says what is wrong, or becomes supervisord.

    python -m supervise.run

It ends with the status of what is wrong (78: a setting; 65: the database; 73: the folder), before
anything has been started. What the appliance was started with stands in ``var/fibcore.env`` from
then on, where the ``fibcore`` command finds it.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final, NoReturn

from fibcore.appliance import configuration
from fibcore.appliance.settings import Settings
from fibcore.problems import (
    CantListenError,
    DatabaseInvalidError,
    SettingsError,
    StoreNotThereError,
    StoreSettingError,
    StoreUnavailableError,
    explain,
    typed,
)
from fibcore.stores import Opener

LOGS: Final = tuple(Path("var", "log", f"web_{number}.log") for number in range(2))
CONTROL: Final = Path("var", "supervisor.sock")
MAX_SOCKET_PATH: Final = 107 - len(f".{2**22}")
"""Bytes: what unix(7) allows, less what supervisord adds to the name while it binds the socket."""

PID: Final = Path("var", "supervisord.pid")


class NotStartedError(Exception):
    """Why nothing is started.

    Args:
        status: to exit with.
        why: what happened, what it means for the database, what to do.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def check(folder: Path) -> dict[str, str]:
    """Find out whether the appliance of ``folder`` can be started; return its environment.

    Raises:
        NotStartedError: it can't.
    """
    try:
        environ = configuration.to_start_with(folder)
        settings = Settings.from_environ(environ)
        opener = settings.opener()
    except (SettingsError, StoreSettingError) as error:
        raise NotStartedError(os.EX_CONFIG, explain(error)) from error
    _check_the_name(folder)
    for each in (folder / LOGS[0].parent, *_folders(settings)):
        try:
            each.mkdir(parents=True, exist_ok=True)
            if not os.access(each, os.W_OK | os.X_OK):
                raise PermissionError("this user may not write there")
        except OSError as error:
            raise NotStartedError(
                os.EX_CANTCREAT,
                f"The folder {each} can't be used: {error.strerror or error}. Nothing has been "
                f"started or changed. Give this user the right to write there, or set FIB_STORE "
                f"to a file elsewhere.",
            ) from error
    _check_that_it_does_not_run(folder)
    _check_the_socket(settings)
    _check_the_sequence(opener)
    return {**environ, "FIB_HOST": settings.host, "FIB_PORT": str(settings.port)}


def _check_the_name(folder: Path) -> None:
    """Reject a folder that ``supervisord.conf``, which has its name in many places, can't hold."""
    reason = None
    if any(each in str(folder) for each in '%"\n'):
        reason = "a percent sign or a double quote in the name of a folder"
    elif len(os.fsencode(folder / CONTROL)) > MAX_SOCKET_PATH:
        longest = MAX_SOCKET_PATH - len(os.fsencode(CONTROL)) - 1
        reason = f"names of folders of more than {longest} bytes"
    if reason is not None:
        raise NotStartedError(
            os.EX_CANTCREAT,
            f"supervisord can't run in the folder {folder}: it does not support {reason}. Nothing "
            f"has been started or changed. Move this checkout to another folder.",
        )


def _folders(settings: Settings) -> list[Path]:
    return [] if settings.database is None else [settings.database.parent]


def _check_that_it_does_not_run(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as control:
        try:
            control.connect(str(folder / CONTROL))
        except OSError:
            return
    try:
        pid = f"process {int((folder / PID).read_text())}"
    except (OSError, ValueError):
        pid = "another process"
    raise NotStartedError(
        os.EX_TEMPFAIL,
        f"The appliance of this folder runs already: its supervisord is {pid}. It has not been "
        f"touched. {typed('supervisorctl status')} shows it, {typed('supervisorctl shutdown')} "
        f"ends it.",
    )


def _check_the_socket(settings: Settings) -> None:
    why = None
    if ":" in settings.host:
        why = (
            f"FIB_HOST={settings.host} is an IPv6 address, and supervisord, which holds the "
            f"socket, knows IPv4 alone. The database is untouched. Set FIB_HOST to an IPv4 "
            "address, such as 0.0.0.0 for all."
        )
    elif settings.port == 0:
        why = (
            "FIB_PORT=0 is any free port, and nobody would know which. The database is untouched. "
            "Set FIB_PORT to one from 1 to 65535."
        )
    else:
        try:
            socket.create_server((settings.host, settings.port)).close()
        except OSError as error:
            why = CantListenError(settings.host, settings.port, error).explain()
    if why is not None:
        raise NotStartedError(os.EX_CONFIG, why)


def _check_the_sequence(opener: Opener) -> None:
    try:
        found = opener.describe()
    except (StoreUnavailableError, OSError):
        return  # The server tries again until it can be used.
    except DatabaseInvalidError as error:
        raise NotStartedError(os.EX_DATAERR, explain(error)) from error
    if found.beside is not None and found.beside.server is not None:
        raise NotStartedError(
            os.EX_TEMPFAIL,
            f"The database {opener.where} is served by process {found.beside.server} already, of "
            f"another folder or by hand. It has not been touched. End that process, or set "
            f"FIB_STORE to another file.",
        )
    # The server makes a file that has never been there.
    if found.problem is not None and not isinstance(found.problem, StoreNotThereError):
        raise NotStartedError(os.EX_DATAERR, explain(found.problem))


def _write_down(environ: dict[str, str], path: Path) -> None:
    try:
        configuration.write_file(path, environ)
    except OSError as error:
        raise NotStartedError(
            os.EX_CANTCREAT,
            f"{path} can't be written: {error.strerror}. Nothing has been started, and the "
            f"database is untouched. Free disk space, or remove what is in the way.",
        ) from error


def main() -> NoReturn:
    """Check, and become supervisord."""
    folder = Path.cwd()
    os.umask(0o077)
    try:
        environ = check(folder)
        _write_down(environ, folder / configuration.STARTED)
    except NotStartedError as error:
        print(f"fibcore: {error}", file=sys.stderr)
        sys.exit(error.status)
    print(
        f"Starting; Ctrl-C stops it. In another terminal: {typed('fibcore show')}, "
        f"{typed('supervisorctl status')}, make restart",
        flush=True,
    )
    # What the servers say, until we, who are supervisord by then, are gone.
    subprocess.Popen(
        ["tail", "-q", "-n", "0", "--retry", "-F", f"--pid={os.getpid()}", *LOGS],
        stderr=subprocess.DEVNULL,
    )
    supervisord = str(Path(sys.prefix, "bin", "supervisord"))
    command = [supervisord, "--nodaemon", "--silent", "--configuration", "supervisord.conf"]
    os.execve(supervisord, command, {**os.environ, **environ})


if __name__ == "__main__":
    main()
