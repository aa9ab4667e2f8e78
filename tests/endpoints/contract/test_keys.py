"""``Idempotency-Key``: one key, one step, one number, however often it is requested."""

import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.endpoints.contract.conftest import NoStep
from tests.support.cases import every
from tests.support.implementations import assert_problem
from tests.support.reference import digits_of
from tests.support.servers import Answer, Client

pytestmark = pytest.mark.processes


METHODS = every("method", ("GET", "POST"))


def key_at(index: int) -> str:
    return f'"{index}:{secrets.token_urlsafe(16)}"'


def step(client: Client, key: str, method: str = "POST", **headers: str) -> Answer:
    fields = {"Idempotency-Key": key, **{name.replace("_", "-"): headers[name] for name in headers}}
    return client.request(method, "/next", fields)


@METHODS
def test_a_key_makes_one_step_and_always_gets_its_number(
    client: Client, no_step: NoStep, method: str
) -> None:
    index = client.index
    key = key_at(index)
    first = step(client, key, method)
    assert first.body == b'{"next": %b}' % digits_of(index + 1)
    assert first.headers["etag"] == f'"{index + 1}"'
    for _ in range(3):
        client.get("/next")
    with no_step():
        for again in ("GET", "POST"):
            answer = step(client, key, again)
            assert (answer.status, answer.index, answer.body) == (200, first.index, first.body)
    text = step(client, key, Accept="text/plain")
    assert text.body in first.body
    assert text.headers["etag"] == f'"{first.index}-text"'


def test_two_keys_make_two_steps(client: Client) -> None:
    index = client.index
    assert step(client, key_at(index)).index == index + 1
    assert step(client, key_at(index)).index == index + 2


def test_a_key_used_by_many_requests_at_once_makes_one_step(client: Client) -> None:
    index = client.index
    keys = [key_at(index) for _ in range(5)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda key: (key, step(client, key)), keys * 8))
    assert client.index == index + len(keys)
    made: dict[str, set[int]] = {key: set() for key in keys}
    for key, answer in answers:
        if answer.status == 200:
            made[key].add(answer.index)
        else:
            assert_problem(answer, 409, "is under way", "outstanding")
            assert answer.headers["retry-after"] == "1"
    assert sorted(index for each in made.values() for index in each) == list(
        range(index + 1, index + 1 + len(keys))
    )


def test_a_known_key_gets_its_number_whatever_if_match_says(
    client: Client, no_step: NoStep
) -> None:
    index = client.index
    key = key_at(index)
    made = step(client, key, If_Match=f'"{index}"')
    assert made.index == index + 1
    with no_step():
        again = step(client, key, If_Match=f'"{index}"')
        assert (again.status, again.index, again.body) == (200, made.index, made.body)


def test_a_412_leaves_the_key_unused(client: Client, no_step: NoStep) -> None:
    index = client.index
    key = key_at(index)
    with no_step():
        assert_problem(step(client, key, If_Match=f'"{index + 7}"'), 412, "If-Match")
    assert step(client, key, If_Match=f'"{index}"').index == index + 1


@METHODS
@every(
    "key",
    [
        "5:abcdefghijklmnop",
        '"abcdefghijklmnop"',
        '"5:short"',
        f'"5:{"x" * 65}"',
        '"05:abcdefghijklmnop"',
        '"-5:abcdefghijklmnop"',
        '"5:abcdefghijklmno\\""',
        '"5:abcdefghijklmnop"; a=1',
        '"5:abcdefghijklmnop", "5:abcdefghijklmnop"',
        '"10000000000000000000:abcdefghijklmnop"',
        "",
        '"',
    ],
)
def test_a_malformed_key_is_rejected(
    client: Client, no_step: NoStep, method: str, key: str
) -> None:
    with no_step():
        answer = step(client, key, method)
        assert_problem(answer, 400, "INDEX:RANDOM", "malformed")


def test_a_key_with_an_index_ahead_of_the_sequence_is_rejected(
    client: Client, no_step: NoStep
) -> None:
    with no_step() as index:
        answer = step(client, key_at(index + 1_000))
        assert_problem(answer, 409, "is ahead of this sequence", "ahead")


def test_other_paths_ignore_keys(client: Client) -> None:
    index = client.index
    assert client.get("/current", {"Idempotency-Key": "none"}).index == index
