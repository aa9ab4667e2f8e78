"""Adding an endpoint means adding a row: one of each kind, answered by both implementations."""

import json
from collections.abc import Iterator

import pytest

from tests.support.connections import Loop
from tests.support.corpus import LIVE, PATHS, request
from tests.support.differences import differences_of
from tests.support.exchange import START, exchange
from tests.support.in_process import PLAIN_APPLICATION, PROTOCOL, Implementation
from tests.support.parsing import Answer
from web.endpoints import sequence
from web.endpoints.table import TABLE
from web.http import answers
from web.http.answers import Number, PlainAnswer
from web.http.request import CONDITIONS, REPRESENTATION, Reply, Request
from web.http.routing import Endpoint, Table
from web.service import Service

DIGITS = Number(b"digits", answers.NO_CACHE)


def plain(text: str) -> PlainAnswer:
    body = text.encode()
    return PlainAnswer(200, ((b"content-length", b"%d" % len(body)), (b"x", b"y")), body)


def answer_gauges(service: Service, request: Request, reply: Reply) -> None:  # noqa: ARG001
    assert service.snapshot is not None
    reply(plain(f"fibcore_index {service.snapshot.index}\n"))


def answer_name(service: Service, request: Request, reply: Reply) -> None:  # noqa: ARG001
    reply(plain(f"{request.method} {request.parameters['name']} of {request.parameters['kind']}"))


def answer_greeting(service: Service, request: Request, reply: Reply) -> None:  # noqa: ARG001
    language = request.fields.get(b"accept-language", "no language")
    reply(plain(f"{language}, {request.representation.name}, {sorted(request.fields)}"))


ROWS = {
    "another number": Endpoint(
        "/digits",
        ("GET", "HEAD"),
        sequence.read(DIGITS, lambda snapshot: b"%d" % len(snapshot.current)),
        DIGITS.cache_control,
        REPRESENTATION | CONDITIONS,
        has_index=True,
    ),
    "an answer of its own": Endpoint("/gauges", ("GET",), answer_gauges, answers.NO_STORE),
    "parameters": Endpoint("/{kind}/by/{name}", ("GET", "PUT"), answer_name, answers.NO_CACHE),
    "another field": Endpoint(
        "/greeting",
        ("GET",),
        answer_greeting,
        answers.NO_CACHE,
        REPRESENTATION | {b"accept-language"},
    ),
}
MORE = Table((*TABLE.rows, *ROWS.values()))


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.fixture(params=[PROTOCOL, PLAIN_APPLICATION], ids=str)
def implementation(request: pytest.FixtureRequest) -> Implementation:
    made: Implementation = request.param
    return made


def ask(loop: Loop, implementation: Implementation, *requests: bytes) -> list[Answer]:
    """The answer to each request; it must be the same when its head is cached."""
    answered = []
    for asked in requests:
        several = exchange(loop, implementation, [asked * 4], table=MORE).answers
        assert several == several[:1] * 4
        answered.append(several[0])
    return answered


def bodies(loop: Loop, implementation: Implementation, *requests: bytes) -> list[bytes]:
    return [each.body for each in ask(loop, implementation, *requests)]


def test_an_endpoint_of_another_number_answers_it(
    loop: Loop, implementation: Implementation
) -> None:
    json_, text, head = ask(
        loop,
        implementation,
        request("GET /digits"),
        request("GET /digits", "Accept: text/plain"),
        request("HEAD /digits"),
    )
    assert (json_.body, text.body, head.body) == (b'{"digits": 1}', b"1", b"")
    assert json_.fields == head.fields
    assert (json_.field(b"etag"), text.field(b"etag")) == (b'"5"', b'"5-text"')
    (known,) = ask(loop, implementation, request("GET /digits", f'If-None-Match: "{START}"'))
    assert known.status == 304


def test_an_endpoints_own_answer_is_rendered_each_time(
    loop: Loop, implementation: Implementation
) -> None:
    (answer,) = ask(loop, implementation, request("GET /gauges"))
    assert answer.body == b"fibcore_index 5\n"
    assert answer.field(b"x") == b"y"
    around_a_step = request("GET /gauges") + request("GET /next") + request("GET /gauges")
    answered = exchange(loop, implementation, [around_a_step], table=MORE).answers
    assert [each.body for each in answered] == [
        b"fibcore_index 5\n",
        b'{"next": 8}',
        b"fibcore_index 6\n",
    ]


def test_a_parameter_is_a_decoded_segment_of_the_path(
    loop: Loop, implementation: Implementation
) -> None:
    assert bodies(
        loop,
        implementation,
        request("GET /index/by/number"),
        request("PUT /next/by/GET%20x?a", "Content-Length: 0"),
        request("GET http://x/a/by/b"),
        request("GET /%E2%82%AC/by/%2B"),
    ) == [b"GET number of index", b"PUT GET x of next", b"GET b of a", "GET + of €".encode()]
    for path in ("/index/by/", "/index/by/a/b", "/index/by/a%2Fb", "//by/a", "/x/index/by/a"):
        (answer,) = ask(loop, implementation, request(f"GET {path}"))
        assert answer.status == 404


def test_a_header_field_counts_if_the_endpoint_names_it(
    loop: Loop, implementation: Implementation
) -> None:
    assert bodies(
        loop,
        implementation,
        request("GET /greeting"),
        request("GET /greeting", "Accept-Language: de"),
        request("GET /greeting", "accept-language: de", "Accept: text/plain", "User-Agent: x"),
        request("GET /greeting", "Accept-Language: de", "ACCEPT-LANGUAGE: fr;q=0.5"),
    ) == [
        b"no language, JSON, []",
        b"de, JSON, [b'accept-language']",
        b"de, TEXT, [b'accept-language']",
        b"de, fr;q=0.5, JSON, [b'accept-language']",
    ]
    # And nowhere else.
    assert (
        len(
            {*bodies(loop, implementation, *(request("GET /current", *more) for more in LANGUAGES))}
        )
        == 1
    )


LANGUAGES = ((), ("Accept-Language: de",), ("Accept-Language: fr",))


def test_existing_endpoints_are_answered_as_before(
    loop: Loop, implementation: Implementation
) -> None:
    for path in PATHS:
        for method in ("GET", "HEAD", "POST", "PUT"):
            asked = request(f"{method} {path}", "Content-Length: 0")
            with_more = exchange(loop, implementation, [asked], table=MORE)
            assert with_more == exchange(loop, implementation, [asked])


@pytest.mark.parametrize("row", MORE.rows, ids=lambda row: row.path)
def test_each_endpoint_accepts_only_its_methods(
    loop: Loop, implementation: Implementation, row: Endpoint
) -> None:
    path = row.path.replace("{", "").replace("}", "")
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
        (answer,) = exchange(
            loop, implementation, [request(f"{method} {path}")], table=MORE
        ).answers
        assert (answer.status == 405) == (method not in row.methods)
        if answer.status == 405:
            assert answer.field(b"allow") == ", ".join(row.methods).encode()
            assert answer.field(b"cache-control") == row.cache_control
            assert (answer.index is not None) == row.has_index


@pytest.mark.processes
def test_an_unknown_path_is_404_with_all_known_paths(
    loop: Loop, implementation: Implementation
) -> None:
    (answer,) = ask(loop, implementation, request("GET /nowhere"))
    assert answer.status == 404
    detail = json.loads(answer.body)["detail"]
    assert f"The paths are /, {', '.join(row.path for row in MORE.rows)}." in detail


@pytest.mark.parametrize(
    "row", [row for row in MORE.rows if row.path not in LIVE], ids=lambda row: row.path
)
def test_both_implementations_answer_each_endpoint_alike(loop: Loop, row: Endpoint) -> None:
    path = row.path.replace("{", "").replace("}", "")
    fields = [f"{name.decode()}: {value}" for name in sorted(row.fields) for value in ('"5"', "*")]
    data = b"".join(request(f"GET {path}", each) for each in fields if "host" not in each)
    assert not differences_of(data)
    ours, theirs = (
        exchange(loop, implementation, [data], table=MORE)
        for implementation in (PROTOCOL, PLAIN_APPLICATION)
    )
    assert ours == theirs
