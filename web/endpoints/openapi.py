"""``/openapi.json``: the table of endpoints as OpenAPI 3.1 has it (https://spec.openapis.org/oas).

Each path of the table has its operations here, with all that each may be answered, and a test sees
to it that no other has. What answers that are no numbers look like is in ``web.endpoints.schemas``.
"""

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final

from fibcore.stores.keys import FORM
from web.endpoints.schemas import (
    HEALTHY,
    INDEX,
    INTEGER,
    PROBLEM,
    STATUS,
    STATUS_EXAMPLE,
    Schema,
    one_of,
    structure,
)
from web.http import answers
from web.http.answers import PlainAnswer
from web.http.request import Reply, Request
from web.service import Service

TAG: Final[Schema] = {"type": "string", "pattern": '^"(0|[1-9][0-9]*)(-uint64)?(-text)?"$'}
CONDITIONS: Final = ("If-Match", "If-None-Match")
KEY: Final = "Idempotency-Key"
MEANT: Final = ("Sec-Fetch-Site", "Sec-Purpose", "Purpose", "X-Purpose", "X-Moz")
CROSS_ORIGIN: Final = ("Vary", "Access-Control-Allow-Origin", "Access-Control-Expose-Headers")
"""What an answer may have for pages of other origins."""

ANYWHERE: Final = ("400", "421", "500", "503")
"""What any request may be answered."""


def _reference(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


def _headers(*always: str, **more: Schema) -> dict[str, Schema]:
    """Those that are there ``always``, and those that may be."""
    found = {name: _reference("headers", name) for name in (*CROSS_ORIGIN, *always)}
    return {**found, **more}


def _header(text: str, schema: Schema, *, required: bool = True) -> Schema:
    return {"description": text, "required": required, "schema": schema}


def _cached(how: bytes) -> dict[str, Schema]:
    return {"Cache-Control": _header("How it may be kept.", {"const": how.decode()})}


def _number(key: str, text: str, example: int, cache_control: bytes) -> Schema:
    """The answer with a number under ``key``."""
    return {
        "description": text,
        "headers": _headers("ETag", **_cached(cache_control)),
        "content": {
            "application/json": {"schema": structure({key: INTEGER}), "example": {key: example}},
            "text/plain": {"schema": INDEX, "example": str(example)},
        },
    }


def _json(text: str, schema: Schema, example: Any) -> Schema:
    return {
        "description": text,
        "headers": _headers(**_cached(answers.NO_CACHE)),
        "content": {"application/json": {"schema": schema, "example": example}},
    }


def _example(
    status: int, detail: str, index: int | None = None, key: str | None = None
) -> dict[str, Any]:
    example = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    where = {} if index is None else {"index": index}
    what = {} if key is None else {"key": key}
    return {"type": "about:blank", **example, **what, **where}


def _problem(
    text: str, *examples: Mapping[str, Any], headers: Iterable[str] = ()
) -> dict[str, Any]:
    listed = {f"{number}": {"value": each} for number, each in enumerate(examples, 1)}
    return {
        "description": text,
        "headers": _headers("Cache-Control", *headers),
        "content": {
            "application/problem+json": {
                "schema": _reference("schemas", "Problem"),
                "examples": listed,
            }
        },
    }


def _operation(
    name: str, summary: str, ok: Schema, others: Iterable[str] = (), fields: Iterable[str] = ()
) -> dict[str, Any]:
    parameters = [_reference("parameters", each) for each in (*fields, "Origin")]
    responses = {each: _reference("responses", each) for each in (*others, *ANYWHERE)}
    return {
        "operationId": name,
        "summary": summary,
        "parameters": parameters,
        "responses": {"200": ok, **dict(sorted(responses.items()))},
    }


def _path(methods: str, get: dict[str, Any], **more: dict[str, Any]) -> dict[str, Any]:
    """What is at a path.

    Args:
        methods: those that it takes, as ``Allow`` says them.
        get: its ``GET``.
        more: others, by method.
    """
    name = get["operationId"]
    allow = {"Allow": _header("The methods.", {"const": methods})}
    asking = [
        _reference("parameters", each) for each in ("Origin", "Access-Control-Request-Method")
    ]
    own = [each for each in get["parameters"] if each == _reference("parameters", "index")]
    rejected = _RESPONSES["405"]
    options = {
        "operationId": f"{name}Options",
        "summary": "Before a page of another origin sends what it asks about",
        "parameters": [*own, *asking],
        "responses": {
            "204": {
                "description": "To a page that FIB_ALLOWED_ORIGINS lists.",
                "headers": _headers(
                    **{
                        "Access-Control-Allow-Methods": _header("Which.", {"const": methods}),
                        "Access-Control-Allow-Headers": _header("Which.", {"type": "string"}),
                        "Access-Control-Max-Age": _header("Seconds.", INDEX),
                    }
                ),
            },
            "405": {**rejected, "headers": {**rejected["headers"], **allow}},
            **{each: _reference("responses", each) for each in ANYWHERE},
        },
    }
    return {"get": get, **more, "options": options}


def _both(get: dict[str, Any]) -> dict[str, Any]:
    """``GET`` and ``HEAD``, which is the same without the body."""
    bare = {**get["responses"], "200": {**get["responses"]["200"], "content": {}}}
    head = {**get, "operationId": f"{get['operationId']}Head", "responses": bare}
    return _path("GET, HEAD", get, head=head)


def _read(key: str, text: str, example: int) -> dict[str, Any]:
    ok = _number(key, text, example, answers.NO_CACHE)
    return _both(_operation(key, text, ok, ("304", "412"), ("Accept", *CONDITIONS)))


def _step(name: str, *others: str) -> dict[str, Any]:
    return _operation(
        name,
        "Commits n + 1, then answers F(n + 1).",
        _number("next", "F(n + 1), which is committed.", 8, answers.NO_STORE),
        (*others, "403", "409", "412"),
        ("Accept", *CONDITIONS, KEY, *MEANT),
    )


_RESPONSES: Final[dict[str, dict[str, Any]]] = {
    "304": {
        "description": "The client has it already.",
        "headers": _headers("ETag", "Cache-Control"),
    },
    "400": _problem(
        "It is no request as RFC 9112 has it, what stands behind /numbers/ is no index, or "
        "Idempotency-Key is malformed.",
        _example(400, "This is not a valid HTTP request: it has no Host. Nothing has stepped, ..."),
        _example(400, "What stands behind /numbers/ is no index: ... Nothing has stepped."),
    ),
    "403": _problem(
        "A browser says that a page of another origin has asked for the step.",
        _example(
            403, "A browser says that a page of another origin has asked for this step, ...", 5
        ),
        headers=["ETag"],
    ),
    "404": _problem(
        "The index is past the largest.",
        _example(404, "The largest index here is 10000000 (FIB_MAX_INDEX). Nothing has stepped."),
    ),
    "405": _problem(
        "To any other method as well: Allow lists those that there are.",
        _example(405, "/next does not take OPTIONS. Nothing has stepped. Use GET, POST.", 5),
    ),
    "409": _problem(
        "The sequence is at the largest index; or a request with the same Idempotency-Key is under "
        "way; or what has become of the key is not known any more.",
        _example(409, "The sequence stands at index 10000000, the largest that ...", 10_000_000),
        _example(409, "A request with the same ...", 5, "outstanding"),
        headers=["ETag"],
    ),
    "412": _problem(
        "If-Match does not name where the sequence stands, or the number; or If-None-Match does.",
        _example(412, "The sequence stands at index 5, which If-Match does not name. ...", 5),
    ),
    "421": _problem(
        "Host is neither an address, localhost, nor a name that FIB_ALLOWED_HOSTS lists.",
        _example(
            421, "This server does not answer for the host that the request names in Host. ..."
        ),
    ),
    "500": _problem(
        "The server has failed. A step may have been made.",
        _example(500, "The server has failed at this request; its log says why. A step may ..."),
    ),
    "503": _problem(
        "The store can't be used, a bound is reached, or nobody has asked for it yet (a prefetch).",
        _example(
            503,
            "The server has reached a bound: ... This request has not stepped. Ask again, ...",
        ),
        headers=["Retry-After"],
    ),
}


def _field(name: str, text: str, example: str, pattern: str = r"[\x20-\x7e]*") -> Schema:
    schema = {"type": "string", "pattern": f"^{pattern}$"}
    return {"name": name, "in": "header", "description": text, "schema": schema, "example": example}


_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "Accept": ("text/plain gives the digits alone.", "text/plain"),
    "If-Match": ("Only if it stands there.", '"5"'),
    "If-None-Match": ("Only if it is another.", '"5"'),
    KEY: (
        "One key, one step: an index seen, and a random part.",
        '"5:Zm9vYmFyYmF6cXV4Cg"',
        f'"{FORM.pattern}"',
    ),
    "Sec-Fetch-Site": ("Whose page has asked, as browsers say it.", "same-origin"),
    "Sec-Purpose": ("prefetch: nobody has asked for it yet.", "prefetch"),
    "Purpose": ("The same, as browsers sent it before.", "prefetch"),
    "X-Purpose": ("The same, as browsers sent it before.", "preview"),
    "X-Moz": ("The same, as browsers sent it before.", "prefetch"),
    "Origin": ("Of the page that has asked, as browsers say it.", "https://app.example.com"),
    "Access-Control-Request-Method": ("What the page wants to send.", "GET"),
}

_PARAMETERS: Final[dict[str, Any]] = {
    "index": {
        "name": "index",
        "in": "path",
        "required": True,
        "description": "From 0 to FIB_MAX_INDEX.",
        "schema": INTEGER,
        "example": 10,
    },
    **{name: _field(name, *said) for name, said in _FIELDS.items()},
}

_CACHED: Final = one_of("no-cache", "no-store", answers.FOR_EVER.decode())
_HEADERS: Final = {
    "ETag": _header("The index, and the form of the number.", TAG),
    "Cache-Control": _header("How it may be kept.", _CACHED),
    "Vary": _header("What it depends on.", {"type": "string"}, required=False),
    "Retry-After": _header("Seconds.", {"type": "integer"}),
    "Access-Control-Allow-Origin": _header(
        "The page's, if FIB_ALLOWED_ORIGINS lists it.", {"type": "string"}, required=False
    ),
    "Access-Control-Expose-Headers": _header(
        "What the page may read.", {"const": "etag, retry-after"}, required=False
    ),
}

_METRICS: Final = """\
# HELP fibcore_steps_total Steps committed.
# TYPE fibcore_steps_total counter
fibcore_steps_total 7.0
"""

PATHS: Final[dict[str, dict[str, Any]]] = {
    "/current": _read("current", "F(n)", 5),
    "/next": _path("GET, POST", _step("next", "304"), post=_step("nextByPost")),
    "/previous": _read("previous", "F(n - 1); at n = 0 it is 0", 3),
    "/numbers/{index}": _both(
        _operation(
            "number",
            "F(index), the same for ever",
            _number("number", "F(index), which may be kept for ever.", 55, answers.FOR_EVER),
            ("304", "404", "412"),
            ("index", "Accept", *CONDITIONS),
        )
    ),
    "/health": _both(
        _operation(
            "health",
            "Whether the store can be used",
            _json("It can.", HEALTHY, {"status": "healthy"}),
        )
    ),
    "/metrics": _both(
        _operation(
            "metrics",
            "What Prometheus scrapes",
            {
                "description": "All metrics, each with its meaning (HELP) and its kind (TYPE): in "
                "Prometheus's text form, or in OpenMetrics', whichever Accept likes best.",
                "headers": _headers(**_cached(answers.NO_CACHE)),
                "content": {
                    "text/plain": {
                        "schema": {"type": "string", "pattern": "^# HELP fibcore_[^$]*\\n$"},
                        "example": _METRICS,
                    },
                    "application/openmetrics-text": {
                        "schema": {
                            "type": "string",
                            "pattern": "^# HELP fibcore_[^$]*\\n# EOF\\n$",
                        },
                        "example": f"{_METRICS.replace('_total S', ' S').replace('_total c', ' c')}"
                        "# EOF\n",
                    },
                },
            },
            fields=["Accept"],
        )
    ),
    "/openapi.json": _both(
        _operation(
            "openapi",
            "This document",
            _json(
                "This document.",
                {"type": "object", "required": ["openapi", "info", "paths", "components"]},
                {"openapi": "3.1.0", "info": {}, "paths": {}, "components": {}},
            ),
        )
    ),
    "/status": _both(
        _operation(
            "status",
            "How the appliance is",
            _json("So it is.", _reference("schemas", "Status"), STATUS_EXAMPLE),
        )
    ),
}

DOCUMENT: Final[dict[str, Any]] = {
    "openapi": "3.1.0",
    "info": {
        "title": "fibcore",
        "version": version("fibcore"),
        "summary": "Steps through the Fibonacci sequence: exact, fast, and durable.",
        "description": "The sequence stands at an index n, which the ETag of an answer says; only "
        "/next moves it. At any other path than these and the page at / the answer is 404, to any "
        "other method 405, each a problem as below, and nothing has stepped.",
        "license": {"name": "MIT", "identifier": "MIT"},
    },
    "paths": PATHS,
    "components": {
        "schemas": {"Problem": PROBLEM, "Status": STATUS},
        "responses": _RESPONSES,
        "headers": _HEADERS,
        "parameters": _PARAMETERS,
    },
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
