"""The access log: one line per request, formatted and written by the log's own thread.

The event loop only appends a note. Notes go to the log in batches, after ``WAIT_SECONDS`` at the
latest; a killed process loses those not yet handed over. A note holds the text of its line and no
reference to the request, so its size is known.
"""

import asyncio
import ipaddress
import json
import logging
import os
import sys
import time
from typing import Any, Final, NamedTuple, TypeAlias

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.utils import get_client_addr, get_remote_addr

from fibcore.appliance.logs import Lines, iso
from web.http.heads import Head, Logged

MOST_TOGETHER: Final = 64
"""Notes per batch."""

WAIT_SECONDS: Final = 0.1
"""How long a note may wait for its batch to fill."""

MAX_TARGET: Final = 1024
"""Characters of a target that are logged; a longer one is cut and its length added."""

MAX_AGENT: Final = 256
"""Characters of a user agent that are logged."""

NOTE_SIZE: Final = 192
"""Bytes of a note, not counting the text of its request."""

FIELDS: Final = frozenset((b"user-agent", b"x-forwarded-for"))
"""The header fields that are logged."""

_logger = logging.getLogger("access")


class Client(NamedTuple):
    """The other end of a connection."""

    name: str
    """Its address and port."""
    is_proxy: bool
    """Whether it is a proxy trusted to name the client."""


Note: TypeAlias = tuple[float, str, str, int, int, float]
"""The time of the answer, the client, the text of the request, the status, the size of the body in
bytes, and the seconds from the request's first byte to its answer."""


class AccessLog:
    """Collects notes of requests. Use it on the event loop only.

    Args:
        as_json: whether a line is a JSON object; otherwise it is text in uvicorn's format, plus
            the size of the body, the seconds, and the user agent.
        proxies: the trusted proxies, in the form of uvicorn's ``--forwarded-allow-ips``.
    """

    def __init__(self, *, as_json: bool, proxies: str = "") -> None:
        self._line = _JsonLines() if as_json else _TextLines()
        self._notes: list[Note] = []
        app: Any = None
        self._proxies = ProxyHeadersMiddleware(app, proxies).trusted_hosts
        self._unknown = Logged("", self._line.request(None, ""))

    def client_of(self, transport: asyncio.Transport) -> Client:
        """The client of a connection."""
        peer = get_remote_addr(transport)
        scope: Any = {"client": peer}
        return Client(get_client_addr(scope), peer is not None and peer[0] in self._proxies)

    def note(
        self, client: Client, head: Head | None, status: int, size: int, seconds: float
    ) -> None:
        """Note a request; ``head`` is None if it was malformed."""
        notes = self._notes
        if not notes:
            asyncio.get_running_loop().call_later(WAIT_SECONDS, self.push)
        logged = self._logged(head)
        name = (client.is_proxy and logged.client) or client.name
        notes.append((time.time(), name, logged.text, status, size, seconds))
        if len(notes) >= MOST_TOGETHER:
            self.push()

    def _logged(self, head: Head | None) -> Logged:
        if head is None:
            return self._unknown
        if head.logged is None:
            fields = dict(head.varying)
            forwarded = fields.get(b"x-forwarded-for", b"").decode("latin-1")[-MAX_TARGET:]
            agent = fields.get(b"user-agent", b"").decode("latin-1")[:MAX_AGENT]
            head.logged = Logged(self._forwarded(forwarded), self._line.request(head, agent))
        return head.logged

    def _forwarded(self, forwarded: str) -> str:
        """The client's address per ``X-Forwarded-For``: the last one not of a trusted proxy."""
        address, port = self._proxies.get_trusted_client_address(forwarded)
        try:
            # Without the zone, which may hold anything.
            found = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return ""
        return f"{found}:{port}"

    def push(self) -> None:
        """Hand the notes to the log."""
        notes, self._notes = self._notes, []
        if notes:
            lines = _Lines(notes, self._line)
            _logger.handle(_logger.makeRecord("access", logging.INFO, "", 0, lines, (), None))


class _Lines(Lines):
    """The log lines of a batch of notes."""

    def __init__(self, notes: list[Note], line: "_TextLines") -> None:
        super().__init__(len(notes), sum([NOTE_SIZE + sys.getsizeof(note[2]) for note in notes]))
        self._notes = notes
        self._line = line

    def __str__(self) -> str:
        return "".join([self._line(note) for note in self._notes])


class _TextLines:
    """Formats lines. All methods but ``request`` run in the writing thread."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._second = 0
        self._moment = ""

    def __call__(self, note: Note) -> str:
        second = int(note[0])
        if second != self._second:
            self._second, self._moment = second, self.moment(second)
        return self.line(self._moment, int(note[0] * 1000) % 1000, note)

    def moment(self, now: float) -> str:
        """The time without milliseconds, as in the rest of the log."""
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))

    def request(self, head: Head | None, agent: str) -> str:
        """The request and the user agent, separated by a null character, where the result goes.

        Both are quoted as in JSON: a client sends them.
        """
        asked = "-" if head is None else f"{head.method} {target_of(head)} HTTP/{head.version}"
        return f"{json.dumps(asked, ensure_ascii=False)}\0{json.dumps(agent or '-')}"

    def line(self, moment: str, milliseconds: int, note: Note) -> str:
        """The complete line."""
        _, client, request, status, size, seconds = note
        asked, _, agent = request.rpartition("\0")
        return (
            f"{moment},{milliseconds:03} {self._pid} INFO {client} - {asked} "
            f"{status} {size} {seconds:.6f} {agent}\n"
        )


class _JsonLines(_TextLines):
    """The same as JSON objects."""

    def moment(self, now: float) -> str:
        return iso(now)[:19]

    def request(self, head: Head | None, agent: str) -> str:
        asked = {
            "method": head and head.method,
            "target": head and target_of(head),
            "version": head and head.version,
            "agent": agent or None,
        }
        return json.dumps(asked)[1:-1]

    def line(self, moment: str, milliseconds: int, note: Note) -> str:
        _, client, request, status, size, seconds = note
        return (
            f'{{"time": "{moment}.{milliseconds:03}Z", "level": "info", "pid": {self._pid}, '
            f'"event": "access", "client": "{client}", {request}, "status": {status}, '
            f'"bytes": {size}, "seconds": {seconds:.6f}}}\n'
        )


def target_of(head: Head) -> str:
    """The target of a request, cut to ``MAX_TARGET`` characters plus a note of its length."""
    target = head.target.decode("latin-1")
    if len(target) <= MAX_TARGET:
        return target
    return f"{target[:MAX_TARGET]}… ({len(target)} characters)"
