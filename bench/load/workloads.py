"""The workloads: requests with the head of a client, as bytes for load.c, and right answers.

load.c replaces each NUL byte of a request, which HTTP does not use, by a random hex digit.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from bench import heads
from bench.heads import Request

LAST_INDEX = b"\1"  # for load.c: the index in the last ETag on the same connection
MATCHING = b'"' + LAST_INDEX + b'"'
DIGIT = b"\0"  # for load.c: a random hex digit
OTHER = b'"' + DIGIT * 12 + b'"'  # an entity tag that no server has sent

KEY = b'"' + LAST_INDEX + b":" + DIGIT * 32 + b'"'

VARYING = {
    "X-Request-Id": DIGIT * 32,  # nginx's $request_id
    "traceparent": b"00-" + DIGIT * 32 + b"-" + DIGIT * 16 + b"-01",  # W3C Trace Context, 3.2
    "Cookie": b"theme=dark; session=" + DIGIT * 32 + b"; seen=1",
}
"""The fields, which differ in each request, of a proxy, a tracer and a browser."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of request under load. `what` is its name in tables and figures."""

    what: str
    client: str
    endpoint: str
    request: bytes
    expected: tuple[int, ...] = (200,)
    closes: bool = False  # whether the client closes after each answer


KINDS = ("current", "next", "post", "if-match", "304")
"""The kinds of requests: GET /current, GET /next, POST /next without a body, GET /next with
If-Match, and GET /current with If-None-Match."""


def of_clients(names: list[str] | None = None) -> Iterator[Workload]:
    """Each kind with the head of each client for which it was recorded, the plainest first."""
    for kind in KINDS:
        for client in heads.clients():
            if names and client not in names and client != heads.PLAINEST:
                continue
            recorded = next(filter(lambda r: _kind(r) == kind, heads.requests(client)), None)
            if recorded is not None:
                yield _workload(kind, recorded)


def _kind(request: Request) -> str | None:
    """Its kind, of KINDS, if any."""
    if request.body or request.field("transfer-encoding"):
        return None
    if request.method == "POST":
        return "post"
    kinds = {None: request.path[1:], "if-match": "if-match", "if-none-match": "304"}
    return kinds[request.condition]


def _workload(kind: str, request: Request) -> Workload:
    """The recorded request, with the tag of the last answer in its condition."""
    raw = request.raw
    expected: tuple[int, ...] = (200,)
    if request.condition:
        raw = raw.replace(b'atch: "5"', b"atch: " + MATCHING)
        # At first no tag is known. Of the connections that name the same index, one steps.
        expected = (200, 412) if kind == "if-match" else (200, 304)
    return Workload(kind, request.client, request.path[1:], raw, expected, request.closes)


def _first(client: str, kind: str) -> Request:
    return next(request for request in heads.requests(client) if _kind(request) == kind)


def special() -> Iterator[Workload]:
    """The plainest head with one addition each, and heads that differ in each request."""
    current, step = (_first(heads.PLAINEST, kind) for kind in ("current", "next"))
    text = current.with_field("Accept", b"text/plain")
    yield Workload("text", heads.PLAINEST, "current", text.raw)
    head = current.raw.replace(b"GET ", b"HEAD ", 1)
    yield Workload("HEAD", heads.PLAINEST, "current", head)
    lost = current.raw.replace(b" /current ", b" /nowhere ", 1)
    yield Workload("404", heads.PLAINEST, "nowhere", lost, (404,))
    rejected = step.with_field("If-Match", OTHER)
    yield Workload("if-match, other", heads.PLAINEST, "next", rejected.raw, (412,))
    for kind in ("current", "next"):
        for name in VARYING:
            each = varying(_first("nginx-requests", kind), name)
            yield Workload(f"{kind}, {name}", "nginx-requests", kind, each)


def varying(request: Request, name: str) -> bytes:
    """The request with this field of VARYING, which replaces its own."""
    return request.without_field(name.lower()).with_field(name, VARYING[name]).raw


def keyed() -> Workload:
    """A step with the plainest head and a new idempotency key each time."""
    step = _first(heads.PLAINEST, "next").with_field("Idempotency-Key", KEY)
    # The first one on a connection is 409: no index is known, and keys from 0 on may be dropped.
    return Workload("next, Idempotency-Key", heads.PLAINEST, "next", step.raw, (200, 409))


def base_of(what: str) -> str:
    """The kind of the plainest head that a kind is compared with: "next" for those of /next."""
    return "next" if what.startswith(("next", "post", "if-match")) else "current"
