"""Clients that step while processes are killed, stopped and restarted."""

import http.client
import threading
from typing import Final, Self

from tests.support.servers import Client
from tests.support.waiting import until

PAUSE_SECONDS: Final = 0.005


class Clients:
    """Four clients that step at the server of ``client``, each request on a new connection."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._first = client.index
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._step) for _ in range(4)]
        self.indexes: list[int] = []
        """Of the answers."""
        self.unanswered = 0
        self.errors: list[object] = []
        """Refused connections, and answers with a status other than 200."""

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for each in self._threads:
            each.join()

    def wait_for_steps(self, count: int = 20) -> None:
        """Return when ``count`` more steps have been answered."""
        enough = len(self.indexes) + count
        until(lambda: len(self.indexes) >= enough, f"{count} more steps are answered")

    def check(self) -> None:
        """Fail if a connection was refused, or a step was lost or answered twice."""
        assert not self.errors
        assert len(set(self.indexes)) == len(self.indexes)
        last = self._client.index
        assert self._first < min(self.indexes)
        assert max(self.indexes) <= last <= self._first + len(self.indexes) + self.unanswered

    def _step(self) -> None:
        while not self._stopping.wait(PAUSE_SECONDS):
            try:
                answer = self._client.request("POST", "/next")
            except ConnectionRefusedError as error:
                self.errors.append(error)
            except (OSError, http.client.HTTPException):
                self.unanswered += 1
            else:
                if answer.status == 200:
                    self.indexes.append(answer.index)
                else:
                    self.errors.append(answer.status)
