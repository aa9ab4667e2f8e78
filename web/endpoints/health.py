"""``/health``: whether the store is usable."""

import json
from collections.abc import Sequence
from typing import Final

from web.endpoints.schemas import structure
from web.http import answers
from web.http.answers import Answer
from web.http.origins import CORS
from web.http.request import Reply, Request
from web.http.routing import Content, Description, Endpoint
from web.service import Service


def _healthy(warnings: Sequence[str] = ()) -> Answer:
    """200; ``warnings``: what endangers acknowledged steps."""
    members = {"warnings": warnings} if warnings else {}
    return answers.ok(b"application/json", json.dumps({"status": "healthy", **members}).encode())


_HEALTHY: Final = _healthy()
"""One object, so that it is rendered once."""


def _health(service: Service, request: Request, reply: Reply) -> None:  # noqa: ARG001
    """Answer whether the store is usable."""
    reason = service.reason
    if reason is not None:
        reply(answers.unavailable(reason, cache_control=answers.NO_CACHE))
    else:
        warnings = service.warnings
        reply(_healthy(warnings) if warnings else _HEALTHY)


HEALTH: Final = Endpoint(
    "/health",
    ("GET", "HEAD"),
    _health,
    answers.NO_CACHE,
    CORS,
    description=Description(
        "health",
        "Whether the store is usable.",
        "The store is usable.",
        {
            "application/json": Content(
                structure(
                    {"status": {"const": "healthy"}},
                    optional={
                        "warnings": {
                            "type": "array",
                            "items": {"type": "string"},
                            "description": "Risks to acknowledged steps, one sentence each.",
                        }
                    },
                ),
                {"status": "healthy"},
            )
        },
    ),
)
