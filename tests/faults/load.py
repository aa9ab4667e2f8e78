"""The load: clients that step and read without end, and write down all that they are told.

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

from bench.checker import Endpoint, Operation, Summary, WrongAnswer, check, index_of, residue_of
from tests.support.waiting import PATIENCE, until

MIX: Final[tuple[Endpoint, ...]] = ("next", "next", "current", "next", "previous")
"""What a client asks for, over and over."""

RETRY_SECONDS: Final = 0.005
"""How soon a client whose connection was refused, or closed on it, tries again."""


class Load:
    """The load on the server at ``port``, from ``__enter__`` to ``__exit__``.

    Every second client keeps its connection; each of the others makes a new one for every
    request, and half of these ask for it to be closed, which is more than the fast path takes.
    They run in a thread of their own, and end when what they have asked for is answered.

    Args:
        port: on the loopback, or those of several nodes, or their addresses and ports.
        clients: how many ask at the same time.
        rate: requests a second, of all together and at random moments; None for as many as are
            answered.
        conditional: whether every fourth client steps only from where it has heard of last.
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
        """Which requests were steps and have been answered, by their numbers."""
        self._last_answer = math.inf
        self._malformed: list[bytes] = []
        self.acknowledged = 0
        """The highest index that anybody has been told."""
        self.refused = 0
        """How often a connection could not be made."""
        self.errors: Counter[int] = Counter()
        """How often each status other than 200 was answered."""
        self.longest_gap = 0.0
        """The longest time in which no client was answered, in seconds."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    @property
    def history(self) -> list[Operation]:
        """All requests but those that were answered with an error, which have not stepped."""
        return list(self._requests.values())

    @property
    def steps(self) -> int:
        """How many steps have been answered."""
        return len(self._stepped)

    @property
    def unanswered(self) -> int:
        """Steps that have been sent and not answered."""
        return sum(each.endpoint == "next" and each.index is None for each in self.history)

    @property
    def rate(self) -> float:
        """Answers a second, from the first request to the last answer."""
        answered = [each for each in self.history if each.index is not None]
        begin, end = min(each.start for each in answered), max(each.end for each in answered)
        return len(answered) / (end - begin)

    def wait_for_steps(self, count: int = 1, seconds: float = PATIENCE) -> None:
        """Return when ``count`` steps have been answered that are asked for from now on.

        What was asked before may have been answered by somebody who is gone by now.
        """
        first, seen = self._asked, len(self._stepped)

        def are_answered() -> bool:
            return sum(number >= first for number in self._stepped[seen:]) >= count

        until(are_answered, f"{count} more steps are answered", seconds)

    def wait_for_errors(self, count: int = 1) -> None:
        """Return when ``count`` more requests have been answered with an error."""
        enough = self.errors.total() + count
        until(lambda: self.errors.total() >= enough, f"{count} more errors are answered")

    def lost(self, last: int) -> int:
        """How many answered steps are gone from a sequence that stands at ``last``.

        One whose index was answered to another step later is gone, too.
        """
        answered = [each.index for each in self.history if each.endpoint == "next" and each.index]
        return len(answered) - len({index for index in answered if index <= last})

    def check(self, *, first: int, last: int) -> Summary:
        """Fail unless everything that was answered was right. After ``__exit__``.

        Args:
            first: the index before the load.
            last: the index after it, and after whatever was done to the server since.
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
        # In fours, so that each node has clients of each kind.
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
        """Ask once. Whatever goes wrong, what is known of the request has been written down."""
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
            # Such as 304, where nobody has said what they have.
            self._malformed.append(status_line)
            raise asyncio.IncompleteReadError(status_line, None)
        if status == 200:
            # Acknowledged, even if the server dies before the rest of the answer has come.
            index = index_of(headers[b"etag"].decode())
            answered = replace(asked, end=time.monotonic(), index=index)
            self._requests[number] = answered
            self._note(number, answered)
        else:
            self.errors[status] += 1
            if status != 500:  # which leaves open what has happened
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
    """One client, for faults that come at a set point: it asks for one thing after the other.

    Args:
        port: on the loopback.
        history: what it is told is added to it.
    """

    def __init__(self, port: int, history: list[Operation]) -> None:
        self._port = port
        self._history = history

    def step(self, count: int = 1) -> None:
        """Step ``count`` times on one connection, or until there is no answer."""
        self._ask("next", count)

    def read(self) -> None:
        """Ask for where the sequence stands."""
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
