"""Clients that step with ``fibcore.Client``, lose answers, and record each number.

with KeyedClients([proxy.url]) as clients:
    clients.wait_for_steps(500)
    os.kill(server, signal.SIGKILL)
    clients.wait_for_steps(500)
clients.check(first=0, last=index_at_the_end)
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, Self

from fibcore import Client
from fibcore.client import NoAnswerError, StepInDoubtError, UnavailableError
from tests.faults.conftest import Fault
from tests.support.checker import Operation, Summary, check, residue_of
from tests.support.proxy import Proxy
from tests.support.waiting import PATIENCE, until

COUNT: Final = 64


LOST: Final = 10
"""One answer in this many is lost."""


@contextlib.contextmanager
def lossy(*addresses: tuple[str, int]) -> Iterator[list[str]]:
    """The URLs of proxies in front of these servers; the proxies lose answers."""
    with contextlib.ExitStack() as stack:
        urls = []
        for host, port in addresses:
            proxy = stack.enter_context(Proxy(port, host=host))
            proxy.lose_each(LOST)
            urls.append(f"http://127.0.0.1:{proxy.port}")
        yield urls


class KeyedClients:
    """The clients, each in a thread of its own.

    Args:
        urls: of the servers; each client begins with a different one.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self._stopping = threading.Event()
        self._history: list[Operation] = []
        self.given_up = 0
        self._threads = []
        for place in range(COUNT):
            first = place % len(urls)
            client = Client([*urls[first:], *urls[:first]], timeout=PATIENCE, attempt_timeout=2.0)
            self._threads.append(threading.Thread(target=self._steps, args=(client,)))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _steps(self, client: Client) -> None:
        with client:
            client.current()
            while not self._stopping.is_set():
                asked = Operation("next", time.monotonic())
                try:
                    number = client.next()
                except StepInDoubtError:
                    self.given_up += 1
                    self._history.append(asked)
                    continue
                except (NoAnswerError, UnavailableError):
                    continue
                residue = residue_of("next", b'{"next": %b}' % number.digits.encode())
                self._history.append(
                    replace(asked, end=time.monotonic(), index=number.index, number=residue)
                )

    def wait_for_steps(self, count: int) -> None:
        """Return after ``count`` more answered steps."""
        enough = len(self._history) + count
        until(lambda: len(self._history) >= enough, f"{count} more steps are answered")

    def check(self, *, first: int, last: int) -> Summary:
        """Fail unless each step was made once, with its own number. Call it after ``__exit__``.

        Raises:
            WrongAnswer: an index was answered twice, out of order, with a wrong number, or to no
                client, except indexes of abandoned steps.
        """
        return check(self._history, first=first, last=last)

    def check_each_once(self, fault: Fault, *, last: int) -> None:
        """``check`` from index 0; no step is unanswered, and no client has given up."""
        summary = self.check(first=0, last=last)
        assert (summary.taken, self.given_up) == (0, 0)
        fault.saw(lost=0, note=f"{summary.steps} steps")
