"""``make restart``: the processes of the appliance anew, one after the other; nobody notices.

    python -m supervise.restart

The standby goes first, with what has been installed meanwhile; when it stands by again, the server
goes, and it takes over. supervisord keeps the socket open all the time, as it has a process for it
at every moment: ``supervisorctl restart web:*`` stops both first, and clients are turned away.

With a store that is shared both serve, and each goes while the other does.

How far a process has come is asked of those who know: supervisord, which runs it; the kernel, which
has it in the queue for the lock; its heartbeat, which says that it serves. Never a log, whose words
are for people.
"""

import os
import sys
import time
import xmlrpc.client
from pathlib import Path
from typing import Any, Final

from supervisor.xmlrpc import Faults

from fibcore.appliance.heartbeat import STARTING_SECONDS, beat_of
from fibcore.appliance.servers import settings_of
from fibcore.problems import SettingsError, explain, typed
from fibcore.stores.lock import server_of, waiting_for
from supervise.control import CONTROL, connected, supervisord_of

GROUP: Final = "web"
BESIDE: Final = ("watchdog", "backup")
"""What runs beside it, of which there is one each."""
READY_SECONDS: Final = 60.0


class NotRestartedError(Exception):
    """What kept a process from being started anew, and what it means."""


def servers(supervisord: Any) -> dict[str, int]:
    """The running processes of the server, by name."""
    return {
        f"{GROUP}:{each['name']}": each["pid"]
        for each in supervisord.getAllProcessInfo()
        if each["group"] == GROUP and each["statename"] == "RUNNING"
    }


def start_anew(supervisord: Any, name: str) -> None:
    """Start a process anew, whether it runs or not."""
    try:
        supervisord.stopProcess(name)
    except xmlrpc.client.Fault as fault:
        if fault.faultCode != Faults.NOT_RUNNING:
            raise
    supervisord.startProcess(name)


def is_ready(pid: int, database: Path | None) -> bool:
    """Whether a process can take over or has done so, or serves from a store that is shared."""
    if database is None:
        beat = beat_of(pid)
        return beat is not None and beat.patience < STARTING_SECONDS
    return pid in (waiting_for(database) or ()) or pid == server_of(database)


def restart(supervisord: Any, name: str, database: Path | None) -> None:
    """Start the process ``name`` anew; return when it is ready.

    Raises:
        NotRestartedError: it does not come to that.
    """
    start_anew(supervisord, name)
    deadline = time.monotonic() + READY_SECONDS
    while True:
        pid = servers(supervisord).get(name)
        if pid is not None and is_ready(pid, database):
            return
        if time.monotonic() > deadline:
            raise NotRestartedError(
                f"{name} is not ready {READY_SECONDS:.0f} s after it was started anew. The "
                f"other process is left as it is, and serves. "
                f"{typed(f'supervisorctl tail {name}')} says more."
            )
        time.sleep(0.05)


def restart_all(folder: Path) -> None:
    """Start all processes of the appliance in ``folder`` anew, one after the other.

    Raises:
        NotRestartedError, SettingsError: not all of them.
    """
    pid = supervisord_of(folder)
    none_runs = NotRestartedError(
        f"No process of the server runs here. Nothing has been changed. make run starts it; "
        f"{typed('supervisorctl status')} says what has become of it."
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
            # The server last: the standby, which is new by then, takes over from it.
            for name in sorted(running, key=lambda name: running[name] == server):
                restart(supervisord, name, database)
                print(f"{name} has been started anew", flush=True)
            for name in BESIDE:
                start_anew(supervisord, name)
                print(f"{name} has been started anew", flush=True)
    except OSError as error:
        raise NotRestartedError(
            f"supervisord, process {pid}, can't be reached by {CONTROL}: {error.strerror}. Nothing "
            f"more has been restarted. If that file was removed, kill {pid} ends supervisord, and "
            f"make run starts it again."
        ) from error
    except xmlrpc.client.Error as error:
        raise NotRestartedError(
            f"supervisord refuses: {error}. The process that it was about may be stopped; the "
            f"others are as they were. {typed('supervisorctl status')} shows them."
        ) from error


def main() -> int:
    """Start all anew; return the status to exit with."""
    try:
        restart_all(Path.cwd())
    except (NotRestartedError, SettingsError) as error:
        print(f"fibcore: {explain(error)}", file=sys.stderr)
        return getattr(error, "status", os.EX_TEMPFAIL)
    return 0


if __name__ == "__main__":
    sys.exit(main())
