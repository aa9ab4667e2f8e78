"""The answers of a server match the document that it serves at ``/openapi.json``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import hypothesis
import pytest
import requests

from tests.support.implementations import server_of_the_module
from tests.support.openapi import Document
from tests.support.raw_clients import say
from tests.support.servers import Client
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    import schemathesis
    from schemathesis.specs.openapi.schemas import OpenApiSchema

pytestmark = pytest.mark.processes

LARGEST: Final = 19_000
"""Python reads no longer numbers from JSON."""

client = server_of_the_module(
    LARGEST - 5, FIB_MAX_INDEX=str(LARGEST), FIB_ALLOWED_HOSTS="app.example.com"
)

CHECKS: Final = {
    "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "503"]},
    # A schema can't express whether a condition holds or an origin is allowed.
    "positive_data_acceptance": {
        "expected-statuses": ["2xx", "304", "403", "404", "405", "409", "412", "421", "503"]
    },
}

EXAMPLES: Final = 5
"""Requests of each kind to each operation."""

OWN: Final = {"content-type", "content-length", "connection", "date", "server"} | {
    "x-content-type-options",
    "cross-origin-resource-policy",
}
"""Fields that any answer may have."""


@pytest.fixture(scope="module")
def document(client: Client) -> Document:
    return Document(client)


@pytest.fixture(scope="module")
def schema(document: Document) -> OpenApiSchema:
    # Imported late: every test process collects this module, but few need it.
    import schemathesis
    from schemathesis.config import SchemathesisConfig

    return schemathesis.openapi.from_dict(
        document.whole, config=SchemathesisConfig.from_dict({"checks": CHECKS})
    )


def test_the_document_is_valid_and_each_answer_has_an_example_of_its_schema(
    document: Document, schema: OpenApiSchema
) -> None:
    schema.validate()
    for path, methods in document.paths.items():
        for method, operation in methods.items():
            for status in operation["responses"]:
                response = document.response(method, path, status)
                for content in response.get("content", {}).values():
                    examples = [each["value"] for each in content.get("examples", {}).values()]
                    examples += [content["example"]] if "example" in content else []
                    assert examples, (method, path, status)
                    for example in examples:
                        document.assert_matches(content["schema"], example)


def test_every_answer_matches_the_document(
    client: Client, document: Document, schema: OpenApiSchema
) -> None:
    """To valid requests, and to those whose path is not: header fields are never invalid."""
    from schemathesis import GenerationMode
    from schemathesis.core.parameters import ParameterLocation
    from schemathesis.specs.openapi.checks import negative_data_rejection

    settings = hypothesis.settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        # schemathesis's command line suppresses these, too.
        suppress_health_check=list(hypothesis.HealthCheck),
    )

    def check(operation: Any, mode: GenerationMode, session: requests.Session) -> None:
        @settings
        @hypothesis.given(operation.as_strategy(mode))
        def answers(case: schemathesis.Case[Any]) -> None:
            assert case.meta is not None
            rejected = case.meta.is_negative_at(ParameterLocation.PATH)
            case.call_and_validate(
                f"http://{client.host}:{client.port}",
                session,
                excluded_checks=[] if rejected else [negative_data_rejection],
            )

        answers()

    with requests.Session() as session:
        for path, methods in document.paths.items():
            for method in methods:
                modes = [GenerationMode.POSITIVE]
                if "{" in path and method != "options":
                    modes.append(GenerationMode.NEGATIVE)
                for mode in modes:
                    check(schema[path][method.upper()], mode, session)


ANSWERS: Final = [
    (200, "GET", "/current", {}),
    (304, "GET", "/current", {"If-None-Match": "*"}),
    (400, "GET", "/numbers/x", {}),
    (400, "POST", "/next", {"Idempotency-Key": "x"}),
    (403, "POST", "/next", {"Sec-Fetch-Site": "cross-site"}),
    (404, "HEAD", f"/numbers/{LARGEST + 1}", {}),
    (409, "POST", "/next", {}),
    (409, "POST", "/next", {"Idempotency-Key": f'"{LARGEST}:{"a" * 16}"'}),
    (412, "GET", "/previous", {"If-Match": '"x"'}),
    (421, "GET", "/status", {"Host": "elsewhere.example.com"}),
    (503, "GET", "/next", {"Sec-Purpose": "prefetch"}),
]


def test_each_documented_answer_occurs_with_described_fields(
    client: Client, document: Document, schema: OpenApiSchema
) -> None:
    for status, method, target, fields in ANSWERS:
        url = f"http://{client.host}:{client.port}{target}"
        answer = requests.request(method, url, headers=fields, timeout=PATIENCE)
        while status == 409 and answer.status_code == 200:
            answer = requests.request(method, url, headers=fields, timeout=PATIENCE)
        assert answer.status_code == status, target
        path = "/numbers/{index}" if target.startswith("/numbers/") else target
        schema[path][method].validate_response(answer)
        described = {each.lower() for each in document.response(method, path, status)["headers"]}
        assert {each.lower() for each in answer.headers} - OWN <= described


def test_a_malformed_request_gets_the_problem_of_the_schema(
    client: Client, document: Document
) -> None:
    head, _, body = say(client, b"GET /next HTTP/1.1\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    content = document.response("get", "/next", 400)["content"]["application/problem+json"]
    document.assert_matches(content["schema"], json.loads(body))
