"""A server and its standbys, which start faster without supervisord."""

import itertools
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.support.servers import SERVER, Client, ServerProcess, listening_socket
from tests.support.waiting import until


class Servers:
    """Processes on one database and one listening socket, from ``__enter__`` to ``__exit__``.

    Args:
        database: may be missing.
        logs: the folder of the logs.
        standbys: the number of processes besides the server.
        settings: additional environment variables.
        command: what to run instead of ``python -m web``.
    """

    def __init__(
        self,
        database: Path,
        logs: Path,
        *,
        standbys: int = 0,
        settings: Mapping[str, str] | None = None,
        command: Sequence[str] = SERVER,
    ) -> None:
        self._database = database
        self._logs = logs
        self._count = standbys + 1
        self._settings = settings
        self._command = command
        self._listener = listening_socket()
        self._numbers = itertools.count(1)
        self._running: list[ServerProcess] = []
        self.port: int = self._listener.getsockname()[1]
        self.client = Client(f"http://127.0.0.1:{self.port}")

    def __enter__(self) -> Self:
        try:
            self.fill_up()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def fill_up(self) -> None:
        """Replace exited processes; return when one serves."""
        self._running = [each for each in self._running if each.process.poll() is None]
        while len(self._running) < self._count:
            name = f"server_{next(self._numbers)}"
            self._running.append(
                ServerProcess(
                    self._database,
                    self._listener,
                    self._settings,
                    name=name,
                    logs=self._logs,
                    command=self._command,
                )
            )
        until(self._one_serves, "a server serves")

    def _one_serves(self) -> bool:
        for each in self._running:
            assert each.process.poll() is None, each.log.text
        return any("listening at" in each.log.text for each in self._running)

    @property
    def server(self) -> ServerProcess:
        """The process that holds the lock."""
        found: list[ServerProcess] = []

        def is_there() -> bool:
            holder = int(Path(f"{self._database}.lock").read_text() or 0)
            found[:] = [
                each for each in self._running if each.pid == holder and each.process.poll() is None
            ]
            return bool(found)

        until(is_there, "one of the servers holds the lock")
        return found[0]

    @property
    def commit_thread(self) -> int:
        """The thread id of the server's commit thread."""
        found: list[int] = []

        def is_there() -> bool:
            for thread in Path(f"/proc/{self.server.pid}/task").iterdir():
                with suppress(OSError):
                    if (thread / "comm").read_text() == "commit\n":
                        found.append(int(thread.name))
            return bool(found)

        until(is_there, "the thread of commits has its name")
        return found[0]

    def freeze(self) -> None:
        """Stop all processes; return when no thread runs, in user mode or in the kernel."""
        for each in self._running:
            each.signal(signal.SIGSTOP)
        until(lambda: all(is_frozen(each.pid) for each in self._running), "every thread is stopped")

    def kill(self) -> None:
        """Kill all processes, and close the socket."""
        for each in self._running:
            each.process.kill()
            each.process.wait()
        self._listener.close()


def is_frozen(pid: int) -> bool:
    """Whether all threads are stopped or have exited."""
    for thread in Path("/proc").glob(f"{pid}/task/*/stat"):
        try:
            stat = thread.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        # The state follows the command's name, which is in parentheses and may contain anything.
        if stat.rpartition(")")[2].split()[0] not in {"T", "t", "Z", "X"}:
            return False
    return True
