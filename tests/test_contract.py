"""The HTTP contract, sentence by sentence, against a real server.

It runs against servers of its own that stand at several indexes, or with ``--base-url`` against
one that runs already, at whatever index. Ours answer in both ways, and the same; and on each store
that is shared, one node and three, of which each connection meets another one.
"""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import Engines
from tests.support.cases import Test, every
from tests.support.corpus import LIVE, example
from tests.support.engines import ENGINES, Engine
from tests.support.nodes import Nodes
from tests.support.proxy import Proxy
from tests.support.reference import digits_of
from tests.support.servers import Answer, Client
from tests.support.ways import WAYS, assert_number, assert_problem, serving
from web.endpoints import TABLE

pytestmark = pytest.mark.processes

STARTS = [0, 92, 30_000]
"""Small numbers, both sides of 64 bits, and numbers past the 4,300 digits that Python reads."""

ALLOWED = {row.path: ", ".join(row.methods) for row in TABLE.rows}
PATHS = [row.path for row in TABLE.rows]
WITH_INDEX = [row.path for row in TABLE.rows if row.has_index]
NUMBERS = [path[1:] for path in WITH_INDEX]
READS = [path for path in WITH_INDEX if path != "/next"]
NO_STEP = [example(path) for path in PATHS if path != "/next"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "url" in metafunc.fixturenames:
        given = metafunc.config.getoption("--base-url")
        places: list[object] = [given]
        if given is None:
            places = [(start, way) for way in WAYS for start in STARTS]
            places += [Shared(kind, nodes) for kind in ENGINES for nodes in (1, 3)]
        metafunc.parametrize("url", places, indirect=True, scope="module", ids=str)


class Shared(NamedTuple):
    """Several nodes behind a load balancer."""

    engine: type[Engine]
    nodes: int

    def __str__(self) -> str:
        return f"{self.engine.__name__.lower()}-{self.nodes}"


@pytest.fixture(scope="module")
def url(
    request: pytest.FixtureRequest, engines: Engines, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    place, folder = request.param, tmp_path_factory.mktemp("contract")
    if isinstance(place, str):
        yield place
    elif isinstance(place, Shared):
        with ExitStack() as stack:
            nodes = Nodes(engines(place.engine), folder, stack, first=92)
            servers = [nodes.start() for _ in range(place.nodes)]
            ports = (each.wait_until_it_serves().client.port for each in servers)
            yield f"http://127.0.0.1:{stack.enter_context(Proxy(*ports)).port}"
    else:
        start, way = place
        with serving(folder, start, way) as client:
            yield f"http://{client.host}:{client.port}"


@pytest.fixture
def client(url: str) -> Client:
    return Client(url)


NoStep = Callable[[], AbstractContextManager[int]]


@pytest.fixture
def no_step(client: Client) -> NoStep:
    """``with no_step() as index:`` proves that the sequence stands at the same index after."""

    @contextmanager
    def check() -> Iterator[int]:
        before = client.index
        yield before
        assert client.index == before

    return check


# The four answers


def test_current_is_the_number_at_the_index(client: Client, no_step: NoStep) -> None:
    with no_step() as index:
        answer = client.get("/current")
        assert_number(answer, "current", digits_of(index))
        assert answer.index == index


def test_previous_is_the_number_before_and_the_database_stays(
    client: Client, no_step: NoStep
) -> None:
    with no_step() as index:
        answer = client.get("/previous")
        assert_number(answer, "previous", digits_of(index - 1))
        assert answer.index == index


@every("method", ["GET", "POST"])
def test_next_steps_and_answers_the_number_reached(client: Client, method: str) -> None:
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


def test_requests_on_one_connection_are_answered_in_order(client: Client) -> None:
    index = client.index
    with closing(client.connect()) as connection:
        for reached in range(index + 1, index + 20):
            answer = client.request_on(connection, "GET", "/next")
            assert_number(answer, "next", digits_of(reached))


@every("target", ["/next?", "/next?a=b", "/next?/current", "/%6eext", "/%6Eext"])
def test_a_query_is_ignored_and_percent_encoding_undone(client: Client, target: str) -> None:
    index = client.index
    assert_number(client.get(target), "next", digits_of(index + 1))


def test_a_target_in_absolute_form_is_the_same(client: Client, no_step: NoStep) -> None:
    with no_step() as index:
        answer = client.get(f"http://{client.host}:{client.port}/current")
        assert_number(answer, "current", digits_of(index))


# ETag and conditions


def test_every_number_has_the_index_as_its_etag(client: Client) -> None:
    index = client.index
    assert client.get("/current").headers["etag"] == f'"{index}"'
    assert client.get("/previous").headers["etag"] == f'"{index}"'
    assert client.get("/next").headers["etag"] == f'"{index + 1}"'
    assert client.get("/health").headers["etag"] is None


def tags(*forms: str) -> Callable[[Test], Test]:
    """The forms of a field; N stands for the index."""
    return every("field", forms)


def at(index: int, field: str) -> str:
    return field.replace("N", str(index))


@every("path", READS)
@tags('"N"', 'W/"N"', "*", '"x", "N"', '"x" ,, W/"N"', ' "N" ')
def test_what_the_client_has_already_is_not_sent_again(
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
def test_what_the_client_has_not_is_sent(client: Client, path: str, field: str) -> None:
    answer = client.get(path, {"If-None-Match": at(client.index, field)})
    assert answer.status == 200


def test_a_client_learns_of_a_step_by_its_etag(client: Client) -> None:
    etag = client.get("/current").headers["etag"]
    assert client.get("/current", {"If-None-Match": etag}).status == 304
    client.get("/next")
    assert client.get("/current", {"If-None-Match": etag}).status == 200


@every("method", ["GET", "POST"])
@tags('"N"', "*", '"x", "N"', '"N", "x"', '"x",,"N"', ' "N" ')
def test_a_step_is_made_if_the_database_stands_where_if_match_says(
    client: Client, method: str, field: str
) -> None:
    index = client.index
    answer = client.request(method, "/next", {"If-Match": at(index, field)})
    assert_number(answer, "next", digits_of(index + 1))
    assert answer.index == index + 1


def test_the_tags_of_several_if_match_lines_are_one_list(client: Client) -> None:
    index = client.index
    answer = client.get("/next", [("If-Match", '"x"'), ("If-Match", f'"{index}"')])
    assert_number(answer, "next", digits_of(index + 1))


@every("method", ["GET", "POST"])
@tags('"x"', '"1N"', 'W/"N"', '"0N"', '"x", W/"N"')
def test_a_step_is_not_made_if_the_database_stands_elsewhere(
    client: Client, no_step: NoStep, method: str, field: str
) -> None:
    with no_step() as index:
        answer = client.request(method, "/next", {"If-Match": at(index, field)})
        assert_problem(answer, 412, "which If-Match does not name")
        assert answer.index == index
        assert answer.headers["cache-control"] == "no-store"


@tags("N", '"N', 'N"', '"N" "x"', '"N", *', "'N'", 'w/"N"')
def test_a_step_is_not_made_if_if_match_is_malformed(
    client: Client, no_step: NoStep, field: str
) -> None:
    with no_step() as index:
        answer = client.get("/next", {"If-Match": at(index, field)})
        assert_problem(answer, 412, "If-Match is not a list of entity tags")
        assert answer.index == index


def test_a_client_that_lost_an_answer_can_ask_again_without_a_second_step(client: Client) -> None:
    index = client.index
    once = {"If-Match": f'"{index}"'}
    with closing(client.raw()) as lost:
        headers = f"Host: x\r\nIf-Match: {once['If-Match']}\r\n"
        lost.sendall(f"GET /next HTTP/1.1\r\n{headers}\r\n".encode())
        lost.recv(1)
    again = client.get("/next", once)
    assert again.status == 412
    assert again.index == index + 1
    assert_number(client.get("/current"), "current", digits_of(index + 1))


@every("path", READS)
def test_a_read_is_answered_if_the_database_stands_where_if_match_says(
    client: Client, no_step: NoStep, path: str
) -> None:
    with no_step() as index:
        assert client.get(path, {"If-Match": f'"{index}"'}).status == 200
        answer = client.get(path, {"If-Match": f'"{index + 1}"'})
        assert_problem(answer, 412, "which If-Match does not name")
        assert answer.headers["cache-control"] == "no-cache"


# Caching


def test_a_step_is_never_stored_and_a_read_always_asked_for_anew(client: Client) -> None:
    assert client.get("/next").headers["cache-control"] == "no-store"
    for path in NO_STEP:
        if not path.startswith("/numbers/"):
            assert client.get(path).headers["cache-control"] == "no-cache"


@every("name", NUMBERS)
def test_a_cache_is_told_that_the_answer_depends_on_accept(client: Client, name: str) -> None:
    assert client.get(f"/{name}").headers["vary"] == "accept"


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
        # Had a body been sent, this answer would begin with it.
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
def test_a_method_that_a_path_does_not_take_is_405_with_allow(
    client: Client, no_step: NoStep, path: str, method: str
) -> None:
    if method in ALLOWED[path]:
        method = "TRACE"
    with no_step() as index:
        body = b"" if method == "POST" else None
        answer = client.request(method, example(path), body=body)
        assert_problem(answer, 405, f"{path} does not take {method}.")
        assert answer.headers["allow"] == ALLOWED[path]
        if path in WITH_INDEX:
            assert answer.index == index


# Prefetch


@every("method", ["GET", "POST"])
@every("field", ["Sec-Purpose", "Purpose"])
@every("value", ["prefetch", "prefetch;prerender", "Prefetch"])
def test_a_prefetch_never_steps(
    client: Client, no_step: NoStep, method: str, field: str, value: str
) -> None:
    with no_step() as index:
        answer = client.request(method, "/next", {field: value})
        assert_problem(answer, 503, "prefetch")
        assert answer.headers["retry-after"] == "1"
        assert answer.index == index


@every("path", NO_STEP)
def test_what_does_not_step_may_be_prefetched(client: Client, path: str) -> None:
    assert client.get(path, {"Sec-Purpose": "prefetch"}).status == 200


# Representations


@every("name", NUMBERS)
def test_text_is_the_digits_alone(client: Client, name: str) -> None:
    answer = client.get(f"/{name}", {"Accept": "text/plain"})
    offset = -1 if name == "previous" else 0
    assert answer.status == 200
    assert answer.body == digits_of(answer.index + offset)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.headers["vary"] == "accept"


@every(
    "accept, media_type",
    [
        ("*/*", "application/json"),
        ("text/*", "text/plain; charset=utf-8"),
        ("text/html, */*;q=0.1", "application/json"),
        ("image/png", "application/json"),
        ("text/plain, application/json", "application/json"),
        ("text/plain, application/json;q=0.9", "text/plain; charset=utf-8"),
        ("text/plain;q=0.5, application/json;q=0.6", "application/json"),
        ("application/json;q=0, */*", "text/plain; charset=utf-8"),
    ],
)
def test_the_representation_that_the_client_likes_best_is_sent(
    client: Client, accept: str, media_type: str
) -> None:
    assert client.get("/current", {"Accept": accept}).headers["content-type"] == media_type


def test_several_accept_lines_are_one_list(client: Client) -> None:
    accept = [("Accept", "application/json;q=0.1"), ("Accept", "text/plain")]
    answer = client.get("/current", accept)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


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
        "/next%2F",
        "/next%3Fa",
        "/%00",
        "/../next",
    ],
)
@every("method", ["GET", "POST", "DELETE"])
def test_there_is_nothing_elsewhere(
    client: Client, no_step: NoStep, method: str, target: str
) -> None:
    with no_step():
        answer = client.request(method, target)
        assert_problem(answer, 404, "There is nothing at ")
        assert answer.headers["cache-control"] == "no-store"
        assert "location" not in answer.headers
        assert all(path in json.loads(answer.body)["detail"] for path in PATHS)


# From a database of their own


@pytest.mark.own_server
@pytest.mark.parametrize("way", WAYS)
def test_the_reference_session_from_a_fresh_database(tmp_path: Path, way: str) -> None:
    with serving(tmp_path, 0, way) as client:
        for name, number in [
            ("current", 0),
            ("previous", 0),
            ("next", 1),
            ("next", 1),
            ("next", 2),
            ("previous", 1),
            ("current", 2),
        ]:
            assert client.get(f"/{name}").body.decode() == f'{{"{name}": {number}}}'


@pytest.mark.own_server
@pytest.mark.parametrize("way", WAYS)
def test_at_the_largest_index_a_step_is_409_and_the_database_stays(
    tmp_path: Path, way: str
) -> None:
    with serving(tmp_path, 2, way, FIB_MAX_INDEX="3") as client:
        assert_number(client.get("/next"), "next", b"2")
        for method in ("GET", "POST"):
            answer = client.request(method, "/next")
            assert_problem(answer, 409, "index 3, the largest that this server is configured for")
            assert answer.index == 3
            assert answer.headers["cache-control"] == "no-store"
        assert_problem(client.get("/next", {"If-Match": '"2"'}), 412, "which If-Match")
        assert_number(client.get("/current"), "current", b"2")
        assert client.get("/health").status == 200


@pytest.mark.own_server
def test_uint64_answers_are_modulo_2_to_the_64(tmp_path: Path) -> None:
    with serving(tmp_path, 93, FIB_INTEGERS="uint64") as client:
        assert_number(client.get("/current"), "current", b"12200160415121876738")
        assert_number(client.get("/next"), "next", b"1293530146158671551")
        assert client.get("/previous").index == 94


@pytest.mark.own_server
def test_a_request_in_pieces_is_answered_as_one(tmp_path: Path) -> None:
    with serving(tmp_path, 7) as client, closing(client.raw()) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"GET /current HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n":
            connection.sendall(bytes([byte]))
        answer = b""
        while received := connection.recv(65536):
            answer += received
        assert answer.endswith(b'\r\n\r\n{"current": 13}')
