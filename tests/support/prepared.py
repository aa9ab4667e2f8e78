"""Fast start of Python processes: forks of a template that has imported the server's libraries.

    server = start(["python", "-m", "web"], stdin, log, log, environment)
    server.wait(PATIENCE)

Starting Python and importing these libraries takes longer than most tests, and there are hundreds
of starts. A fork runs ``-m``, a file or ``-c`` as usual, in the current folder. Processes that
supervisord or a shell starts are not forks.
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

MAX_MESSAGE_BYTES: Final = 131_072
"""A message contains an environment."""


class Prepared:
    """A forked Python process, with the interface of ``Popen``."""

    def __init__(self, template: "_Template", pid: int) -> None:
        self._template = template
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return its exit status, negative for a signal, or None while it runs."""
        if self.returncode is None:
            self.returncode = self._template.ask({"ended": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return its exit status, negative for a signal."""
        if self.returncode is None:
            # The template reaps it only when asked: until then the id is not reused.
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
        """Send a signal unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Template:
    """The process that is forked. It ends with its parent."""

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
            answer = self._socket.recv(MAX_MESSAGE_BYTES)
        assert answer, "the template has ended"
        return json.loads(answer)


def _network() -> str:
    """Return the current network namespace of the calling thread."""
    return str(Path("/proc/thread-self/ns/net").readlink())


NETWORK: Final = _network()
"""The namespace of most tests."""

_template: Final = functools.cache(_Template)


def start(
    command: Sequence[str],
    stdin: int,
    output: int,
    environment: Mapping[str, str],
    folder: Path | None = None,
) -> Prepared | subprocess.Popen[bytes]:
    """Start ``command``, as a fork if it is this Python in a similar environment.

    A command in another network namespace, with LD_PRELOAD, under coverage, or with variables of
    supervisord that the watchdog reads, starts normally.
    """
    here = os.environ | {"COVERAGE_PROCESS_CONFIG": ""}
    begins_alike = _network() == NETWORK and all(
        environment.get(name, "") == here.get(name, "")
        for name in environment.keys() | here.keys()
        if name.startswith(("LD_", "PYTHON", "COVERAGE_PROCESS", "SUPERVISOR_"))
    )
    if command[0] != sys.executable or not begins_alike:
        # Like the template, it must find the packages bench and tests.
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
    """Serve requests; return the fork's arguments in each fork."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(asked, MAX_MESSAGE_BYTES, 2)
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
    """Become ``python *command``."""
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
