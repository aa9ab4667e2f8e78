"""The table of endpoints as HTTP sees it: the paths, and the responder of each.

No endpoint is known here: ``web.endpoints.table`` lists them.
"""

import abc
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

from fibcore import Snapshot
from fibcore.admission import Admission
from fibcore.appliance.settings import Settings
from web.http import answers
from web.http.answers import Answer
from web.http.origins import preflight
from web.http.request import NOTHING, Reply, Request

CONNECTION_FIELDS: Final = frozenset(
    (b"connection", b"content-length", b"expect", b"host", b"transfer-encoding", b"upgrade")
)
"""The fields that affect the connection. Only these and the fields that the rows of the table name
matter; every other field is skipped."""

ELSEWHERE: Final = "other"
"""The path under which requests without a row in the table are counted."""


class Backend(abc.ABC):
    """The source of the answers, and what HTTP counts of them: ``web.service.Service``."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.admission = Admission(
            max_waiting=settings.max_waiting_steps,
            max_in_flight=settings.max_answer_bytes,
            max_shed=settings.max_connections,
        )
        self.answered: defaultdict[str, list[int]] = defaultdict(lambda: [0] * 600)
        """Requests answered: by the path of the endpoint, then by status."""
        self.connections: Collection[object] = ()
        """The open connections; the hub sets it. Empty under a foreign ASGI server."""
        self.accepted = 0
        """Connections accepted since the start; the hub counts them."""

    @property
    @abc.abstractmethod
    def snapshot(self) -> Snapshot | None:
        """The last known committed state; None if unknown."""

    @abc.abstractmethod
    def stop(self, seconds: float) -> None:
        """Answer or shed, within ``seconds``, whatever still waits."""


Responder: TypeAlias = Callable[[Any, Request, Reply], None]
"""Answers a request, once, now or later. The first argument is the backend, whose type the
endpoints know."""


class Content(NamedTuple):
    """A body in one media type, or a parameter: its JSON Schema, and an example."""

    schema: Mapping[str, Any]
    example: Any


class Problem(NamedTuple):
    """An error: when it occurs, and examples."""

    when: str
    examples: tuple[Answer, ...]


class Description(NamedTuple):
    """The part of a row that only ``/openapi.json`` uses."""

    name: str
    """The name of the operation."""
    summary: str
    """What a request does."""
    answer: str
    """The content of a good answer."""
    content: Mapping[str, Content]
    """The body of a good answer, by media type."""
    problems: Mapping[int, Problem] = MappingProxyType({})
    """By status: errors that only this endpoint has, or that have other reasons here."""
    parameters: Mapping[str, tuple[str, Content]] = MappingProxyType({})
    """The path parameters by name, each with a description."""
    cache_control: bytes | None = None
    """``Cache-Control`` of good answers, if it differs from that of the errors."""


class Endpoint(NamedTuple):
    """A row of the table: a path and how to answer it."""

    path: str
    """Exact, except that ``{name}`` matches one segment."""
    methods: tuple[str, ...]
    respond: Responder
    """Answers a request with one of the methods."""
    cache_control: bytes
    """``Cache-Control`` of its answers."""
    fields: frozenset[bytes] = frozenset()
    """The header fields that can change its answers, in lower case."""
    has_index: bool = False
    """Whether its answers carry the index."""
    steps: bool = False
    """Whether a request for it may step."""
    description: Description | None = None
    """For ``/openapi.json``, which requires one of each row."""

    def responder(self, method: str) -> Responder:
        """The responder for ``method``, allowed or not."""
        return self.respond if method in self.methods else self._not_allowed

    def _not_allowed(self, backend: Backend, request: Request, reply: Reply) -> None:
        if (
            request.method == "OPTIONS"
            and request.preflight
            and request.origin in backend.settings.allowed_origins
        ):
            reply(preflight(self.methods))
            return
        snapshot = backend.snapshot if self.has_index else None
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
    """The endpoints, found by path.

    Args:
        rows: the endpoints.
        is_page: returns whether a path belongs to a page, which Starlette serves.
    """

    def __init__(
        self, rows: Iterable[Endpoint], is_page: Callable[[str], bool] = lambda _: False
    ) -> None:
        self.rows = tuple(rows)
        self.is_page = is_page
        self.fields = frozenset[bytes]().union(*(row.fields for row in self.rows))
        """The header fields that can change an answer."""
        self.paths = ("/", *(row.path for row in self.rows))
        """The paths that a 404 lists."""
        self.nowhere = Endpoint(ELSEWHERE, (), self._not_found, answers.NO_STORE)
        """Stands in for a missing row: Starlette would take ten times as long for a 404. Its one
        parameter is the path."""
        self._exact = {row.path: row for row in self.rows if "{" not in row.path}
        self._patterns = [(_pattern(row.path), row) for row in self.rows if "{" in row.path]

    def find(self, path: str) -> tuple[Endpoint, Mapping[str, str]] | None:
        """The endpoint at the decoded ``path``, and the values of its path parameters."""
        row = self._exact.get(path)
        if row is not None:
            return row, NOTHING
        for pattern, row in self._patterns:
            if (match := pattern.fullmatch(path)) is not None:
                return row, match.groupdict()
        return None

    def _not_found(self, backend: Backend, request: Request, reply: Reply) -> None:  # noqa: ARG002
        reply(answers.not_found(request.parameters["path"], self.paths))


def _pattern(path: str) -> re.Pattern[str]:
    pieces = re.split(r"\{(\w+)\}", path)
    pieces[::2] = map(re.escape, pieces[::2])
    pieces[1::2] = (f"(?P<{name}>[^/]+)" for name in pieces[1::2])
    return re.compile("".join(pieces))


def _misdirected(backend: Backend, request: Request, reply: Reply) -> None:  # noqa: ARG001
    reply(answers.misdirected())


MISDIRECTED: Final = Endpoint(ELSEWHERE, (), _misdirected, answers.NO_STORE)
"""Replaces the row of a request whose host is not allowed."""
