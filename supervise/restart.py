"""``make restart``: restarts the processes of the appliance one by one; no connection is refused.

    python -m supervise.restart

The standby is restarted first, with the newly installed version; when it is ready, the server is
restarted, and the standby takes over. supervisord keeps the socket open throughout, as one of its
processes is always running. ``supervisorctl restart web:*`` stops both first, so clients are
refused.

With a shared store both serve, and each is restarted while the other serves.

The progress of a process is read from supervisord, which runs it, from the kernel, which has it in
the queue for the lock, and from its heartbeat, which shows that it serves; never from a log, whose
text is for people.
"""

import contextlib
import os
import sys
import time
import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from supervisor.xmlrpc import Faults

from fibcore.appliance.ending import end_interrupted
from fibcore.appliance.heartbeat import serves
from fibcore.appliance.servers import settings_of
from fibcore.problems import SettingsError, TextProblem, typed
from fibcore.stores.lock import server_of, waiting_for
from supervise.control import CONTROL, connected, supervisord_of

GROUP: Final = "web"
BESIDE: Final = ("watchdog", "backup")
"""The programs beside the server, one process each."""
READY_SECONDS: Final = 60.0
END_SECONDS: Final = 90.0
"""More than a server may take to answer what it has accepted (``FIB_STOP_TIMEOUT``)."""


class NotRestartedError(TextProblem):
    """Why a process was not restarted, and what that means for the appliance."""

    status = os.EX_TEMPFAIL


def servers(supervisord: Any) -> dict[str, int]:
    """The running processes of the server, by name."""
    return {
        f"{GROUP}:{each['name']}": each["pid"]
        for each in supervisord.getAllProcessInfo()
        if each["group"] == GROUP and each["statename"] == "RUNNING"
    }


def start_again(supervisord: Any, name: str) -> None:
    """Restart a process, or start it if it is stopped; return when it has been replaced.

    **It is ended, not stopped**: supervisord itself starts what has ended. So whoever interrupts
    this leaves no process stopped.

    Raises:
        NotRestartedError: it did not end.
    """
    before = supervisord.getProcessInfo(name)["pid"]
    if before:
        with _unless(Faults.NOT_RUNNING):
            supervisord.signalProcess(name, "TERM")
    deadline = time.monotonic() + END_SECONDS
    while (now := supervisord.getProcessInfo(name))["pid"] == before != 0:
        if time.monotonic() > deadline:
            raise NotRestartedError(
                f"{name} has not ended within {END_SECONDS:.0f} s. No further process has been "
                f"restarted. {typed(f'supervisorctl restart {name}')} ends it by force."
            )
        time.sleep(0.05)
    if not now["pid"]:
        # Sooner than supervisord would, which looks once a second.
        with _unless(Faults.ALREADY_STARTED):
            supervisord.startProcess(name)


@contextlib.contextmanager
def _unless(code: int) -> Iterator[None]:
    """Suppress a fault of supervisord."""
    try:
        yield
    except xmlrpc.client.Fault as fault:
        if fault.faultCode != code:
            raise


def is_ready(pid: int, database: Path | None) -> bool:
    """Whether a process can take over or has done so, or serves from a shared store."""
    if database is None:
        return serves(pid)
    return pid in (waiting_for(database) or ()) or pid == server_of(database)


def restart(supervisord: Any, name: str, database: Path | None) -> None:
    """Restart the process ``name``; return when it is ready.

    Raises:
        NotRestartedError: it did not become ready.
    """
    start_again(supervisord, name)
    deadline = time.monotonic() + READY_SECONDS
    while True:
        pid = servers(supervisord).get(name)
        if pid is not None and is_ready(pid, database):
            return
        if time.monotonic() > deadline:
            raise NotRestartedError(
                f"{name} is not ready {READY_SECONDS:.0f} s after its restart. No further process "
                f"has been restarted; the other one, if any, serves. "
                f"{typed(f'supervisorctl tail {name}')} shows its log."
            )
        time.sleep(0.05)


def restart_all(folder: Path) -> None:
    """Restart all processes of the appliance in ``folder``, one by one.

    Raises:
        NotRestartedError, SettingsError: not all of them were restarted.
    """
    pid = supervisord_of(folder)
    none_runs = NotRestartedError(
        f"No server that this user may restart runs in this folder. Nothing has been changed. "
        f"make run starts one; where supervisord runs, {typed('supervisorctl status')} shows it."
    )
    if pid is None:
        raise none_runs
    try:
        with connected(folder) as supervisord:
            running = servers(supervisord)
            if not running:
                raise none_runs
            database = settings_of(pid, folder).database
            server = None if database is None else server_of(database)
            # The server last: the restarted standby takes over from it.
            for name in sorted(running, key=lambda name: running[name] == server):
                restart(supervisord, name, database)
                print(f"{name} restarted", flush=True)
            for name in BESIDE:
                start_again(supervisord, name)
                print(f"{name} restarted", flush=True)
    except OSError as error:
        raise NotRestartedError(
            f"The restart failed: {error}. No further process has been restarted. If {CONTROL} was "
            f"removed, kill {pid} stops supervisord, and make run starts it again."
        ) from error
    except xmlrpc.client.Error as error:
        raise NotRestartedError(
            f"supervisord reports an error: {error}. The process being restarted may be stopped; "
            f"no further one has been restarted. {typed('supervisorctl status')} shows them."
        ) from error


def main() -> int:
    """Restart all; return the exit status."""
    try:
        restart_all(Path.cwd())
    except (NotRestartedError, SettingsError) as error:
        print(f"fibcore: {error.explain()}", file=sys.stderr)
        return error.status
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        end_interrupted()
