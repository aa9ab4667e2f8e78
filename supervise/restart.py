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

import contextlib
import os
import sys
import time
import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NoReturn, cast

from supervisor.xmlrpc import Faults, SupervisorTransport

from fibcore.appliance import configuration
from fibcore.appliance.beats import beat_of
from fibcore.appliance.heartbeat import STARTING_SECONDS
from fibcore.appliance.settings import Settings
from fibcore.problems import SettingsError, explain, typed
from fibcore.stores.lock import server_of, waiting_for

CONTROL: Final = Path("var", "supervisor.sock")
GROUP: Final = "web"
BESIDE: Final = ("watchdog", "backup")
"""What runs beside it, of which there is one each."""
READY_SECONDS: Final = 60.0


class NotRestartedError(Exception):
    """What kept a process from being started anew, and what it means."""


class Supervisord:
    """The supervisord of this folder."""

    def __init__(self, proxy: xmlrpc.client.ServerProxy) -> None:
        self._calls: Any = proxy.supervisor

    @classmethod
    @contextlib.contextmanager
    def connected(cls, folder: Path) -> Iterator["Supervisord"]:
        """That of ``folder``, for a ``with`` block.

        Raises:
            NotRestartedError: it does not run, or refuses.
        """
        transport = SupervisorTransport(serverurl=f"unix://{folder / CONTROL}")
        try:
            with xmlrpc.client.ServerProxy("http://127.0.0.1", transport) as proxy:
                yield cls(proxy)
        except OSError:
            _none_runs()
        except xmlrpc.client.Error as error:
            raise NotRestartedError(
                f"supervisord refuses: {error}. The process that it was about may be stopped; the "
                f"others are as they were. {typed('supervisorctl status')} shows them."
            ) from error

    def servers(self) -> dict[str, int]:
        """The running processes of the server, by name."""
        listed = cast("list[dict[str, Any]]", self._calls.getAllProcessInfo())
        return {
            f"{GROUP}:{each['name']}": each["pid"]
            for each in listed
            if each["group"] == GROUP and each["statename"] == "RUNNING"
        }

    def restart(self, name: str) -> None:
        """Start a process anew, whether it runs or not."""
        try:
            self._calls.stopProcess(name)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != Faults.NOT_RUNNING:
                raise
        self._calls.startProcess(name)


def _none_runs() -> NoReturn:
    raise NotRestartedError(
        f"No process of the server runs here. Nothing has been changed. make run starts it; "
        f"{typed('supervisorctl status')} says what has become of it."
    )


def is_ready(pid: int, database: Path | None) -> bool:
    """Whether a process can take over or has done so, or serves from a store that is shared."""
    if database is None:
        beat = beat_of(pid)
        return beat is not None and beat.patience < STARTING_SECONDS
    return pid in (waiting_for(database) or ()) or pid == server_of(database)


def restart(supervisord: Supervisord, name: str, database: Path | None) -> None:
    """Start the process ``name`` anew; return when it is ready.

    Raises:
        NotRestartedError: it does not come to that.
    """
    supervisord.restart(name)
    deadline = time.monotonic() + READY_SECONDS
    while True:
        pid = supervisord.servers().get(name)
        if pid is not None and is_ready(pid, database):
            return
        if time.monotonic() > deadline:
            raise NotRestartedError(
                f"{name} is not ready {READY_SECONDS:.0f} s after it was started anew. The "
                f"other process is left as it is, and serves. "
                f"{typed(f'supervisorctl tail {name}')} says more."
            )
        time.sleep(0.05)


def main() -> int:
    """Start all anew; return the status to exit with."""
    folder = Path.cwd()
    try:
        settings = Settings.from_environ(configuration.started_with(folder))
        database = settings.database
        with Supervisord.connected(folder) as supervisord:
            servers = supervisord.servers()
            if not servers:
                _none_runs()
            server = None if database is None else server_of(database)
            # The server last: the standby, which is new by then, takes over from it.
            for name in sorted(servers, key=lambda name: servers[name] == server):
                restart(supervisord, name, database)
                print(f"{name} has been started anew", flush=True)
            for name in BESIDE:
                supervisord.restart(name)
                print(f"{name} has been started anew", flush=True)
    except SettingsError as error:
        print(f"fibcore: {explain(error)}", file=sys.stderr)
        return os.EX_CONFIG
    except NotRestartedError as error:
        print(f"fibcore: {error}", file=sys.stderr)
        return os.EX_TEMPFAIL
    return 0


if __name__ == "__main__":
    sys.exit(main())
