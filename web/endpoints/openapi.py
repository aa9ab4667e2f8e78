"""``/openapi.json``: the table of endpoints in OpenAPI 3.1 (https://spec.openapis.org/oas).

It is generated from the rows: the answers of a row follow from its methods, fields and description,
and the examples of errors are the actual answers.
"""

import functools
import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Final

from fibcore.idempotency_key import FORM
from web.endpoints.schemas import INTEGER, NATURAL, Schema, structure
from web.http import answers
from web.http.answers import Answer, Header
from web.http.origins import CORS, preflight
from web.http.request import CONDITIONS, Reply, Request
from web.http.routing import Content, Description, Endpoint, Problem
from web.service import Service

FIELDS: Final[Mapping[bytes, tuple[str, ...]]] = {
    b"accept": ("text/plain gives the digits alone.", "text/plain"),
    b"if-match": ("Answer only if the sequence is at this index.", '"5"'),
    b"if-none-match": ("Answer with the number only if its ETag is not this one.", '"5"'),
    b"idempotency-key": (
        "One key, one step: an index that the client has seen, and a random part.",
        '"5:Zm9vYmFyYmF6cXV4Cg"',
        FORM,
    ),
    b"sec-fetch-site": (
        "How the origin of the requesting page relates to this server, set by browsers.",
        "same-origin",
    ),
    b"sec-purpose": ("prefetch: the request does not step.", "prefetch"),
    b"purpose": ("The former name of Sec-Purpose.", "prefetch"),
    b"x-purpose": ("A former name of Sec-Purpose.", "preview"),
    b"x-moz": ("A former name of Sec-Purpose.", "prefetch"),
    b"origin": ("The origin of the page that made the request.", "https://app.example.com"),
    b"access-control-request-method": ("The method that a page asks to use.", "GET"),
}
"""The header fields that a row may name: description, example, and optionally a pattern."""

UNNAMED: Final = frozenset((b"host",))
"""Fields that OpenAPI derives from the URL."""

PREFLIGHT: Final = frozenset((b"access-control-request-method",))
"""Fields that only a preflight has."""

PROBLEMS: Final[Mapping[int, Problem]] = {
    400: Problem("The request is malformed (RFC 9112).", (answers.bad_request("it has no Host"),)),
    421: Problem(
        "Host is neither an address, localhost, nor a name in FIB_ALLOWED_HOSTS.",
        (answers.misdirected(),),
    ),
    500: Problem(
        "An unexpected error. Only a request to /next may have stepped.",
        (answers.failed(steps=True),),
    ),
    503: Problem(
        "The store is unavailable, a bound is reached, or a request to /next is a prefetch.",
        (
            answers.unavailable("The server has reached a limit: too many steps wait.", index=5),
            answers.unavailable("The server is starting."),
        ),
    ),
}
"""The errors that any request may get."""

PROBLEM: Final = structure(
    {
        "type": {"const": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {
            "type": "string",
            "description": "What happened, what it means for the sequence, and what to do.",
        },
    },
    optional={
        "index": {**INTEGER, "description": "The index that the sequence is at."},
        "key": {
            "type": "string",
            "enum": ["malformed", "outstanding", "dropped", "ahead"],
            "description": "The problem with Idempotency-Key, if that is the reason.",
        },
    },
    text="RFC 9457. The request has not stepped, unless the detail of a 500 says that it may have. "
    "An earlier request with the same Idempotency-Key may have.",
)


def _title(field: bytes) -> str:
    return field.decode().title().replace("Etag", "ETag")


def _header(description: str, schema: Schema, *, required: bool = True) -> Schema:
    return {"description": description, "required": required, "schema": schema}


_STRING: Final[Schema] = {"type": "string"}
_CORS: Final = {
    "Vary": _header("The fields that change the answer.", _STRING, required=False),
    "Access-Control-Allow-Origin": _header(
        "The page's origin, if FIB_ALLOWED_ORIGINS lists it.", _STRING, required=False
    ),
    "Access-Control-Expose-Headers": _header(
        "Fields that the page may read.", _STRING, required=False
    ),
}
_HEADERS: Final = {
    "ETag": _header(
        "The index and the representation of the number.",
        {**_STRING, "pattern": '^"(0|[1-9][0-9]*)(-uint64)?(-text)?"$'},
    ),
    "Cache-Control": _header("How the answer may be cached.", _STRING),
    "Retry-After": _header(
        "Seconds to wait before another request; missing if retrying does not help.",
        {"type": "integer"},
        required=False,
    ),
    "Allow": _header("The supported methods.", _STRING),
    "Access-Control-Allow-Methods": _header("The methods that pages may use.", _STRING),
    "Access-Control-Allow-Headers": _header("The fields that pages may send.", _STRING),
    "Access-Control-Max-Age": _header(
        "Seconds for which this may be cached.", {**_STRING, "pattern": NATURAL}
    ),
}


_EXACT: Final = ("Allow", "Access-Control-Allow-Methods")
"""Headers whose value the row determines."""


def _headers(*answers: Iterable[Header], success: bool = False) -> dict[str, Schema]:
    """The documented headers of any of ``answers``, and those that any answer may have.

    Required are those that all of ``answers`` have.
    """
    found = {name: _reference("headers", name) for name in _CORS}
    sent = [{_title(field): value.decode() for field, value in each} for each in answers]
    for name, value in {name: value for each in sent for name, value in each.items()}.items():
        if name not in _HEADERS:
            continue
        if name in _EXACT or (success and name == "Cache-Control"):
            found[name] = {**_HEADERS[name], "schema": {"const": value}}
        elif all(name in each for each in sent):
            found[name] = _reference("headers", name)
        else:
            found[name] = {**_HEADERS[name], "required": False}
    return found


def _reference(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


def _problem(problem: Problem) -> Schema:
    examples = {
        str(number): {"value": json.loads(b"".join(example.body()))}
        for number, example in enumerate(problem.examples, 1)
    }
    return {
        "description": problem.when,
        "headers": _headers(*(each.headers() for each in problem.examples)),
        "content": {
            "application/problem+json": {
                "schema": _reference("schemas", "Problem"),
                "examples": examples,
            }
        },
    }


def _answers(row: Endpoint, method: str) -> dict[str, Schema]:
    """The answers to a request by one of the row's methods, by status."""
    description = described(row)
    conditional = row.fields >= CONDITIONS
    etag: list[Header] = [(b"etag", b"")] if conditional else []
    success = (*etag, (b"cache-control", description.cache_control or row.cache_control))
    content = {kind: each._asdict() for kind, each in description.content.items()}
    found: dict[int, Schema] = {
        200: {
            "description": description.answer,
            "headers": _headers(success, success=True),
            "content": {} if method == "HEAD" else content,
        }
    }
    if conditional and method != "POST":
        found[304] = {
            "description": "The client's copy is current.",
            "headers": _headers(success, success=True),
        }
    found |= _COMMON
    found |= {
        status: _reference("responses", f"{description.name}{status}")
        for status in description.problems
    }
    return {str(status): found[status] for status in sorted(found)}


def _options(row: Endpoint) -> dict[str, Schema]:
    allowed = preflight(row.methods)
    rejected = tuple(
        answers.method_not_allowed("OPTIONS", row.path, row.methods, index=index)
        for index in ((5, None) if row.has_index else (None,))
    )
    found = {
        204: {
            "description": "A preflight for an origin in FIB_ALLOWED_ORIGINS.",
            "headers": _headers(allowed.headers()),
        },
        405: _problem(Problem("Any other OPTIONS request, or an unsupported method.", rejected)),
        **_COMMON,
    }
    return {str(status): found[status] for status in sorted(found)}


def _operation(row: Endpoint, method: str) -> Schema:
    description, preflights = described(row), method == "OPTIONS"
    fields = row.fields & CORS if preflights else row.fields - PREFLIGHT
    name = description.name if method == "GET" else f"{description.name}{method.capitalize()}"
    summary = (
        "Whether a page of another origin may send a request."
        if preflights
        else description.summary
    )
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [
            *(_in_path(name, *each) for name, each in description.parameters.items()),
            *(_reference("parameters", _title(field)) for field in sorted(fields - UNNAMED)),
        ],
        "responses": _options(row) if preflights else _answers(row, method),
    }


def described(row: Endpoint) -> Description:
    """The description of a row.

    Raises:
        ValueError: the row has none, or one of its fields has none.
    """
    if row.description is None:
        raise ValueError(f"{row.path} has no description: give its Endpoint a Description")
    if unknown := row.fields - FIELDS.keys() - UNNAMED:
        names = ", ".join(sorted(map(bytes.decode, unknown)))
        raise ValueError(f"{row.path}: FIELDS of {__name__} does not describe {names}")
    return row.description


def _in_path(name: str, text: str, content: Content) -> Schema:
    description = {"name": name, "in": "path", "required": True, "description": text}
    return {**description, **content._asdict()}


def _in_header(field: bytes) -> Schema:
    text, example, *patterns = FIELDS[field]
    schema = {**_STRING, "pattern": f"^{patterns[0] if patterns else _PRINTABLE}$"}
    description = {"name": _title(field), "in": "header", "description": text}
    return {**description, "schema": schema, "example": example}


_PRINTABLE: Final = r"[\x20-\x7e]*"
_COMMON: Final = {status: _reference("responses", str(status)) for status in PROBLEMS}


def document(rows: Iterable[Endpoint]) -> Schema:
    """The OpenAPI document of these rows.

    Raises:
        ValueError: part of a row has no description; the text says which.
    """
    own = [(each.name, each.problems) for each in map(described, rows)]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fibcore",
            "version": version("fibcore"),
            "summary": "Steps through the Fibonacci sequence: exact, fast, and durable.",
            "description": "The sequence is at an index n, which the ETag of an answer carries; "
            "only /next moves it. Any path but these and the page's (/, /page/…) gets a 404, any "
            "other method a 405, each with a Problem; neither steps.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": {
            row.path: {
                method.lower(): _operation(row, method) for method in (*row.methods, "OPTIONS")
            }
            for row in rows
        },
        "components": {
            "schemas": {"Problem": PROBLEM},
            "responses": {
                f"{name}{status}": _problem(each)
                for name, problems in (("", PROBLEMS), *own)
                for status, each in problems.items()
            },
            "headers": {**_CORS, **_HEADERS},
            "parameters": {_title(field): _in_header(field) for field in FIELDS},
        },
    }


def endpoint(rows: Iterable[Endpoint]) -> Endpoint:
    """The row that describes ``rows``, and itself."""

    @functools.cache
    def answer() -> Answer:
        return answers.ok(b"application/json", json.dumps(document((*rows, row))).encode())

    def respond(service: Service, request: Request, reply: Reply) -> None:  # noqa: ARG001
        reply(answer())

    row = Endpoint(
        "/openapi.json",
        ("GET", "HEAD"),
        respond,
        answers.NO_CACHE,
        CORS,
        description=Description(
            "openapi",
            "This document.",
            "The description of all endpoints, in OpenAPI 3.1.",
            {
                "application/json": Content(
                    {"type": "object", "required": ["openapi", "info", "paths", "components"]},
                    {"openapi": "3.1.0", "info": {}, "paths": {}, "components": {}},
                )
            },
        ),
    )
    return row
