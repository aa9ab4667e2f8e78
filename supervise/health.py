"""The health listener: ends a process that hangs, so that another takes its place.

At each event it asks the server for ``/health``. A server that doesn't answer, several times in a
row, is killed: the kernel frees its lock, and the standby takes over from the last committed
index. A standby that has been stopped is killed too, as it could not take over. supervisord
starts anew whatever is killed here.
"""

import argparse
import http.client
import logging
import os
import re
import socket
import sys
import time
import xmlrpc.client
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from fibcore.settings import Settings, SettingsError
from fibcore.stores.files import lock_path
from supervise.events import events, own_stdout

__all__ = ["Patience", "Role", "Supervisor", "Supervisord", "Symptom", "Watch", "ask", "main"]

logger = logging.getLogger("health")

RPC_SECONDS: Final = 10.0
"""How long supervisord may take over each step of an answer."""

MAX_HEAD: Final = 65_536
"""Bytes without the end of a head past which they are no answer."""

SHUTTING_DOWN: Final = 6
"""supervisord's fault code while it stops everything, and takes no more orders."""

ANSWER: Final = re.compile(rb"HTTP/1\.1 (200|503) ")
"""503 is an answer: a server that says that the disk is full doesn't hang."""


def ask(host: str, port: int, seconds: float) -> str | None:
    """Ask for ``/health``; return None when it is answered, else what came instead.

    ``seconds`` is for all of it: an answer that drips in byte by byte has no longer.
    """
    deadline = time.monotonic() + seconds
    request = f"GET /health HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
    head = b""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
            connection.settimeout(seconds)
            connection.connect((host, port))
            connection.sendall(request.encode())
            while b"\r\n\r\n" not in head and len(head) < MAX_HEAD:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                connection.settimeout(left)
                received = connection.recv(4096)
                if not received:
                    return f"the connection closed after {len(head)} bytes of an answer"
                head += received
    except TimeoutError:
        return f"no answer within {seconds:g} s"
    except OSError as error:
        return f"no answer: {error}"
    return None if ANSWER.match(head) else f"{head[:40]!r} is no answer to this question"


class Role(NamedTuple):
    """A process as what it is now: one that takes over begins anew."""

    pid: int
    serves: bool


class Symptom(NamedTuple):
    """What is wrong with a process at one tick."""

    what: str
    may_be_starting: bool


class Patience:
    """Tells which processes have been unwell for too long.

    Args:
        failures: ticks in a row at which one must be unwell.
        grace: seconds that one which may still be starting has to be well for the first time.
    """

    def __init__(self, failures: int, grace: float) -> None:
        self._failures = failures
        self._grace = grace
        self._first_seen: dict[Role, float] = {}
        self._been_well: set[Role] = set()
        self._unwell: dict[Role, int] = {}

    def tick(self, seen: Mapping[Role, Symptom | None], now: float) -> list[Role]:
        """Take in how everyone is at ``now``, in monotonic seconds; return those to end."""
        self._first_seen = {role: self._first_seen.get(role, now) for role in seen}
        self._been_well = {role for role in seen if not seen[role] or role in self._been_well}
        self._unwell = {role: self._unwell.get(role, 0) + 1 for role in seen if seen[role]}
        return [
            role
            for role, symptom in seen.items()
            if symptom
            and self._unwell[role] >= self._failures
            and not (symptom.may_be_starting and self._may_be_starting(role, now))
        ]

    def _may_be_starting(self, role: Role, now: float) -> bool:
        return role not in self._been_well and now - self._first_seen[role] < self._grace


class Supervisor(Protocol):
    """What is asked of supervisord."""

    def running(self, group: str) -> dict[int, str]:
        """The running processes of ``group``: their names by process id."""

    def kill(self, name: str) -> None:
        """Send SIGKILL to the process called ``name``."""


class Supervisord:
    """The supervisord that answers at ``url``, such as ``unix:///run/supervisor.sock``.

    It sends the signals, not we: as the parent it knows whether a process is still there, and
    until it has seen that one end, the kernel gives the process id to no other.

    All methods raise OSError, HTTPException or xmlrpc.client.Error when it can't be asked.
    """

    def __init__(self, url: str) -> None:
        self._path = url.removeprefix("unix://")

    def running(self, group: str) -> dict[int, str]:
        """The running processes of ``group``: one that is being stopped is left to supervisord."""
        return {
            process["pid"]: f"{process['group']}:{process['name']}"
            for process in self._call("getAllProcessInfo")
            if process["group"] == group and process["statename"] == "RUNNING"
        }

    def kill(self, name: str) -> None:
        """Send SIGKILL to the process called ``name``, which ends a stopped one too."""
        self._call("signalProcess", name, "KILL")

    def _call(self, method: str, *arguments: str) -> Any:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connected:
            connected.settimeout(RPC_SECONDS)
            connected.connect(self._path)
            connection = http.client.HTTPConnection("localhost")
            connection.sock = connected
            body = xmlrpc.client.dumps(arguments, f"supervisor.{method}")
            connection.request("POST", "/RPC2", body, {"Content-Type": "text/xml"})
            response = connection.getresponse()
            if response.status != 200:
                raise http.client.HTTPException(f"{response.status} {response.reason}")
            ((result,), _) = xmlrpc.client.loads(response.read())
            return result


class Watch:
    """One look at everything for each ``tick``."""

    def __init__(
        self,
        supervisor: Supervisor,
        group: str,
        settings: Settings,
        patience: Patience,
        seconds: float,
    ) -> None:
        self._supervisor = supervisor
        self._group = group
        self._settings = settings
        self._patience = patience
        self._seconds = seconds
        self._complained = False

    def tick(self) -> None:
        """Ask, and end what has not been well for too long."""
        complaint = ask(self._settings.host, self._settings.port, self._seconds)
        try:
            self._judge(complaint)
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            if isinstance(error, xmlrpc.client.Fault) and error.faultCode == SHUTTING_DOWN:
                return
            logger.error(
                "supervisord can't be asked: %s. Nothing is killed now, and the state is not "
                "touched. It is tried again at the next tick; look at supervisord.log.",
                error,
            )

    def _judge(self, complaint: str | None) -> None:
        # The holder is looked up after the answer: a process that has taken over meanwhile must
        # not be charged with what another did not answer.
        running = self._supervisor.running(self._group)
        holder = self._holder()
        self._log(complaint, running.get(holder))
        seen: dict[Role, Symptom | None] = {}
        for pid in running:
            symptom = None
            if _is_stopped(pid):
                symptom = Symptom("is stopped", may_be_starting=False)
            elif pid == holder and complaint is not None:
                symptom = Symptom(f"does not answer ({complaint})", may_be_starting=True)
            seen[Role(pid, pid == holder)] = symptom
        for role in self._patience.tick(seen, time.monotonic()):
            symptom = seen[role]
            assert symptom is not None
            logger.error(
                "%s (pid %d), the %s, %s, and is killed. No answered step is lost; %s.",
                running[role.pid],
                role.pid,
                "server" if role.serves else "standby",
                symptom.what,
                "the standby goes on from the last committed index"
                if role.serves
                else "the server is not touched, and another stands by in its place",
            )
            self._supervisor.kill(running[role.pid])

    def _holder(self) -> int:
        """The process id in the lock file, perhaps a stale one; 0 when there is none."""
        try:
            return int(lock_path(self._settings.state).read_bytes())
        except (FileNotFoundError, ValueError):
            return 0

    def _log(self, complaint: str | None, name: str | None) -> None:
        if complaint is not None:
            logger.warning(
                "/health at %s:%d: %s. It was for %s to answer.",
                self._settings.host,
                self._settings.port,
                complaint,
                name or f"none: no running process of {self._group} holds the lock of the state",
            )
        elif self._complained:
            logger.info("/health is answered again, by %s", name)
        self._complained = complaint is not None


def _is_stopped(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    # The state follows the command's name, which is in parentheses and may contain anything.
    return stat.rpartition(")")[2].split()[0] == "T"


def main(arguments: Sequence[str] | None = None) -> int:
    """Listen until supervisord is gone; return the status to exit with."""
    parser = argparse.ArgumentParser(prog="python -m supervise.health", description=__doc__)
    parser.add_argument("group", help="the group of processes to watch")
    parser.add_argument("--timeout", type=float, default=4.0, help="seconds for an answer")
    parser.add_argument("--failures", type=int, default=3, help="in a row, until it is killed")
    parser.add_argument("--grace", type=float, default=30.0, help="seconds for a first answer")
    options = parser.parse_args(arguments)
    stdout = own_stdout()
    try:
        settings = Settings.from_environ()
    except SettingsError as error:
        logger.critical("%s", error)
        return os.EX_CONFIG
    watch = Watch(
        Supervisord(os.environ["SUPERVISOR_SERVER_URL"]),
        options.group,
        settings,
        Patience(options.failures, options.grace),
        options.timeout,
    )
    for _ in events(sys.stdin, stdout):
        watch.tick()
    return 0


if __name__ == "__main__":
    sys.exit(main())
