"""``HEAD``, other methods, and unknown paths."""

import json
from contextlib import closing

import pytest

from tests.endpoints.contract import NO_STEP, PATHS, WITH_INDEX
from tests.endpoints.contract.conftest import NoStep
from tests.support.cases import every
from tests.support.corpus import LIVE, example
from tests.support.implementations import assert_problem
from tests.support.servers import Answer, Client
from web.endpoints.table import TABLE

pytestmark = pytest.mark.processes

ALLOWED = {row.path: ", ".join(row.methods) for row in TABLE.rows}


# HEAD and other methods


@every("path", [path for path in NO_STEP if path not in LIVE])
def test_head_is_get_without_the_body(client: Client, path: str) -> None:
    with closing(client.connect()) as connection:
        head = client.request_on(connection, "HEAD", path)
        get = client.request_on(connection, "GET", path)
    assert head.body == b""
    assert head.status == get.status == 200
    assert without_date(head) == without_date(get)


def without_date(answer: Answer) -> list[tuple[str, str]]:
    return [(name, value) for name, value in answer.headers.items() if name != "date"]


def test_head_of_next_is_not_allowed_and_never_steps(client: Client, no_step: NoStep) -> None:
    with no_step() as index, closing(client.connect()) as connection:
        head = client.request_on(connection, "HEAD", "/next")
        assert head.status == 405
        assert head.headers["allow"] == "GET, POST"
        assert head.body == b""
        assert head.index == index
        # If a body had been sent, this answer would begin with it.
        assert client.request_on(connection, "GET", "/current").status == 200


def test_the_contract_is_in_the_table() -> None:
    contract = {
        "/current": "GET, HEAD",
        "/next": "GET, POST",
        "/previous": "GET, HEAD",
        "/health": "GET, HEAD",
    }
    assert contract.items() <= ALLOWED.items()


@every("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
@every("path", PATHS)
def test_an_unsupported_method_is_405_with_allow(
    client: Client, no_step: NoStep, path: str, method: str
) -> None:
    if method in ALLOWED[path]:
        method = "TRACE"
    with no_step() as index:
        body = b"" if method == "POST" else None
        answer = client.request(method, example(path), body=body)
        assert_problem(answer, 405, f"{path} does not support {method}.")
        assert answer.headers["allow"] == ALLOWED[path]
        if path in WITH_INDEX:
            assert answer.index == index


# Errors


@every(
    "target",
    [
        "/page",
        "/nex",
        "/next/",
        "//next",
        "/NEXT",
        "/next/x",
        "/next%0A",
        "/next%20",
        "/next%2F",
        "/next%3Fa",
        "/%00",
        "/../next",
    ],
)
@every("method", ["GET", "POST", "DELETE"])
def test_any_other_path_is_404(client: Client, no_step: NoStep, method: str, target: str) -> None:
    with no_step():
        answer = client.request(method, target)
        assert_problem(answer, 404, "There is nothing at ")
        assert answer.headers["cache-control"] == "no-store"
        assert "location" not in answer.headers
        assert all(path in json.loads(answer.body)["detail"] for path in PATHS)
