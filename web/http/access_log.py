"""The access log: a line for each request, made of it and written by the log's own thread.

All that a request costs the event loop is a note of it. What was noted goes to the log when there
is enough of it, or after a moment, which is what a process that is killed loses. A note holds the
text of its line and nothing of the request, so that its size is known.
"""

import asyncio
import json
import logging
import os
import sys
import time
from typing import Final, NamedTuple, TypeAlias

from fibcore.appliance.logs import Lines, iso
from web.http.heads import Head

MOST_TOGETHER: Final = 64
"""Requests that are handed to the log together."""

WAIT_SECONDS: Final = 0.1
"""How long one may wait for others."""

MAX_TARGET: Final = 1024
"""Characters of a target that are logged; of a longer one, how long it is."""

NOTE_SIZE: Final = 128
"""Bytes of a note, besides the text of its request."""

_logger = logging.getLogger("access")


class Request(NamedTuple):
    """What is logged of a request."""

    method: str
    target: str
    version: str

    def cut(self) -> "Request":
        """The same with a target of at most ``MAX_TARGET`` characters, and its length."""
        if len(self.target) <= MAX_TARGET:
            return self
        target = f"{self.target[:MAX_TARGET]}… ({len(self.target)} characters)"
        return self._replace(target=target)


UNKNOWN: Final = Request("-", "-", "-")
"""For what was not understood."""

Note: TypeAlias = tuple[float, str, str, int]
"""When a request was answered, who asked, the text that says what for, and the status."""


class AccessLog:
    """Takes notes of requests. It belongs to the event loop.

    Args:
        as_json: whether a line is an object, else it is as other lines of the log, and then as
            uvicorn has it.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._line = _JsonLines() if as_json else _TextLines()
        self._notes: list[Note] = []

    def note(self, client: str, asked: Head | Request | None, status: int) -> None:
        """Have it logged."""
        notes = self._notes
        if not notes:
            asyncio.get_running_loop().call_later(WAIT_SECONDS, self.push)
        notes.append((time.time(), client, self._text(asked), status))
        if len(notes) >= MOST_TOGETHER:
            self.push()

    def _text(self, asked: Head | Request | None) -> str:
        if not isinstance(asked, Head):
            return self._line.request((asked or UNKNOWN).cut())
        if asked.logged is None:
            # Once for a head that comes again.
            target = asked.target.decode("latin-1")
            asked.logged = self._line.request(Request(asked.method, target, asked.version).cut())
        return asked.logged

    def info(self, _: str, client: str, method: str, target: str, version: str, code: int) -> None:
        """The same, as uvicorn asks a logger."""
        self.note(client, Request(method, target, version), code)

    def push(self) -> None:
        """Hand to the log what was noted."""
        notes, self._notes = self._notes, []
        if notes:
            lines = _Lines(notes, self._line)
            _logger.handle(_logger.makeRecord("access", logging.INFO, "", 0, lines, (), None))


class _Lines(Lines):
    """The lines of some requests."""

    def __init__(self, notes: list[Note], line: "_TextLines") -> None:
        size = sum([NOTE_SIZE + sys.getsizeof(text) for _, _, text, _ in notes])
        super().__init__(len(notes), size)
        self._notes = notes
        self._line = line

    def __str__(self) -> str:
        return "".join([self._line(*note) for note in self._notes])


class _TextLines:
    """Makes lines. All but ``request`` belongs to the thread that writes."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._second = 0
        self._moment = ""

    def __call__(self, now: float, client: str, request: str, status: int) -> str:
        second = int(now)
        if second != self._second:
            self._second, self._moment = second, self.moment(now)
        return self.line(self._moment, int(now * 1000) % 1000, client, request, status)

    def moment(self, now: float) -> str:
        """The time without milliseconds, as the rest of the log has it."""
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))

    def request(self, request: Request) -> str:
        """What was asked."""
        if request is UNKNOWN:
            return '"-"'
        return f'"{request.method} {request.target} HTTP/{request.version}"'

    def line(self, moment: str, milliseconds: int, client: str, request: str, status: int) -> str:
        """All of it."""
        return f"{moment},{milliseconds:03} {self._pid} INFO {client} - {request} {status}\n"


class _JsonLines(_TextLines):
    """The same as objects."""

    def moment(self, now: float) -> str:
        return iso(now)[:19]

    def request(self, request: Request) -> str:
        asked = dict.fromkeys(Request._fields) if request is UNKNOWN else request._asdict()
        return json.dumps(asked)[1:-1]

    def line(self, moment: str, milliseconds: int, client: str, request: str, status: int) -> str:
        return (
            f'{{"time": "{moment}.{milliseconds:03}Z", "level": "info", "pid": {self._pid}, '
            f'"event": "access", "client": "{client}", {request}, "status": {status}}}\n'
        )
