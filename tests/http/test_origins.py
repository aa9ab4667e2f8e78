"""Steps for pages of other origins, and for foreign hosts, in both implementations."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cases import every
from tests.support.corpus import PATHS
from tests.support.implementations import (
    IMPLEMENTATIONS,
    assert_problem,
    by_each_implementation,
    serving,
)
from tests.support.servers import Client
from web.http.origins import is_allowed_host, is_cross_origin

FRIEND = "https://friend.test:8443"
STRANGER = "https://stranger.test"


closed = by_each_implementation(7, FIB_ALLOWED_HOSTS="")
"""A server on the loopback with the default settings, which starts at index 7."""
open_ = by_each_implementation(
    7, FIB_ALLOWED_ORIGINS=f"{FRIEND},http://x.test", FIB_ALLOWED_HOSTS="fib.test"
)
"""A server that allows two origins and one host name."""

# Steps for other origins


@every(
    "fields",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "Cross-Site "},
        {"Sec-Fetch-Site": "what-comes-next"},
        {"Sec-Fetch-Site": "cross-site", "Origin": STRANGER},
        {"Origin": STRANGER},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://{host}:1"},
        {"Origin": "http://{host}"},
    ],
)
@every("method", ["GET", "POST"])
def test_a_step_for_a_page_of_another_origin_is_403(
    closed: Client, method: str, fields: dict[str, str]
) -> None:
    index = closed.index
    sent = {name: value.format(host=closed.host) for name, value in fields.items()}
    answer = closed.request(method, "/next", sent)
    assert_problem(answer, 403, "FIB_ALLOWED_ORIGINS")
    assert answer.index == closed.index == index
    assert answer.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in answer.headers


@every(
    "fields",
    [
        {},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://{host}:{port}"},
        {"Sec-Fetch-Site": ""},
        {"Origin": "http://{host}:{port}"},
        {"Origin": "https://{host}:{port}"},
        {"Referer": STRANGER, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    ],
)
@every("method", ["GET", "POST"])
def test_a_step_for_a_program_or_the_own_page_is_made(
    closed: Client, method: str, fields: dict[str, str]
) -> None:
    """As from the address bar."""
    index = closed.index
    sent = {
        name: value.format(host=closed.host, port=closed.port) for name, value in fields.items()
    }
    headers = {"Host": f"{closed.host}:{closed.port}"} | sent
    assert closed.request(method, "/next", headers).index == index + 1


def test_two_origins_count_as_foreign(closed: Client) -> None:
    index = closed.index
    ours = f"http://{closed.host}:{closed.port}"
    answer = closed.get("/next", [("Origin", ours), ("Origin", ours)])
    assert_problem(answer, 403, "another origin")
    assert closed.index == index


@pytest.mark.parametrize("path", ["/current", "/previous", "/health"])
def test_a_read_is_answered_but_hidden_from_foreign_pages(closed: Client, path: str) -> None:
    answer = closed.get(path, {"Sec-Fetch-Site": "cross-site", "Origin": STRANGER})
    assert answer.status == 200
    assert not any(name.startswith("access-control") for name in answer.headers)


HOST = st.from_regex(r"[a-z]{1,9}(\.[a-z]{1,9})?(:[1-9][0-9]{0,4})?", fullmatch=True)


@given(HOST, HOST, st.sampled_from(["http", "https"]))
def test_an_origin_is_the_own_one_if_host_and_port_are(host: str, other: str, scheme: str) -> None:
    port = {"http": ":80", "https": ":443"}[scheme]
    assert not is_cross_origin((), [f"{scheme}://{host}"], [host])
    assert not is_cross_origin((), [f"{scheme}://{host.removesuffix(port)}"], [host.upper()])
    same = host.removesuffix(port) == other.removesuffix(port)
    assert is_cross_origin((), [f"{scheme}://{host}"], [other]) is not same
    assert is_cross_origin((), [f"{scheme}://{host}"], [])


@given(st.lists(st.text(), max_size=2), st.lists(st.text(), max_size=2), st.lists(st.text()))
def test_no_value_breaks_the_parsing_of_origins(
    site: list[str], origins: list[str], hosts: list[str]
) -> None:
    assert is_cross_origin(site, origins, hosts) in (True, False)
    assert is_cross_origin(["cross-site"], origins, hosts)


# Allowed origins


@pytest.mark.parametrize("origin", [FRIEND, "http://x.test"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_page_of_an_allowed_origin_steps_and_reads_the_answer(
    open_: Client, method: str, origin: str
) -> None:
    index = open_.index
    answer = open_.request(method, "/next", {"Origin": origin, "Sec-Fetch-Site": "cross-site"})
    assert answer.status == 200
    assert answer.index == index + 1
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["access-control-expose-headers"] == "etag, retry-after"
    assert answer.headers.get_all("vary") == ["accept", "origin"]


@pytest.mark.parametrize(
    "fields",
    [{"Origin": STRANGER}, {"Origin": FRIEND + "1"}, {"Origin": "null"}, {"Origin": FRIEND[:-1]}],
    ids=str,
)
def test_origins_that_are_not_listed_are_foreign(open_: Client, fields: dict[str, str]) -> None:
    index = open_.index
    for each in (fields, fields | {"Sec-Fetch-Site": "cross-site"}):
        answer = open_.get("/next", each)
        assert_problem(answer, 403, "another origin")
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["vary"] == "origin"
    assert open_.index == index


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/current", {}, 200),
        ("/current", {"If-None-Match": "*"}, 304),
        ("/current", {"Accept": "text/plain"}, 200),
        ("/previous", {"If-Match": '"x"'}, 412),
        ("/next", {"If-Match": '"x"'}, 412),
        ("/next", {"Purpose": "prefetch"}, 503),
        ("/health", {}, 200),
    ],
)
def test_a_page_of_an_allowed_origin_may_read_every_answer(
    open_: Client, path: str, headers: dict[str, str], status: int
) -> None:
    answer = open_.get(path, {**headers, "Origin": FRIEND})
    assert answer.status == status
    assert answer.headers["access-control-allow-origin"] == FRIEND
    assert open_.get(path, headers).headers.get_all("vary")[-1] == "origin"  # type: ignore[index]


def ask_first(client: Client, path: str, origin: str, method: str = "GET") -> dict[str, str]:
    return {
        name: value
        for name, value in client.request(
            "OPTIONS", path, {"Origin": origin, "Access-Control-Request-Method": method}
        ).headers.items()
        if name.startswith("access-control") or name == "allow"
    }


def test_a_preflight_of_an_allowed_page_gets_the_allowed_headers(open_: Client) -> None:
    index = open_.index
    answer = open_.request(
        "OPTIONS",
        "/next",
        {
            "Origin": FRIEND,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "if-match",
        },
    )
    assert answer.status == 204
    assert answer.body == b""
    assert answer.headers["access-control-allow-origin"] == FRIEND
    assert answer.headers["access-control-allow-methods"] == "GET, POST"
    assert "if-match" in answer.headers["access-control-allow-headers"].split(", ")
    assert int(answer.headers["access-control-max-age"]) > 0
    assert "origin" in answer.headers["vary"]
    assert "content-length" not in answer.headers
    assert ask_first(open_, "/current", FRIEND)["access-control-allow-methods"] == "GET, HEAD"
    assert open_.index == index


def test_a_page_that_is_not_allowed_gets_no_cors_headers(open_: Client, closed: Client) -> None:
    assert ask_first(open_, "/next", STRANGER) == {"allow": "GET, POST"}
    assert ask_first(closed, "/next", FRIEND) == {"allow": "GET, POST"}


def test_an_options_request_without_an_origin_is_405(open_: Client) -> None:
    answer = open_.request("OPTIONS", "/next", {"Origin": FRIEND})
    assert_problem(answer, 405, "/next does not support OPTIONS")


# Hosts


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("fib.test", True),
        ("FIB.test.:8080", True),
        ("127.0.0.1", True),
        ("10.0.0.1:8080", True),
        ("[::1]:8080", True),
        ("localhost:8080", True),
        ("a.localhost", True),
        ("", False),
        ("evil.test", False),
        ("fib.test.evil.test", False),
        ("notfib.test", False),
        ("evil.test:127", False),
        ("127.0.0.1.evil.test", False),
        ("127.1", False),
        ("localhost.evil.test", False),
    ],
)
def test_addresses_and_listed_names_are_allowed_hosts(host: str, allowed: bool) -> None:
    assert is_allowed_host(host, {"fib.test"}) is allowed
    assert is_allowed_host(host, ()) is (allowed and "fib.test" not in host.lower())
    assert is_allowed_host(host, None)


@every("path", [*PATHS, "/nowhere"])
@every("method", ["GET", "POST", "HEAD", "OPTIONS"])
def test_a_request_for_a_foreign_host_is_421(open_: Client, method: str, path: str) -> None:
    index = open_.index
    answer = open_.request(method, path, {"Host": "evil.test", "Origin": FRIEND})
    assert answer.status == 421
    assert answer.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in answer.headers
    if method != "HEAD":
        assert_problem(answer, 421, "FIB_ALLOWED_HOSTS")
        assert "etag" not in answer.headers
    assert open_.index == index


def test_each_allowed_host_is_answered(open_: Client) -> None:
    for host in ("fib.test", f"fib.test:{open_.port}", f"127.0.0.1:{open_.port}"):
        assert open_.get("/health", {"Host": host}).status == 200
        answer = open_.get("/nowhere", {"Host": host})
        assert json.loads(answer.body)["status"] == 404


@every("method", ["GET", "POST"])
def test_a_step_for_a_rebound_name_is_421(closed: Client, method: str) -> None:
    """To a browser such a page has the same origin, so nothing else marks its request."""
    rebound = {"Host": f"evil.test:{closed.port}", "Sec-Fetch-Site": "same-origin"}
    index = closed.index
    for fields in (rebound, {**rebound, "Origin": f"http://evil.test:{closed.port}"}):
        assert_problem(closed.request(method, "/next", fields), 421, "FIB_ALLOWED_HOSTS")
    assert closed.get("/health", {"Host": "localhost"}).status == 200
    assert closed.index == index


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_off_the_loopback_any_host_is_answered_with_a_warning_in_the_log(
    processes: None,  # noqa: ARG001
    tmp_path: Path,
    implementation: str,
) -> None:
    """Also the control: if any name is answered, a page with a rebound name steps."""
    settings = {"FIB_HOST": "0.0.0.0", "FIB_ALLOWED_HOSTS": ""}
    with serving(tmp_path, 7, implementation, **settings) as client:
        rebound = {"Host": "evil.test", "Sec-Fetch-Site": "same-origin"}
        assert client.get("/next", rebound).index == 8
    said = tmp_path.joinpath("server.log").read_text()
    if implementation == "protocol":
        assert said.count("WARNING FIB_HOST=0.0.0.0 lets other machines connect") == 1
