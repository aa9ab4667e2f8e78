"""Entity tags, conditions, caching, and prefetching."""

from collections.abc import Callable
from contextlib import closing

import pytest

from tests.endpoints.contract import NUMBERS, READS
from tests.endpoints.contract.conftest import NoStep
from tests.support.cases import Test, every
from tests.support.implementations import assert_number, assert_problem
from tests.support.reference import digits_of
from tests.support.servers import Client

pytestmark = pytest.mark.processes


# ETag and conditions


def test_every_number_has_the_index_as_its_etag(client: Client) -> None:
    index = client.index
    assert client.get("/current").headers["etag"] == f'"{index}"'
    assert client.get("/previous").headers["etag"] == f'"{index}"'
    assert client.get("/next").headers["etag"] == f'"{index + 1}"'
    assert client.get("/health").headers["etag"] is None


def tags(*forms: str) -> Callable[[Test], Test]:
    """Values of a field; N is replaced by the index."""
    return every("field", forms)


def at(index: int, field: str) -> str:
    return field.replace("N", str(index))


@every("path", READS)
@tags('"N"', 'W/"N"', "*", '"x", "N"', '"x" ,, W/"N"', ' "N" ')
def test_a_read_of_an_unchanged_number_is_304(
    client: Client, no_step: NoStep, path: str, field: str
) -> None:
    with no_step() as index:
        answer = client.get(path, {"If-None-Match": at(index, field)})
        assert answer.status == 304
        assert answer.body == b""
        assert answer.index == index
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["vary"] == "accept"


@every("path", READS)
@tags('"x"', '"1N"', "N", '"N', "", '"N" "x"', 'w/"N"')
def test_a_read_of_a_changed_number_is_200(client: Client, path: str, field: str) -> None:
    answer = client.get(path, {"If-None-Match": at(client.index, field)})
    assert answer.status == 200


@every("method", ["GET", "POST"])
@tags('"N"', "*", '"x", "N"', '"N", "x"', '"x",,"N"', ' "N" ')
def test_a_step_is_made_if_if_match_has_the_index(client: Client, method: str, field: str) -> None:
    index = client.index
    answer = client.request(method, "/next", {"If-Match": at(index, field)})
    assert_number(answer, "next", digits_of(index + 1))
    assert answer.index == index + 1


@every("method", ["GET", "POST"])
@tags('"x"', '"1N"', 'W/"N"', '"0N"', '"x", W/"N"')
def test_no_step_is_made_if_if_match_has_another_index(
    client: Client, no_step: NoStep, method: str, field: str
) -> None:
    with no_step() as index:
        answer = client.request(method, "/next", {"If-Match": at(index, field)})
        assert_problem(answer, 412, "which If-Match does not name")
        assert answer.index == index
        assert answer.headers["cache-control"] == "no-store"


@tags("N", '"N', 'N"', '"N" "x"', '"N", *', "'N'", 'w/"N"')
def test_no_step_is_made_if_if_match_is_malformed(
    client: Client, no_step: NoStep, field: str
) -> None:
    with no_step() as index:
        answer = client.get("/next", {"If-Match": at(index, field)})
        assert_problem(answer, 412, "If-Match is not a list of entity tags")
        assert answer.index == index


def test_a_client_can_retry_without_a_second_step(client: Client) -> None:
    """The answer to its first request was lost."""
    index = client.index
    once = {"If-Match": f'"{index}"'}
    with closing(client.raw()) as lost:
        headers = f"Host: {client.host}\r\nIf-Match: {once['If-Match']}\r\n"
        lost.sendall(f"GET /next HTTP/1.1\r\n{headers}\r\n".encode())
        assert lost.recv(12) == b"HTTP/1.1 200"
    again = client.get("/next", once)
    assert again.status == 412
    assert again.index == index + 1
    assert_number(client.get("/current"), "current", digits_of(index + 1))


@every("path", READS)
def test_a_read_is_answered_if_if_match_has_the_index(
    client: Client, no_step: NoStep, path: str
) -> None:
    with no_step() as index:
        assert client.get(path, {"If-Match": f'"{index}"'}).status == 200
        answer = client.get(path, {"If-Match": f'"{index + 1}"'})
        assert_problem(answer, 412, "which If-Match does not name")
        assert answer.headers["cache-control"] == "no-cache"


# Caching


def test_a_step_has_no_store_and_a_read_has_no_cache(
    client: Client, no_step_paths: list[str]
) -> None:
    assert client.get("/next").headers["cache-control"] == "no-store"
    for path in no_step_paths:
        if not path.startswith("/numbers/"):
            assert client.get(path).headers["cache-control"] == "no-cache"


@every("name", NUMBERS)
def test_every_number_has_vary_accept(client: Client, name: str) -> None:
    assert client.get(f"/{name}").headers["vary"] == "accept"


# Prefetch


@every("method", ["GET", "POST"])
@every("field", ["Sec-Purpose", "Purpose", "X-Purpose", "X-Moz"])
@every("value", ["prefetch", "prefetch;prerender", "Prefetch", "preview"])
def test_a_prefetch_never_steps(
    client: Client, no_step: NoStep, method: str, field: str, value: str
) -> None:
    with no_step() as index:
        answer = client.request(method, "/next", {field: value})
        assert_problem(answer, 503, "prefetch")
        assert answer.headers["retry-after"] == "1"
        assert answer.index == index


def test_a_read_may_be_prefetched(client: Client, no_step_paths: list[str]) -> None:
    for path in no_step_paths:
        assert client.get(path, {"Sec-Purpose": "prefetch"}).status == 200, path
