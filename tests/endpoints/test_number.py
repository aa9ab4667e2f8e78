"""``/numbers/{index}``: exact at any index, and harmless to others."""

import json
from pathlib import Path
from typing import Final

import pytest

from tests.support.implementations import (
    assert_number,
    assert_problem,
    server_of_the_module,
    serving,
)
from tests.support.reference import digits_of, fibonacci_modulo
from tests.support.servers import Client

SHORT: Final = 19_000
"""Longer numbers are computed in a process of their own."""
LARGEST: Final = 300_000


client = server_of_the_module(7, FIB_MAX_INDEX=str(LARGEST))

# The answers


@pytest.mark.parametrize(
    "index", [0, 1, 2, 6, 7, 8, 93, 94, 20_578, SHORT, SHORT + 1, 30_000, LARGEST]
)
def test_the_number_at_an_index_is_exact_and_steps_nothing(client: Client, index: int) -> None:
    answer = client.get(f"/numbers/{index}")
    assert_number(answer, "number", digits_of(index))
    assert answer.index == index
    text = client.get(f"/numbers/{index}", {"Accept": "text/plain"})
    assert text.body == digits_of(index)
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert text.headers["etag"] == f'"{index}-text"'
    assert client.index == 7


def test_a_number_is_immutable_and_varies_by_accept(client: Client) -> None:
    for path in ("/numbers/7", f"/numbers/{LARGEST}"):
        answer = client.get(path)
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["vary"] == "accept"


@pytest.mark.parametrize("accept", ["application/json", "text/plain"])
@pytest.mark.parametrize("index", [7, SHORT + 1, LARGEST])
def test_a_number_that_the_client_already_has_is_304(
    client: Client, index: int, accept: str
) -> None:
    etag = client.get(f"/numbers/{index}", {"Accept": accept}).headers["etag"]
    answer = client.get(f"/numbers/{index}", {"Accept": accept, "If-None-Match": etag})
    assert answer.status == 304
    assert answer.headers["etag"] == etag
    assert client.get(f"/numbers/{index}", {"If-None-Match": '"8"'}).status == 200
    assert client.get(f"/numbers/{index}", {"If-Match": etag}).status == 200
    refused = client.get(f"/numbers/{index}", {"If-Match": '"8"'})
    assert_problem(refused, 412, "If-Match does not name this number")


@pytest.mark.parametrize("accept", ["application/json", "text/plain"])
@pytest.mark.parametrize("index", [0, 7, 1_000, 1_001, 20_578, LARGEST - 1])
def test_head_has_the_length_without_computing_the_number(
    client: Client, index: int, accept: str
) -> None:
    head = client.request("HEAD", f"/numbers/{index}", {"Accept": accept})
    assert head.body == b""
    got = client.get(f"/numbers/{index}", {"Accept": accept})
    assert head.headers["content-length"] == str(len(got.body))
    assert head.headers["etag"] == got.headers["etag"]


@pytest.mark.parametrize(
    "index", ["x", "-1", "+1", "01", "00", "1.0", "1e3", " 1", "%20", "٣", "0x1"]
)
def test_an_invalid_index_is_400(client: Client, index: str) -> None:
    answer = client.get(f"/numbers/{index.replace(' ', '%20').replace('٣', '%D9%A3')}")
    assert_problem(answer, 400, "a non-negative decimal integer")
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("index", [f"{LARGEST + 1}", f"{2**63}", "9" * 19, "9" * 5_000])
def test_past_the_largest_index_it_is_404(client: Client, index: str) -> None:
    answer = client.get(f"/numbers/{index}")
    assert_problem(answer, 404, f"The largest index here is {LARGEST} (FIB_MAX_INDEX)")


@pytest.mark.parametrize("path", ["/numbers", "/numbers/", "/numbers/7/", "/numbers/7/8"])
def test_other_paths_under_numbers_are_404(client: Client, path: str) -> None:
    assert client.get(path).status == 404


def test_a_query_and_percent_encoding_do_not_change_the_index(client: Client) -> None:
    assert client.get("/numbers/%37?x").body == b'{"number": 13}'


@pytest.mark.processes
def test_with_uint64_it_is_modulo_2_to_the_64_at_any_index(tmp_path: Path) -> None:
    with serving(tmp_path, 7, FIB_INTEGERS="uint64") as client:
        for index in (93, 94, 10**18, 2**63 - 1):
            answer = client.get(f"/numbers/{index}")
            assert_number(answer, "number", b"%d" % fibonacci_modulo(index))
        assert answer.headers["etag"] == f'"{2**63 - 1}-uint64"'
        assert client.request("HEAD", "/numbers/94").headers["content-length"] == str(
            len(client.get("/numbers/94").body)
        )


@pytest.mark.processes
def test_a_number_larger_than_memory_is_503(tmp_path: Path) -> None:
    settings = {"FIB_MAX_ANSWER_BYTES": str(2**20), "FIB_MAX_INDEX": "10000000"}
    with serving(tmp_path, 7, **settings) as client:
        answer = client.get("/numbers/10000000")
        assert_problem(answer, 503, "FIB_MAX_ANSWER_BYTES is 1048576")
        assert "Retrying does not help until the limit is raised." in answer.body.decode()
        assert "retry-after" not in answer.headers
        assert client.request("HEAD", "/numbers/10000000").status == 200
        shed = json.loads(client.get("/status").body)["shed_requests"]
        assert shed["in_flight"] == 1
