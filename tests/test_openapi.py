"""/openapi.json, both ways: the document and the table can not disagree."""

import json
import os
from collections.abc import Iterator
from typing import Any, Final

import hypothesis
import pytest
import schemathesis
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.support.servers import Client
from tests.support.ways import WAYS, serving
from web.endpoints import TABLE
from web.openapi import DOCUMENT


def test_the_document_has_each_row_with_its_methods_and_no_other() -> None:
    described = {
        path: {method.upper() for method in methods} for path, methods in DOCUMENT["paths"].items()
    }
    assert described == {row.path: set(row.methods) for row in TABLE.rows}


EXAMPLES: Final = max(20, round(float(os.environ.get("FAULTS_SECONDS", "0")) / 2))


@pytest.fixture(scope="module", params=WAYS)
def client(
    processes: None,  # noqa: ARG001
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Client]:
    # As far as Python reads a number in JSON.
    settings = {"FIB_MAX_INDEX": "19000"}
    with serving(tmp_path_factory.mktemp("openapi"), 7, request.param, **settings) as client:
        yield client


def test_it_is_served_as_it_is(client: Client) -> None:
    answer = client.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.body) == DOCUMENT


SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)


@pytest.mark.parametrize("path", DOCUMENT["paths"])
def test_whatever_is_asked_the_answer_is_as_the_document_says(client: Client, path: str) -> None:
    for method in DOCUMENT["paths"][path]:
        operation = SCHEMA[path][method.upper()]

        @hypothesis.settings(max_examples=EXAMPLES, derandomize=True)
        @hypothesis.given(operation.as_strategy())
        def answers(case: schemathesis.Case[Any]) -> None:
            # Of which the 503 is no error of the server's.
            hypothesis.assume("prefetch" not in str(case.headers))
            # Whether a condition holds is not a schema's to say.
            case.call_and_validate(
                base_url=f"http://{client.host}:{client.port}",
                excluded_checks=[positive_data_acceptance],
            )

        answers()
