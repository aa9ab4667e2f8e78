"""The table of endpoints as HTTP knows it: the paths, and what answers a request for each.

Nothing here knows an endpoint: ``web.endpoints.table`` lists them.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from fibcore import Snapshot
from fibcore.admission import Admission
from web.http import answers
from web.http.answers import Answer
from web.http.origins import preflight
from web.http.request import NOTHING, Reply, Request

CONNECTION_FIELDS: Final = frozenset(
    (b"connection", b"content-length", b"expect", b"host", b"transfer-encoding", b"upgrade")
)
"""The fields that can change what becomes of the connection. With those that the rows of the table
name they are all that count; every other field is skipped."""

ELSEWHERE: Final = "other"
"""Counted as the path of every request for which the table has no row."""


class HttpSettings(Protocol):
    """The settings that HTTP goes by; ``fibcore.appliance.settings`` has their meaning."""

    @property
    def allowed_origins(self) -> Collection[str]: ...

    @property
    def answered_hosts(self) -> Collection[str] | None: ...

    @property
    def max_connections(self) -> int: ...

    @property
    def receive_timeout(self) -> float: ...

    @property
    def send_timeout(self) -> float: ...

    @property
    def stop_timeout(self) -> float: ...


class Backend(Protocol):
    """What the answers come from, as far as HTTP knows it: ``web.service.Service``."""

    admission: Admission
    answered: defaultdict[str, list[int]]
    """Requests answered: by the path of the endpoint, then by status."""
    connections: Collection[object]
    """The open connections; the hub sets it."""
    accepted: int
    """Connections accepted since the start; the hub counts them."""

    @property
    def settings(self) -> HttpSettings: ...

    @property
    def snapshot(self) -> Snapshot | None: ...

    def stop(self, seconds: float) -> None:
        """Answer within so many seconds everything that still waits."""


Responder: TypeAlias = Callable[[Any, Request, Reply], None]
"""Answers a request that its endpoint takes, now or later, once. Its first argument is the backend,
whose type the endpoints know."""


class Content(NamedTuple):
    """A body in one media type, or a parameter: its JSON Schema, and an example."""

    schema: Mapping[str, Any]
    example: Any


class Problem(NamedTuple):
    """An error: when it is answered, and examples."""

    when: str
    examples: tuple[Answer, ...]


class Description(NamedTuple):
    """What the rest of a row doesn't tell of its endpoint, for ``/openapi.json``."""

    name: str
    """Of the operation."""
    summary: str
    """What a request does."""
    answer: str
    """What a good answer has."""
    content: Mapping[str, Content]
    """The body of that, by media type."""
    problems: Mapping[int, Problem] = MappingProxyType({})
    """By status: errors that are not any endpoint's, or that have other reasons here."""
    parameters: Mapping[str, tuple[str, Content]] = MappingProxyType({})
    """By name: the parameters in the path, each with what it is."""
    cache_control: bytes | None = None
    """``Cache-Control`` of good answers where it is not that of the errors."""


class Endpoint(NamedTuple):
    """A row: a path, and what is done with it."""

    path: str
    """Exact, except that ``{name}`` stands for one segment."""
    methods: tuple[str, ...]
    respond: Responder
    """Answers a request by one of the methods."""
    cache_control: bytes
    """``Cache-Control`` of its answers."""
    fields: frozenset[bytes] = frozenset()
    """The header fields that can change its answers, in lower case."""
    has_index: bool = False
    """Whether its answers carry the index."""
    steps: bool = False
    """Whether a request for it may step."""
    description: Description | None = None
    """For ``/openapi.json``, which lists no row without."""

    def responder(self, method: str) -> Responder:
        """What answers a request by ``method``, whichever it is."""
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
        is_page: tells whether a path belongs to a page, which Starlette serves.
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
        """In place of a row where there is none: Starlette takes ten times as long to answer that.
        Its one parameter is the path."""
        self._exact = {row.path: row for row in self.rows if "{" not in row.path}
        self._patterns = [(_pattern(row.path), row) for row in self.rows if "{" in row.path]

    def find(self, path: str) -> tuple[Endpoint, Mapping[str, str]] | None:
        """The endpoint at ``path``, which is decoded, and the values of its path's names."""
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
"""In place of any row where a request names a host that is not ours."""
