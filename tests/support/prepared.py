"""Pythons that start at once: forks of one that has imported what servers do.

    server = start(["python", "-m", "web"], stdin, log, log, environment)
    server.wait(PATIENCE)

To begin a Python and import the server's libraries takes it longer than most of what tests ask of
it, and there are hundreds of them. From ``-m``, a file or ``-c`` on they run as ever, in the folder
of now; what supervisord, a shell or a user starts begins as anywhere.
"""

import atexit
import functools
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]

LARGEST: Final = 131_072
"""Bytes of a message: an environment."""


class Prepared:
    """A Python that was forked; it is used as a ``Popen`` is."""

    def __init__(self, template: "_Template", pid: int) -> None:
        self._template = template
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit status, negative for a signal, or None while it runs."""
        if self.returncode is None:
            self.returncode = self._template.ask({"ended": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended; return its exit status, negative for a signal."""
        if self.returncode is None:
            # Its id is its own until it has been asked about.
            ended = os.pidfd_open(self.pid)
            try:
                select.select([ended], [], [], timeout)
            finally:
                os.close(ended)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class _Template:
    """The process that is forked. It ends with the one that has made this."""

    def __init__(self) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(its.fileno())],
                cwd=ROOT,
                pass_fds=[its.fileno()],
            )
        self._socket = ours
        self._lock = threading.Lock()
        atexit.register(self._end)

    def _end(self) -> None:
        self._socket.close()
        self._process.wait()

    def ask(self, question: object, descriptors: Sequence[int] = ()) -> Any:
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(question).encode()], descriptors)
            answer = self._socket.recv(LARGEST)
        assert answer, "the template has ended"
        return json.loads(answer)


def _network() -> str:
    """The namespace that a socket would be made in, as of now."""
    return str(Path("/proc/thread-self/ns/net").readlink())


NETWORK: Final = _network()
"""That of all tests which say nothing else."""

_template: Final = functools.cache(_Template)


def start(
    command: Sequence[str],
    stdin: int,
    output: int,
    environment: Mapping[str, str],
    folder: Path | None = None,
) -> Prepared | subprocess.Popen[bytes]:
    """Start ``command``, prepared if it is a Python that would begin like ours.

    One in another network, with a library of its own before the others (LD_PRELOAD), whose coverage
    is wanted, or whose environment the watchdog looks at, begins as a Python begins.
    """
    here = os.environ | {"COVERAGE_PROCESS_CONFIG": ""}
    begins_alike = _network() == NETWORK and all(
        environment.get(name, "") == here.get(name, "")
        for name in environment.keys() | here.keys()
        if name.startswith(("LD_", "PYTHON", "COVERAGE_PROCESS", "SUPERVISOR_"))
    )
    if command[0] != sys.executable or not begins_alike:
        # The template finds bench and tests, since it was started where they are.
        path = [*filter(None, [environment.get("PYTHONPATH")]), str(ROOT)]
        environment = {**environment, "PYTHONPATH": os.pathsep.join(path)}
        return subprocess.Popen(
            command, stdin=stdin, stdout=output, stderr=output, env=environment, cwd=folder
        )
    sys.audit("os.fork")
    what = {
        "command": command[1:],
        "folder": str(folder or Path.cwd()),
        "environment": dict(environment),
    }
    with Path(os.devnull).open("rb") as nothing:
        its = nothing.fileno() if stdin == subprocess.DEVNULL else stdin
        return Prepared(_template(), _template().ask(what, [its, output]))


# In the template.


def _fork_when_asked(asked: socket.socket) -> dict[str, Any]:
    """Return in each fork what it is to be."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(asked, LARGEST, 2)
        if not message:
            os._exit(0)
        question: dict[str, Any] = json.loads(message)
        answer: int | None
        if "ended" in question:
            pid, status = os.waitpid(question["ended"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if not answer:
                asked.close()
                for number, descriptor in enumerate((*descriptors, descriptors[1])):
                    os.dup2(descriptor, number)
                for descriptor in descriptors:
                    os.close(descriptor)
                return question
        for descriptor in descriptors:
            os.close(descriptor)
        asked.send(json.dumps(answer).encode())


def _be(command: Sequence[str], folder: str, environment: Mapping[str, str]) -> None:
    """Be ``python *command`` from here on."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    how, *arguments = command
    if how == "-m":
        sys.argv = arguments
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    elif how == "-c":
        sys.argv = [how, *arguments[1:]]
        exec(compile(arguments[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [how, *arguments]
        sys.path[0] = str(Path(how).parent)
        runpy.run_path(how, run_name="__main__")


def _main() -> None:
    import psycopg  # noqa: F401
    import redis  # noqa: F401
    import uvicorn.protocols.http.httptools_impl  # noqa: F401

    import web.server  # noqa: F401

    gc.freeze()
    _be(**_fork_when_asked(socket.socket(fileno=int(sys.argv[1]))))


if __name__ == "__main__":
    _main()
