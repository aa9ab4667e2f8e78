"""/openapi.json: the document and the table agree."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final
from unittest.mock import ANY

import pytest
import requests
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from tests.support.cases import every
from tests.support.implementations import server_of_the_module, serving
from tests.support.openapi import (
    DOCUMENT,
    LARGEST,
    OPERATIONS,
    ORIGIN,
    SETTINGS,
    assert_is_described,
    assert_matches,
    resolved,
    schema,
)
from tests.support.raw_clients import read_all
from tests.support.servers import Client
from tests.support.waiting import PATIENCE
from web.endpoints.openapi import PROBLEMS as COMMON
from web.endpoints.openapi import described
from web.endpoints.table import TABLE
from web.http.answers import SERVERS_OWN

# Each row


def operations(path: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][path]
    return found


def test_the_document_has_each_endpoint_with_only_its_methods() -> None:
    described = {
        path: {method.upper() for method in methods} for path, methods in DOCUMENT["paths"].items()
    }
    # No row accepts it: it is answered 405, or is a browser's preflight.
    assert described == {row.path: {*row.methods, "OPTIONS"} for row in TABLE.rows}


@pytest.mark.parametrize("row", TABLE.rows, ids=lambda row: row.path)
def test_the_document_has_the_header_fields_of_each_endpoint(row: Any) -> None:
    described = {
        parameter["name"].lower().encode()
        for operation in operations(row.path).values()
        for parameter in map(resolved, operation["parameters"])
        if parameter["in"] == "header"
    }
    # OpenAPI leaves that to the URL.
    assert described == row.fields - {b"host"}


OWN: Final = {
    "content-type",
    "content-length",
    "connection",
    "date",
    *map(bytes.decode, dict(SERVERS_OWN)),
}
"""Headers that any answer may have and no row decides on."""


def assert_headers_are_described(response: Any, headers: Iterable[str]) -> None:
    described = {name.lower() for name in response["headers"]}
    assert {name.lower() for name in headers} - OWN <= described


PROBLEMS: Final = {
    f"{name}{status}": problem
    for name, problems in (
        ("", COMMON),
        *((described(row).name, described(row).problems) for row in TABLE.rows),
    )
    for status, problem in problems.items()
}


@every("name", PROBLEMS)
def test_the_document_has_each_header_of_a_problem_and_requires_common_ones(name: str) -> None:
    response = DOCUMENT["components"]["responses"][name]
    sent = [{name.decode() for name, _ in each.headers()} for each in PROBLEMS[name].examples]
    assert_headers_are_described(response, set().union(*sent))
    for header, description in response["headers"].items():
        if resolved(description)["required"]:
            assert all(header.lower() in each for each in sent)


# The document is valid


def test_the_document_is_valid_openapi() -> None:
    schema().validate()


CONTENTS: Final = {
    f"{method} {path} {status} {media}": content
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
    for status, response in operation["responses"].items()
    for media, content in resolved(response).get("content", {}).items()
}


@every("name", CONTENTS)
def test_each_answer_has_an_example_that_matches_its_schema(name: str) -> None:
    content = CONTENTS[name]
    examples = [each["value"] for each in content.get("examples", {}).values()]
    if "example" in content:
        examples.append(content["example"])
    assert examples
    for example in examples:
        assert_matches(content["schema"], example)


PARSERS: Final[list[Any]] = [prometheus, openmetrics]


def test_prometheus_reads_the_examples_of_its_metrics() -> None:
    content = operations("/metrics")["get"]["responses"]["200"]["content"]
    (text,) = PARSERS[0](content["text/plain"]["example"])
    (open_text,) = PARSERS[1](content["application/openmetrics-text"]["example"])
    assert text.name == open_text.name == "fibcore_steps"
    assert text.samples == open_text.samples


# The answers match it


client = server_of_the_module(LARGEST - 5, **SETTINGS)


def test_the_document_is_served(client: Client) -> None:
    answer = client.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.body) == DOCUMENT


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_answer_matches_the_document(client: Client, method: str, path: str) -> None:
    assert_is_described(client, method, path, examples=10)


CORS: Final = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
ANSWERS: Final = [
    (200, "GET", "/current", {"Origin": ORIGIN}),
    (204, "OPTIONS", "/next", CORS),
    (304, "GET", "/current", {"If-None-Match": "*"}),
    (304, "GET", "/next", {"If-None-Match": "*"}),
    (400, "GET", "/numbers/x", {}),
    (400, "POST", "/next", {"Idempotency-Key": "x"}),
    (403, "POST", "/next", {"Sec-Fetch-Site": "cross-site"}),
    (404, "HEAD", f"/numbers/{LARGEST + 1}", {}),
    (405, "OPTIONS", "/current", {}),
    (405, "OPTIONS", "/status", {}),
    (409, "POST", "/next", {}),
    (409, "POST", "/next", {"Idempotency-Key": f'"{LARGEST}:{"a" * 16}"'}),
    (412, "GET", "/previous", {"If-Match": '"x"'}),
    (421, "GET", "/status", {"Host": "elsewhere.example.com"}),
    (503, "GET", "/next", {"Sec-Purpose": "prefetch"}),
]


@pytest.mark.parametrize(("status", "method", "target", "fields"), ANSWERS)
def test_each_documented_answer_occurs(
    client: Client, status: int, method: str, target: str, fields: dict[str, str]
) -> None:
    answer = requests.request(
        method, f"http://{client.host}:{client.port}{target}", headers=fields, timeout=PATIENCE
    )
    if status == 409:
        while answer.status_code == 200:
            answer = requests.request(method, answer.url, timeout=PATIENCE)
    assert answer.status_code == status
    path = next(row.path for row in TABLE.rows if TABLE.find(target) == (row, ANY))
    schema()[path][method].validate_response(answer)
    response = resolved(operations(path)[method.lower()]["responses"][str(status)])
    assert_headers_are_described(response, answer.headers)


@pytest.mark.processes
def test_a_malformed_request_gets_the_problem_of_the_schema(tmp_path: Path) -> None:
    with serving(tmp_path, 7) as client, client.raw() as connection:
        connection.sendall(b"GET /next HTTP/1.1\r\n\r\n")
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    described = operations("/next")["get"]["responses"]["400"]
    assert_matches(
        resolved(described)["content"]["application/problem+json"]["schema"], json.loads(body)
    )
