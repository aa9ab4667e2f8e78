"""The answers, in each of their representations."""

from contextlib import closing

import pytest

from tests.endpoints.contract import NUMBERS
from tests.endpoints.contract.conftest import NoStep
from tests.support.cases import every
from tests.support.implementations import assert_number
from tests.support.reference import digits_of
from tests.support.servers import Answer, Client

pytestmark = pytest.mark.processes


# The four answers


def test_current_is_the_number_at_the_index(client: Client, no_step: NoStep) -> None:
    with no_step() as index:
        answer = client.get("/current")
        assert_number(answer, "current", digits_of(index))
        assert answer.index == index


def test_previous_is_the_number_before_and_steps_nothing(client: Client, no_step: NoStep) -> None:
    with no_step() as index:
        answer = client.get("/previous")
        assert_number(answer, "previous", digits_of(index - 1))
        assert answer.index == index


@every("method", ["GET", "POST"])
def test_next_steps_and_answers_the_new_number(client: Client, method: str) -> None:
    index = client.index
    for reached in range(index + 1, index + 4):
        answer = client.request(method, "/next")
        assert_number(answer, "next", digits_of(reached))
        assert answer.index == reached
        assert_number(client.get("/current"), "current", digits_of(reached))
        assert_number(client.get("/previous"), "previous", digits_of(reached - 1))


def test_health_is_healthy(client: Client, no_step: NoStep) -> None:
    with no_step():
        answer = client.get("/health")
        assert answer.status == 200
        assert answer.body == b'{"status": "healthy"}'
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["content-length"] == str(len(answer.body))


def test_a_body_on_post_is_ignored(client: Client) -> None:
    index = client.index
    with closing(client.connect()) as connection:
        for reached, body in enumerate([b"", b"{}", b"x" * 100_000], index + 1):
            answer = client.request_on(connection, "POST", "/next", body=body)
            assert_number(answer, "next", digits_of(reached))


def test_a_chunked_body_on_post_is_ignored(client: Client) -> None:
    index = client.index
    with closing(client.connect()) as connection:
        for reached in (index + 1, index + 2):
            connection.request("POST", "/next", iter([b"a", b"bc"]), encode_chunked=True)
            response = connection.getresponse()
            assert_number(
                Answer(response.status, response.headers, response.read()),
                "next",
                digits_of(reached),
            )


@every("target", ["/next?", "/next?a=b", "/next?/current", "/%6eext", "/%6Eext"])
def test_a_query_is_ignored_and_percent_encoding_is_decoded(client: Client, target: str) -> None:
    index = client.index
    assert_number(client.get(target), "next", digits_of(index + 1))


# Representations


@every("name", NUMBERS)
def test_text_is_only_the_digits(client: Client, name: str) -> None:
    answer = client.get(f"/{name}", {"Accept": "text/plain"})
    offset = -1 if name == "previous" else 0
    assert answer.status == 200
    assert answer.body == digits_of(answer.index + offset)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.headers["vary"] == "accept"


JSON, TEXT = "application/json", "text/plain; charset=utf-8"


@every(
    ("accept, wanted"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("application/json", JSON),
        ("text/html", JSON),
        ("text/html,application/xhtml+xml,application/xml,*/*", JSON),
        ("text/plain, application/json", JSON),
        ("application/json, text/plain", JSON),
        ("text/plain", TEXT),
        ("TEXT/Plain", TEXT),
        ("text/plain; charset=utf-8", TEXT),
        ("image/png, text/plain", TEXT),
    ],
)
def test_text_is_sent_if_accept_names_it_and_not_json(
    client: Client, accept: str, wanted: str
) -> None:
    answer = client.get("/current", {"Accept": accept})
    assert answer.headers["content-type"] == wanted


def test_several_lines_of_accept_are_one_list(client: Client) -> None:
    for lines, wanted in ((("image/png", "text/plain"), TEXT), (("text/plain", JSON), JSON)):
        answer = client.get("/current", [("Accept", each) for each in lines])
        assert answer.headers["content-type"] == wanted
