"""Checks answers to random requests against ``/openapi.json``."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import hypothesis
import jsonschema_rs
import requests

from tests.support.servers import Client
from web.endpoints.openapi import document
from web.endpoints.table import TABLE

if TYPE_CHECKING:
    import schemathesis
    from schemathesis.specs.openapi.schemas import OpenApiSchema


DOCUMENT: Final = document(TABLE.rows)

ORIGIN: Final = "https://app.example.com"
LARGEST: Final = 19_000

SETTINGS: Final = {
    # Python reads no longer numbers from JSON.
    "FIB_MAX_INDEX": str(LARGEST),
    "FIB_ALLOWED_ORIGINS": ORIGIN,
    "FIB_ALLOWED_HOSTS": "app.example.com",
}
"""The settings of the server, whose index must be a little below the maximum."""

ANSWERED: Final = ["2xx", "304", "403", "404", "405", "409", "412", "421", "503"]
"""Statuses of a valid request; 503 is not a server error."""

CHECKS: Final = {
    "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "503"]},
    # A schema can't express whether a condition holds or an origin is allowed.
    "positive_data_acceptance": {"expected-statuses": ANSWERED},
}

OPERATIONS: Final = [
    (method, path) for path, methods in DOCUMENT["paths"].items() for method in methods
]


# schemathesis is imported late: every test process collects this module, but few need it.


@functools.cache
def schema() -> OpenApiSchema:
    """Return the document as a schema of schemathesis."""
    import schemathesis
    from schemathesis.config import SchemathesisConfig

    return schemathesis.openapi.from_dict(
        DOCUMENT, config=SchemathesisConfig.from_dict({"checks": CHECKS})
    )


def assert_is_described(
    client: Client, method: str, path: str, examples: int, *, seed: int | None = None
) -> None:
    """Send valid and invalid requests to an operation; schemathesis checks the answers.

    Args:
        client: of the server.
        method: of the operation.
        path: of the operation.
        examples: number of requests of each kind.
        seed: of the random requests; None: the same requests each time.
    """
    from schemathesis import GenerationMode
    from schemathesis.core.parameters import ParameterLocation
    from schemathesis.specs.openapi.checks import negative_data_rejection

    operation = schema()[path][method.upper()]
    # Header fields are never invalid, and a preflight needs no valid index.
    modes = (
        list(GenerationMode) if "{" in path and method != "options" else [GenerationMode.POSITIVE]
    )
    settings = hypothesis.settings(
        max_examples=examples,
        derandomize=seed is None,
        database=None,
        # schemathesis's command line suppresses these, too.
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    with requests.Session() as session:
        for mode in modes:

            @settings
            @hypothesis.given(operation.as_strategy(mode))
            def answers(case: schemathesis.Case[Any]) -> None:
                assert case.meta is not None
                # Only an invalid path is rejected.
                in_path = case.meta.is_negative_at(ParameterLocation.PATH)
                case.call_and_validate(
                    f"http://{client.host}:{client.port}",
                    session,
                    excluded_checks=[] if in_path else [negative_data_rejection],
                )

            (answers if seed is None else hypothesis.seed(seed)(answers))()


def resolved(found: Any) -> Any:
    """Resolve ``found`` if it is a reference."""
    if "$ref" in found:
        _, *keys = found["$ref"].split("/")
        found = DOCUMENT
        for key in keys:
            found = found[key]
    return found


def assert_matches(schema: Any, value: Any) -> None:
    """Assert that ``value`` matches a schema of the document."""
    jsonschema_rs.Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(
        value
    )
