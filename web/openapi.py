"""``/openapi.json``: the table of endpoints as OpenAPI 3.1 has it (https://spec.openapis.org/oas).

Each path of the table has its operations here, and a test sees to it that no other has.
"""

import json
from collections.abc import Mapping
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final

from web import answers
from web.answers import PlainAnswer
from web.requests import Reply, Request
from web.service import Service

__all__ = ["DOCUMENT", "describe"]

Schema = Mapping[str, Any]

INTEGER: Final[Schema] = {"type": "integer", "minimum": 0}
TAG: Final[Schema] = {"type": "string", "pattern": '^"(0|[1-9][0-9]*)(-uint64)?(-text)?"$'}


def _reference(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


def _number(key: str, status: int, text: str, examples: Mapping[str, Any]) -> Schema:
    """The answer with a number under ``key``."""
    schema = {
        "type": "object",
        "properties": {key: INTEGER},
        "required": [key],
        "additionalProperties": False,
    }
    return {
        "description": f"{HTTPStatus(status).phrase}: {text}",
        "headers": {
            "ETag": _reference("headers", "ETag"),
            "Cache-Control": _reference("headers", "Cache-Control"),
            "Vary": _reference("headers", "Vary"),
        },
        "content": {
            "application/json": {"schema": schema, "example": {key: examples["number"]}},
            "text/plain": {
                "schema": {"type": "string", "pattern": "^(0|[1-9][0-9]*)$"},
                "example": str(examples["number"]),
            },
        },
    }


def _problem(text: str, example: Mapping[str, Any], *headers: str) -> Schema:
    return {
        "description": text,
        "headers": {name: _reference("headers", name) for name in headers},
        "content": {
            "application/problem+json": {
                "schema": _reference("schemas", "Problem"),
                "example": {"type": "about:blank", **example},
            }
        },
    }


def _responses(*names: str) -> dict[str, Schema]:
    return {name: _reference("responses", name) for name in names}


def _operation(name: str, summary: str, ok: Schema, *others: str, **more: Any) -> dict[str, Any]:
    responses = {"200": ok, **_responses(*others)}
    return {"operationId": name, "summary": summary, "responses": responses, **more}


def _parameters(*names: str) -> dict[str, Any]:
    return {"parameters": [_reference("parameters", name) for name in names]}


def _both(operation: dict[str, Any]) -> dict[str, Any]:
    """``GET`` and ``HEAD``, which is the same without the body."""
    name = operation["operationId"]
    bare = {
        status: response if "$ref" in response else {**response, "content": {}}
        for status, response in operation["responses"].items()
    }
    return {
        "get": operation,
        "head": {**operation, "operationId": f"{name}Head", "responses": bare},
    }


def _read(key: str, text: str, example: int) -> dict[str, Any]:
    ok = _number(key, 200, text, {"number": example})
    return _both(
        _operation(key, text, ok, "304", "412", "421", "503", **_parameters("Accept", *CONDITIONS))
    )


CONDITIONS: Final = ("If-Match", "If-None-Match")


def _step(name: str) -> dict[str, Any]:
    ok = _number("next", 200, "F(n + 1), which is committed.", {"number": 8})
    others = ["304"] * (name == "next") + ["403", "409", "412", "421", "503"]
    parameters = _parameters("Accept", *CONDITIONS, "Sec-Fetch-Site", "Sec-Purpose")
    return _operation(name, "Commits n + 1, then answers F(n + 1).", ok, *others, **parameters)


def _json(text: str, schema: Schema, example: Any) -> Schema:
    return {
        "description": text,
        "content": {"application/json": {"schema": schema, "example": example}},
    }


HEALTHY: Final[Schema] = {
    "type": "object",
    "properties": {"status": {"const": "healthy"}},
    "required": ["status"],
}

PATHS: Final[dict[str, dict[str, Any]]] = {
    "/current": _read("current", "F(n)", 5),
    "/next": {"get": _step("next"), "post": _step("nextByPost")},
    "/previous": _read("previous", "F(n - 1); at n = 0 it is 0", 3),
    "/numbers/{index}": _both(
        _operation(
            "number",
            "F(index), the same for ever",
            _number("number", 200, "F(index), which may be kept for ever.", {"number": 55}),
            *("304", "400", "404", "412", "421", "503"),
            **_parameters("index", "Accept", *CONDITIONS),
        )
    ),
    "/health": _both(
        _operation(
            "health",
            "Whether the store can be used",
            _json("It can.", HEALTHY, {"status": "healthy"}),
            "421",
            "503",
        )
    ),
    "/metrics": _both(
        _operation(
            "metrics",
            "What Prometheus scrapes",
            {
                "description": "In its text form, or in OpenMetrics', whichever is asked for.",
                "content": {
                    "text/plain": {"schema": {"type": "string"}},
                    "application/openmetrics-text": {"schema": {"type": "string"}},
                },
            },
            "421",
            **_parameters("Accept"),
        )
    ),
    "/status": _both(
        _operation(
            "status",
            "How the appliance is; web/status.py says what each member is",
            _json("So it is.", {"type": "object"}, {"healthy": True, "index": "7", "steps": 7}),
            "421",
        )
    ),
    "/openapi.json": _both(
        _operation(
            "openapi",
            "This document",
            _json("This document.", {"type": "object"}, {"openapi": "3.1.0"}),
            "421",
        )
    ),
}

PROBLEM: Final[Schema] = {
    "type": "object",
    "description": "RFC 9457. A request that gets one has not stepped.",
    "properties": {
        "type": {"const": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {
            "type": "string",
            "description": "What happened, what it means for the sequence, what to do.",
        },
        "index": {**INTEGER, "description": "Where the sequence stands."},
    },
    "required": ["type", "title", "status", "detail"],
    "additionalProperties": False,
}


def _example(status: int, detail: str, index: int | None = None) -> dict[str, Any]:
    example = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return example if index is None else {**example, "index": index}


RESPONSES: Final[dict[str, Schema]] = {
    "304": {
        "description": "The client has it already.",
        "headers": {"ETag": _reference("headers", "ETag")},
    },
    "400": _problem(
        "What stands in the path is no index.",
        _example(400, "What stands behind /numbers/ is no index. Nothing has stepped."),
    ),
    "403": _problem(
        "A browser says that a page of another origin has asked for the step.",
        _example(403, "A browser says that a page of another origin has asked for this step.", 5),
        "ETag",
    ),
    "404": _problem(
        "The index is past the largest.",
        _example(404, "The largest index here is 10000000. Nothing has stepped."),
    ),
    "409": _problem(
        "The sequence stands at the largest index.",
        _example(409, "The sequence stands at index 10000000, the largest.", 10_000_000),
        "ETag",
    ),
    "412": _problem(
        "If-Match does not name where the sequence stands.",
        _example(412, "The sequence stands at index 5, which If-Match does not name.", 5),
    ),
    "421": _problem(
        "Host is none that FIB_ALLOWED_HOSTS lists.",
        _example(421, "This server does not answer for that host. Nothing has stepped."),
    ),
    "503": _problem(
        "The store can't be used, a bound is reached, or nobody has asked for it yet (a prefetch).",
        _example(503, "The server has reached a bound. Nothing has stepped. Ask again after 1 s."),
        "Retry-After",
    ),
}


def _field(name: str, text: str, schema: Schema, example: str) -> Schema:
    return {"name": name, "in": "header", "description": text, "schema": schema, "example": example}


ANY_TEXT: Final[Schema] = {"type": "string", "pattern": "^[\\x20-\\x7e]*$"}

COMPONENTS: Final[dict[str, Any]] = {
    "schemas": {"Problem": PROBLEM},
    "responses": RESPONSES,
    "headers": {
        "ETag": {"description": "The index, and the form of the number.", "schema": TAG},
        "Cache-Control": {"description": "How it may be kept.", "schema": {"type": "string"}},
        "Vary": {"description": "What the answer depends on.", "schema": {"type": "string"}},
        "Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}},
    },
    "parameters": {
        "index": {
            "name": "index",
            "in": "path",
            "required": True,
            "description": "From 0 to FIB_MAX_INDEX.",
            "schema": INTEGER,
            "example": 10,
        },
        "Accept": _field("Accept", "text/plain gives the digits alone.", ANY_TEXT, "text/plain"),
        "If-Match": _field("If-Match", "Only if it stands there.", ANY_TEXT, '"5"'),
        "If-None-Match": _field("If-None-Match", "Only if it is another.", ANY_TEXT, '"5"'),
        "Sec-Fetch-Site": _field(
            "Sec-Fetch-Site", "Whose page has asked, as browsers say it.", ANY_TEXT, "same-origin"
        ),
        "Sec-Purpose": _field(
            "Sec-Purpose", "prefetch: nobody has asked for it yet.", ANY_TEXT, "prefetch"
        ),
    },
}

DOCUMENT: Final[dict[str, Any]] = {
    "openapi": "3.1.0",
    "info": {
        "title": "fibcore",
        "version": version("fibcore"),
        "summary": "Steps through the Fibonacci sequence: exact, fast, and durable.",
        "license": {"name": "MIT", "identifier": "MIT"},
    },
    "paths": PATHS,
    "components": COMPONENTS,
}

BODY: Final = json.dumps(DOCUMENT).encode()
ANSWER: Final = PlainAnswer(
    200,
    (
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(BODY)),
        (b"cache-control", answers.NO_CACHE),
    ),
    BODY,
)


def describe(service: Service, request: Request, reply: Reply) -> None:  # noqa: ARG001
    """Answer the document."""
    reply(ANSWER)
