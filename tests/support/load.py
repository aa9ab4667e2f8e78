"""The load: clients that step and read continually, and record every answer.

with Load(port) as load:
    load.wait_for_steps(100)
    os.kill(server, signal.SIGKILL)
    load.wait_for_steps(100)
load.check(first=0, last=index_at_the_end)
"""

import asyncio
import contextlib
import http.client
import itertools
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, Self

import uvloop

from tests.support.checker import (
    Endpoint,
    Operation,
    Summary,
    WrongAnswer,
    check,
    index_of,
    residue_of,
)
from tests.support.waiting import PATIENCE, until

MIX: Final[tuple[Endpoint, ...]] = ("next", "next", "current", "next", "previous")
"""The requests of a client, repeated."""

RETRY_SECONDS: Final = 0.005
"""Pause of a client whose connection was refused or closed."""


class Load:
    """The load on the server at ``port``, in a thread of its own.

    Every second client keeps its connection; the others make a new one for every request, and half
    of these send ``Connection: close``. The load ends when its last requests are answered.

    Args:
        port: on the loopback; or the ports, or addresses and ports, of several nodes.
        clients: number of concurrent clients.
        rate: requests per second of all clients, at random moments; None: no limit.
        conditional: whether every fourth client steps under ``If-Match``, from the last index that
            was answered.
    """

    def __init__(
        self,
        port: int | Sequence[int | tuple[str, int]],
        *,
        clients: int = 32,
        rate: float | None = 1000.0,
        conditional: bool = False,
    ) -> None:
        ports = (port,) if isinstance(port, int) else tuple(port)
        self._addresses = [("127.0.0.1", each) if isinstance(each, int) else each for each in ports]
        self._conditional = conditional
        self._clients = clients
        self._rate = rate
        self._random = random.Random(self._addresses[0][1])
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")
        self._requests: dict[int, Operation] = {}
        self._asked = 0
        self._stepped: list[int] = []
        """The numbers of the answered steps, among all requests."""
        self._last_answer = math.inf
        self._malformed: list[bytes] = []
        self.acknowledged = 0
        """The highest index answered so far."""
        self.refused = 0
        """Refused connections."""
        self.errors: Counter[int] = Counter()
        """Answers with each status other than 200."""
        self.longest_gap = 0.0
        """The longest time without an answer, in seconds."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    @property
    def history(self) -> list[Operation]:
        """All requests, except those answered with an error: these have not stepped."""
        return list(self._requests.values())

    @property
    def steps(self) -> int:
        """Answered steps."""
        return len(self._stepped)

    @property
    def unanswered(self) -> int:
        """Steps that got no answer."""
        return sum(each.endpoint == "next" and each.index is None for each in self.history)

    @property
    def rate(self) -> float:
        """Answers per second, from the first request to the last answer."""
        answered = [each for each in self.history if each.index is not None]
        begin, end = min(each.start for each in answered), max(each.end for each in answered)
        return len(answered) / (end - begin)

    def wait_for_steps(self, count: int = 1, seconds: float = PATIENCE) -> None:
        """Return when ``count`` steps have been answered that were requested after this call.

        Earlier requests may have been answered by a server that is gone.
        """
        first, seen = self._asked, len(self._stepped)

        def are_answered() -> bool:
            return sum(number >= first for number in self._stepped[seen:]) >= count

        until(are_answered, f"{count} more steps are answered", seconds)

    def wait_for_errors(self, count: int = 1) -> None:
        """Return after ``count`` more answers with an error."""
        enough = self.errors.total() + count
        until(lambda: self.errors.total() >= enough, f"{count} more errors are answered")

    def lost(self, last: int) -> int:
        """Number of answered steps that a sequence at ``last`` has lost.

        A step whose index was answered again later is lost, too.
        """
        answered = [each.index for each in self.history if each.endpoint == "next" and each.index]
        return len(answered) - len({index for index in answered if index <= last})

    def check(self, *, first: int, last: int) -> Summary:
        """Fail if any answer was wrong. Call it after ``__exit__``.

        Args:
            first: the index before the load.
            last: the index now.
        """
        if self._malformed:
            raise WrongAnswer(f"an answer that this request never gets: {self._malformed[0]!r}")
        return check(self.history, first=first, last=last)

    def _run(self) -> None:
        async def all_clients() -> None:
            async with asyncio.TaskGroup() as group:
                for number in range(self._clients):
                    group.create_task(self._client(number))

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(all_clients())

    async def _client(self, number: int) -> None:
        endpoints = itertools.cycle(MIX[number % len(MIX) :] + MIX[: number % len(MIX)])
        keeps = number % 2 == 0
        # In fours: each node has clients of each kind.
        address = self._addresses[number // 4 % len(self._addresses)]
        fields = b"Host: %b\r\n" % address[0].encode()
        if number % 4 == 1:
            fields += b"Connection: close\r\n"
        conditional = self._conditional and number % 4 == 2
        while not self._stopping.is_set():
            try:
                reader, writer = await asyncio.open_connection(*address)
            except OSError:
                self.refused += 1
                await asyncio.sleep(RETRY_SECONDS)
                continue
            try:
                await self._converse(
                    endpoints if keeps else itertools.islice(endpoints, 1),
                    fields,
                    conditional,
                    reader,
                    writer,
                )
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                await asyncio.sleep(RETRY_SECONDS)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _converse(
        self,
        endpoints: Iterator[Endpoint],
        fields: bytes,
        conditional: bool,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        for endpoint in endpoints:
            async with asyncio.timeout(PATIENCE):
                expected = self.acknowledged if conditional and endpoint == "next" else None
                await self._request(endpoint, fields, expected, reader, writer)
            if self._rate is not None:
                await asyncio.sleep(self._random.expovariate(self._rate / self._clients))
            if self._stopping.is_set():
                return

    async def _request(
        self,
        endpoint: Endpoint,
        fields: bytes,
        expected: int | None,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Send one request, and record the outcome."""
        number = self._asked
        self._asked += 1
        asked = self._requests[number] = Operation(endpoint, time.monotonic(), expected=expected)
        if expected is not None:
            fields += b'If-Match: "%d"\r\n' % expected
        writer.write(b"GET /%b HTTP/1.1\r\n%b\r\n" % (endpoint.encode(), fields))
        status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines if line)
        status = int(status_line.split()[1])
        if b"content-length" not in headers:
            # For example 304, which no client has requested.
            self._malformed.append(status_line)
            raise asyncio.IncompleteReadError(status_line, None)
        if status == 200:
            # Acknowledged, even if the server dies before the rest of the answer arrives.
            index = index_of(headers[b"etag"].decode())
            answered = replace(asked, end=time.monotonic(), index=index)
            self._requests[number] = answered
            self._note(number, answered)
        else:
            self.errors[status] += 1
            if status != 500:  # whose outcome is unknown
                del self._requests[number]
        body = await reader.readexactly(int(headers[b"content-length"]))
        if status == 200:
            try:
                self._requests[number] = replace(answered, number=residue_of(endpoint, body))
            except WrongAnswer:
                self._malformed.append(body)

    def _note(self, number: int, answered: Operation) -> None:
        assert answered.index is not None
        if answered.endpoint == "next":
            self._stepped.append(number)
        self.acknowledged = max(self.acknowledged, answered.index)
        self.longest_gap = max(self.longest_gap, answered.end - self._last_answer)
        self._last_answer = answered.end


class SequentialClient:
    """One client with one request at a time, for faults at a certain point.

    Args:
        port: on the loopback.
        history: takes the answers.
    """

    def __init__(self, port: int, history: list[Operation]) -> None:
        self._port = port
        self._history = history

    def step(self, count: int = 1) -> None:
        """Step ``count`` times on one connection, or until an answer is missing."""
        self._ask("next", count)

    def read(self) -> None:
        """Read the index."""
        self._ask("current", 1)

    def _ask(self, endpoint: Endpoint, count: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        with contextlib.closing(connection):
            for _ in range(count):
                asked = Operation(endpoint, time.monotonic())
                try:
                    connection.request("GET", f"/{endpoint}")
                    response = connection.getresponse()
                    body = response.read()
                except (OSError, http.client.HTTPException):
                    self._history.append(asked)
                    return
                assert response.status == 200, body
                index = index_of(response.headers["ETag"])
                number = residue_of(endpoint, body)
                self._history.append(
                    replace(asked, end=time.monotonic(), index=index, number=number)
                )
