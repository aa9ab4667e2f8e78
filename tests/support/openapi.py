"""Whether answers are as ``/openapi.json`` describes them, of whichever requests."""

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
    # As far as Python reads a number in JSON.
    "FIB_MAX_INDEX": str(LARGEST),
    "FIB_ALLOWED_ORIGINS": ORIGIN,
    "FIB_ALLOWED_HOSTS": "app.example.com",
}
"""Of the server that is asked. It stands a little before the largest index."""

ANSWERED: Final = ["2xx", "304", "403", "404", "405", "409", "412", "421", "503"]
"""How a request may be answered that is one: 503 is no failure of the server's."""

CHECKS: Final = {
    "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "503"]},
    # Whether a condition holds, or a page is allowed, is not a schema's to say.
    "positive_data_acceptance": {"expected-statuses": ANSWERED},
}

OPERATIONS: Final = [
    (method, path) for path, methods in DOCUMENT["paths"].items() for method in methods
]


# Each process of the tests collects all of them, and few ask: schemathesis is imported late.


@functools.cache
def schema() -> OpenApiSchema:
    """The document, as schemathesis reads it."""
    import schemathesis
    from schemathesis.config import SchemathesisConfig

    return schemathesis.openapi.from_dict(
        DOCUMENT, config=SchemathesisConfig.from_dict({"checks": CHECKS})
    )


def assert_is_described(
    client: Client, method: str, path: str, examples: int, *, seed: int | None = None
) -> None:
    """Ask as the document allows, and as it doesn't: schemathesis checks what is answered.

    Args:
        client: of the server that is asked.
        method: of the operation.
        path: of the operation.
        examples: how many requests are made, of each kind.
        seed: of what is random; without one it is the same each time.
    """
    from schemathesis import GenerationMode
    from schemathesis.core.parameters import ParameterLocation
    from schemathesis.specs.openapi.checks import negative_data_rejection

    operation = schema()[path][method.upper()]
    # A header field is never rejected, and a preflight does not ask for a number.
    modes = (
        list(GenerationMode) if "{" in path and method != "options" else [GenerationMode.POSITIVE]
    )
    settings = hypothesis.settings(
        max_examples=examples,
        derandomize=seed is None,
        database=None,
        # schemathesis draws so, and does this by itself where it is a program.
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    with requests.Session() as session:
        for mode in modes:

            @settings
            @hypothesis.given(operation.as_strategy(mode))
            def answers(case: schemathesis.Case[Any]) -> None:
                assert case.meta is not None
                # Only what stands in the path is rejected for what it is.
                in_path = case.meta.is_negative_at(ParameterLocation.PATH)
                case.call_and_validate(
                    f"http://{client.host}:{client.port}",
                    session,
                    excluded_checks=[] if in_path else [negative_data_rejection],
                )

            (answers if seed is None else hypothesis.seed(seed)(answers))()


def resolved(found: Any) -> Any:
    """What stands in the document where this is, or is referred to from here."""
    if "$ref" in found:
        _, *keys = found["$ref"].split("/")
        found = DOCUMENT
        for key in keys:
            found = found[key]
    return found


def assert_matches(schema: Any, value: Any) -> None:
    """``value`` is as ``schema``, which stands in the document, says."""
    jsonschema_rs.Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(
        value
    )
