"""``HEAD``, other methods, and unknown paths."""

import json
from contextlib import closing

import pytest

from tests.endpoints.contract import LIVE, READS, WITH_INDEX
from tests.endpoints.contract.conftest import NoStep
from tests.support.cases import every
from tests.support.implementations import assert_problem
from tests.support.servers import Answer, Client

pytestmark = pytest.mark.processes


# HEAD and other methods


def test_head_is_get_without_the_body(client: Client, no_step_paths: list[str]) -> None:
    for path in set(no_step_paths) - set(LIVE):
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


def test_the_contract_is_in_the_served_document(methods: dict[str, set[str]]) -> None:
    assert methods["/next"] == {"GET", "POST"}
    for path in (*READS, "/health", "/numbers/{index}"):
        assert methods[path] == {"GET", "HEAD"}


@every("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
def test_an_unsupported_method_is_405_with_allow(
    client: Client, no_step: NoStep, methods: dict[str, set[str]], method: str
) -> None:
    for path, allowed in methods.items():
        unsupported = "TRACE" if method in allowed else method
        with no_step() as index:
            body = b"" if unsupported == "POST" else None
            answer = client.request(unsupported, path.replace("{index}", "7"), body=body)
            assert_problem(answer, 405, f"{path} does not support {unsupported}.")
            assert set(answer.headers["allow"].split(", ")) == allowed
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
def test_any_other_path_is_404(
    client: Client, no_step: NoStep, methods: dict[str, set[str]], method: str, target: str
) -> None:
    with no_step():
        answer = client.request(method, target)
        assert_problem(answer, 404, "There is nothing at ")
        assert answer.headers["cache-control"] == "no-store"
        assert "location" not in answer.headers
        assert all(path in json.loads(answer.body)["detail"] for path in methods)
