"""Runs the whole appliance under a real supervisord, in a temporary folder on a free port.

    with Supervised() as appliance:
        assert appliance.get("/next") == '{"next": 1}'
        os.kill(appliance.server, signal.SIGKILL)
        appliance.log("supervisord").expect("exited: web_. .terminated by SIGKILL")

It uses the project's supervisord.conf, unless a test changes the copy in the folder before the
start. Nothing is left behind, whatever a test does to the processes.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self, cast
from xmlrpc.client import ServerProxy

from supervisor.xmlrpc import SupervisorTransport

from tests.support.ports import free_port
from tests.support.servers import HOST, Client
from tests.support.waiting import PATIENCE, Log, until

ROOT: Final = Path(__file__).parents[2]

EXTENSION: Final = re.compile(r"^\[rpcinterface:fibcore\]\n.*\n", re.MULTILINE)

LOCKS: Final = Path("/proc/locks")

STOP_SECONDS: Final = 30.0
"""supervisord kills a process that has not ended 10 seconds after a stop."""


class Process(NamedTuple):
    """The state of a process, as in supervisorctl; ``pid`` is 0 when there is none."""

    state: str
    """supervisord's name of the state."""
    pid: int


class Supervised:
    """The appliance; it runs from ``__enter__`` or ``start`` to ``__exit__`` or ``stop``.

    Args:
        settings: additional environment variables, such as ``{"FIB_MAX_INDEX": "5"}``, except
            FIB_HOST and FIB_PORT.
        command: run instead of ``python -m web``.
        inside: the command that starts supervisord, for example with a memory limit.
    """

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        *,
        command: Sequence[str] | None = None,
        inside: Sequence[str] = (),
    ) -> None:
        # Not pytest's tmp_path: the path of a Unix socket has at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="fibcore-"))
        if command is None:
            self.folder.joinpath(".venv").symlink_to(sys.prefix)
        else:
            self._put_in_place(command)
        self.folder.joinpath("var", "log").mkdir(parents=True)
        for name in ("supervisord.conf", "fibcore.conf"):
            shutil.copyfile(ROOT / name, self.folder / name)
        self._settings = dict(settings or {})
        self._inside = inside
        self.database = self.folder / self._settings.get("FIB_STATE", "var/fibcore.db")
        self.port = free_port()
        self._logs: dict[str, Log] = {}
        self._supervisord: subprocess.Popen[bytes] | None = None

    def _put_in_place(self, command: Sequence[str]) -> None:
        python = self.folder / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(
            f'#!/bin/sh\n[ "$*" != "-m web" ] || exec {shlex.join(command)}\n'
            f'exec {shlex.quote(sys.executable)} "$@"\n'
        )
        python.chmod(0o755)

    def set(self, name: str, value: str) -> None:
        """Set an environment variable for the next start."""
        self._settings[name] = value

    def take_away_the_extension(self) -> None:
        """Start supervisord without our extension from now on, for controls."""
        conf = self.folder / "supervisord.conf"
        text, count = EXTENSION.subn("", conf.read_text())
        assert count == 1
        conf.write_text(text)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if error:
            print(self.report())
        self._clean_up()

    def start(self) -> None:
        """Start supervisord as ``make run`` does; connections are accepted on return."""
        assert self._supervisord is None, "supervisord is already running"
        where = {"FIB_HOST": "127.0.0.1", "FIB_PORT": str(self.port), "FIB_ALLOWED_HOSTS": HOST}
        ours = {**where, **self._settings}
        foreign = {name: value for name, value in os.environ.items() if name[:4] != "FIB_"}
        log = self.log("supervisord")
        log.skip()
        with self.folder.joinpath("terminal").open("ab") as terminal:
            process = self._supervisord = subprocess.Popen(
                [*self._inside, f"{sys.prefix}/bin/supervisord", "-n", "-c", "supervisord.conf"],
                cwd=self.folder,
                env=foreign | ours,
                stdin=subprocess.DEVNULL,
                stdout=terminal,
                stderr=terminal,
            )
        until(
            lambda: bool(log.find("spawned: 'web_0'")) or process.poll() is not None,
            "supervisord starts the server, or reports why not",
        )
        assert process.poll() is None, self.report()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send supervisord a signal, wait for its end, and return its exit status."""
        assert self._supervisord is not None, "supervisord is not running"
        self._supervisord.send_signal(number)
        status = self._supervisord.wait(STOP_SECONDS)
        self._supervisord = None
        return status

    def _clean_up(self) -> None:
        try:
            if self._supervisord is not None:
                try:
                    self.stop()
                except subprocess.TimeoutExpired:
                    self._kill_all()
        finally:
            shutil.rmtree(self.folder)

    def _kill_all(self) -> None:
        assert self._supervisord is not None
        pid = self._supervisord.pid
        # A stopped supervisord reaps no child, so that no process id is reused before the kill.
        os.kill(pid, signal.SIGSTOP)
        for child in self.children():
            os.kill(child, signal.SIGKILL)
        self._supervisord.kill()
        self._supervisord.wait()
        self._supervisord = None

    def wait_until_all_run(self) -> None:
        """Wait until every process is RUNNING; the listeners take a second."""
        until(
            lambda: {process.state for process in self.processes().values()} == {"RUNNING"},
            "every process runs",
        )

    # Queries.

    @property
    def pid(self) -> int:
        """supervisord's process id."""
        assert self._supervisord is not None, "supervisord is not running"
        return self._supervisord.pid

    def has_ended(self) -> bool:
        """Whether supervisord has ended."""
        return self._supervisord is None or self._supervisord.poll() is not None

    def children(self) -> list[int]:
        """Return the children of supervisord that it has not reaped."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(child) for child in children.split()]

    @property
    def server(self) -> int:
        """The process id of the server. Waits until there is one."""
        self.get("/health")
        return int(Path(f"{self.database}.lock").read_text())

    @property
    def standby(self) -> int:
        """The process id of the standby. Waits until there is one."""
        return self.standby_after(0)

    def standby_after(self, before: int) -> int:
        """Wait for the standby that replaces ``before``; return its process id."""
        server = self.server
        found: list[int] = []

        def stands_by() -> bool:
            # A killed process exists for some time, but no longer waits for the lock.
            waiting = re.findall(r"-> FLOCK +ADVISORY +WRITE (\d+) ", LOCKS.read_text())
            found[:] = [
                process.pid
                for name, process in self.processes().items()
                if name.startswith("web:")
                and process.pid not in (0, server, before)
                and str(process.pid) in waiting
                and f"{process.pid} INFO standing by" in self.log(name[4:]).text
            ]
            return len(found) == 1

        until(stands_by, "one process stands by")
        return found[0]

    def processes(self) -> dict[str, Process]:
        """Return all processes by name, such as ``web:web_0``.

        It asks supervisord directly: starting supervisorctl takes longer.
        """
        transport = SupervisorTransport(serverurl=f"unix://{self.folder}/var/supervisor.sock")
        with ServerProxy("http://127.0.0.1", transport) as proxy:
            listed = cast("list[dict[str, Any]]", proxy.supervisor.getAllProcessInfo())
        return {
            each["name"] if each["group"] == each["name"] else f"{each['group']}:{each['name']}": (
                Process(each["statename"], each["pid"])
            )
            for each in listed
        }

    def supervisorctl(self, *arguments: str) -> str:
        """Run supervisorctl in the folder, without settings; return its output."""
        return subprocess.run(
            [f"{sys.prefix}/bin/supervisorctl", "-c", "supervisord.conf", *arguments],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,  # the status also tells whether processes run
        ).stdout

    def report(self) -> str:
        """Return all logs, for a failed test."""
        paths = [self.folder / "terminal", *sorted((self.folder / "var" / "log").glob("*.log"))]
        return "\n".join(f"---- {path.name}\n{path.read_text()}" for path in paths)

    def log(self, name: str) -> Log:
        """Return a log: supervisord, web_0, web_1, watchdog or backup."""
        path = self.folder / "var" / "log" / f"{name}.log"
        return self._logs.setdefault(name, Log(path))

    @property
    def client(self) -> Client:
        """A client, which opens a connection for each request."""
        return Client(f"http://127.0.0.1:{self.port}")

    @property
    def index(self) -> int:
        """The current index."""
        return self.client.index

    def get(self, path: str) -> str:
        """Send a GET; return the body of the answer, whose status must be 200."""
        answer = self.client.get(path)
        assert answer.status == 200, answer
        return answer.body.decode()
