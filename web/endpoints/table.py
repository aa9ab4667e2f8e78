"""The one table of what each path does, and of the header fields that can change an answer.

The protocol and the Starlette application both read it. To add an endpoint is to add a row.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from web.endpoints import sequence
from web.endpoints.metrics import metrics
from web.endpoints.number import look_up
from web.endpoints.openapi import describe
from web.endpoints.sequence import CURRENT, NEXT, PREVIOUS, Responder
from web.endpoints.status import status
from web.http import answers
from web.http.origins import CORS, preflight
from web.http.request import CONDITIONS, KEY, MEANT, NOTHING, REPRESENTATION, Reply, Request
from web.service import Service

CONNECTION_FIELDS: Final = frozenset(
    (b"connection", b"content-length", b"expect", b"host", b"transfer-encoding", b"upgrade")
)
"""The fields that can change what becomes of the connection. With those that the rows of the table
name they are all that count; every other field is skipped."""


ELSEWHERE: Final = ""
"""What stands for the path of all that is at none of the table's."""


class Endpoint(NamedTuple):
    """A row: a path, and what is done with it."""

    path: str
    """Exact, but for a ``{name}`` in it, which stands for one segment."""
    methods: tuple[str, ...]
    respond: Responder
    """Answers a request by one of the methods."""
    cache_control: bytes
    """How its errors may be cached: as its good answers."""
    fields: frozenset[bytes] = frozenset()
    """The header fields that can change its answers, in lower case."""
    has_index: bool = False
    """Whether its answers say where the sequence stands."""
    steps: bool = False
    """Whether a request for it may step."""

    def responder(self, method: str) -> Responder:
        """What answers a request by ``method``, whichever it is."""
        return self.respond if method in self.methods else self._not_allowed

    def _not_allowed(self, service: Service, request: Request, reply: Reply) -> None:
        if (
            request.method == "OPTIONS"
            and request.preflight
            and request.origin in service.settings.allowed_origins
        ):
            reply(preflight(self.methods))
            return
        snapshot = service.snapshot if self.has_index else None
        reply(
            answers.method_not_allowed(
                request.method,
                self.path,
                self.methods,
                index=None if snapshot is None else snapshot.index,
                cache_control=self.cache_control,
            )
        )


class Table:
    """The endpoints, found by path."""

    def __init__(self, rows: Iterable[Endpoint]) -> None:
        self.rows = tuple(rows)
        self.fields = frozenset[bytes]().union(*(row.fields for row in self.rows))
        """The header fields that can change an answer."""
        self.paths = ("/", *(row.path for row in self.rows))
        """What a person is told to look for who has looked elsewhere."""
        self.nowhere = Endpoint(ELSEWHERE, (), self._not_found, answers.NO_STORE)
        """In place of a row, where there is nothing: to have Starlette say so takes ten times as
        long. Its one parameter is the path."""
        self._exact = {row.path: row for row in self.rows if "{" not in row.path}
        self._patterns = [(_pattern(row.path), row) for row in self.rows if "{" in row.path]

    def find(self, path: str) -> tuple[Endpoint, Mapping[str, str]] | None:
        """The endpoint at ``path``, which is decoded, and what stands for the names in its own."""
        row = self._exact.get(path)
        if row is not None:
            return row, NOTHING
        for pattern, row in self._patterns:
            if (match := pattern.fullmatch(path)) is not None:
                return row, match.groupdict()
        return None

    def _not_found(self, service: Service, request: Request, reply: Reply) -> None:  # noqa: ARG002
        reply(answers.not_found(request.parameters["path"], self.paths))


def _pattern(path: str) -> re.Pattern[str]:
    pieces = re.split(r"\{(\w+)\}", path)
    pieces[::2] = map(re.escape, pieces[::2])
    pieces[1::2] = (f"(?P<{name}>[^/]+)" for name in pieces[1::2])
    return re.compile("".join(pieces))


def _misdirected(service: Service, request: Request, reply: Reply) -> None:  # noqa: ARG001
    reply(answers.misdirected())


MISDIRECTED: Final = Endpoint(ELSEWHERE, (), _misdirected, answers.NO_STORE)
"""In place of any other, where a request is for a host that is none of ours."""

TABLE: Final = Table(
    (
        Endpoint(
            "/current",
            ("GET", "HEAD"),
            sequence.read(CURRENT, lambda snapshot: snapshot.current),
            CURRENT.cache_control,
            REPRESENTATION | CONDITIONS | CORS,
            has_index=True,
        ),
        Endpoint(
            "/next",
            ("GET", "POST"),
            sequence.step,
            NEXT.cache_control,
            REPRESENTATION | CONDITIONS | KEY | MEANT | CORS,
            has_index=True,
            steps=True,
        ),
        Endpoint(
            "/previous",
            ("GET", "HEAD"),
            sequence.read(PREVIOUS, lambda snapshot: snapshot.previous),
            PREVIOUS.cache_control,
            REPRESENTATION | CONDITIONS | CORS,
            has_index=True,
        ),
        Endpoint(
            "/numbers/{index}",
            ("GET", "HEAD"),
            look_up,
            answers.NO_STORE,
            REPRESENTATION | CONDITIONS | CORS,
        ),
        Endpoint("/health", ("GET", "HEAD"), sequence.health, answers.NO_CACHE, CORS),
        Endpoint("/metrics", ("GET", "HEAD"), metrics, answers.NO_CACHE, REPRESENTATION | CORS),
        Endpoint("/openapi.json", ("GET", "HEAD"), describe, answers.NO_CACHE, CORS),
        Endpoint("/status", ("GET", "HEAD"), status, answers.NO_CACHE, CORS),
    )
)
