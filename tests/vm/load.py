"""Steps from a few clients without a pause, each answer judged as it comes."""

import http.client
import threading
import time
from typing import Final, Self

from bench.values import Checker, WrongValue
from tests.support.servers import Client
from tests.support.waiting import until

__all__ = ["Load"]

CLIENTS: Final = 4
INTERVAL: Final = 0.1
"""Seconds between two steps of a client: 40 steps a second leave the emulated CPU time to work."""


class Load:
    """A load that is the only one to step, for as long as the context lasts.

    Once it has ended, ``judge`` holds what was answered against what is there.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._checker = Checker("exact", client.index)
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._step_on) for _ in range(CLIENTS)]
        self._last = time.monotonic()
        self._wrong: list[str] = []
        self.refused = 0
        """Connections that nobody took."""
        self.unanswered = 0
        """Steps that were sent, and whose answer did not come."""
        self.longest_gap = 0.0
        """Seconds from one answer to the next, of whichever client."""

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        try:
            self.wait_for_answers()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    @property
    def answered(self) -> int:
        """Steps that were answered."""
        return len(self._checker.stepped)

    def wait_for_answers(self, count: int = 40, seconds: float = 120.0) -> None:
        """Return when ``count`` steps more have been answered."""
        enough = self.answered + count
        until(lambda: self.answered >= enough, f"{count} more steps are answered", seconds)

    def judge(self, index: int) -> None:
        """Fail unless the sequence, now at ``index``, has kept its promises to these clients.

        Each answer had the number of its index, and an index above all that had been answered
        when its request was sent; none came twice. Here: none that was answered is lost, and
        what is missing belongs to a request that got no answer.
        """
        checker = self._checker
        assert self._wrong == []
        assert index >= checker.acknowledged
        assert index - checker.residues.start - self.answered <= self.unanswered

    def _step_on(self) -> None:
        connection = self._client.connect()
        while not self._ending.wait(INTERVAL):
            try:
                connection.connect()
            except OSError:
                with self._lock:
                    self.refused += 1
                continue
            try:
                while not self._ending.wait(INTERVAL):
                    self._step(connection)
            except (OSError, http.client.HTTPException):
                with self._lock:
                    self.unanswered += 1
            finally:
                connection.close()

    def _step(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            floor = self._checker.begin("next")
        connection.request("POST", "/next")
        response = connection.getresponse()
        body = response.read()
        with self._lock:
            now = time.monotonic()
            self.longest_gap = max(self.longest_gap, now - self._last)
            self._last = now
            try:
                if response.status != 200:
                    raise WrongValue(f"status {response.status}: {body!r}")
                self._checker.check("next", floor, response.headers["ETag"], body)
            except WrongValue as wrong:
                self._wrong.append(str(wrong))
