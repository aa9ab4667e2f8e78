"""Steps for pages of other origins, and for foreign hosts."""

from pathlib import Path
from typing import Final

import pytest

from tests.http.corpus import PATHS
from tests.support.cases import every
from tests.support.implementations import assert_problem, server_of_the_module, serving
from tests.support.servers import Client

STRANGER: Final = "https://stranger.test"

closed = server_of_the_module(7, FIB_ALLOWED_HOSTS="")
"""A server on the loopback with the default settings, which starts at index 7."""
named = server_of_the_module(7, FIB_ALLOWED_HOSTS="fib.test")
"""A server with a host name."""


def filled(fields: dict[str, str], client: Client) -> dict[str, str]:
    """The fields, for this server."""
    return {name: text.format(host=client.host, port=client.port) for name, text in fields.items()}


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
        {"Origin": "{host}:{port}"},
        {"Origin": "http://{host}:{port} x"},
        {"Origin": "http://a@{host}:{port}"},
        {"Origin": "http://{host}.:{port}"},
        {"Origin": "\xff http://["},
    ],
)
@every("method", ["GET", "POST"])
def test_a_step_for_a_page_of_another_origin_is_403(
    closed: Client, method: str, fields: dict[str, str]
) -> None:
    index = closed.index
    answer = closed.request(method, "/next", filled(fields, closed))
    assert_problem(answer, 403, "another origin")
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
    headers = {"Host": f"{closed.host}:{closed.port}"} | filled(fields, closed)
    assert closed.request(method, "/next", headers).index == index + 1


def test_two_origins_count_as_foreign(closed: Client) -> None:
    index = closed.index
    ours = f"http://{closed.host}:{closed.port}"
    answer = closed.get("/next", [("Origin", ours), ("Origin", ours)])
    assert_problem(answer, 403, "another origin")
    assert closed.index == index


@every("path", ["/current", "/previous", "/health"])
def test_a_read_is_answered_but_hidden_from_foreign_pages(closed: Client, path: str) -> None:
    answer = closed.get(path, {"Sec-Fetch-Site": "cross-site", "Origin": STRANGER})
    assert answer.status == 200
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_the_port_of_the_scheme_may_be_left_out(closed: Client) -> None:
    """A browser leaves it out of ``Origin``, and a proxy may add it to ``Host``."""
    for origin, host, status in (
        ("http://a.localhost", "a.localhost:80", 200),
        ("https://A.localhost", "a.localhost:443", 200),
        ("http://a.localhost:80", "a.localhost", 200),
        ("http://a.localhost", "a.localhost:443", 403),
        ("http://a.localhost", "b.localhost", 403),
    ):
        assert closed.get("/next", {"Origin": origin, "Host": host}).status == status


@every(
    "host, allowed",
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
def test_addresses_and_listed_names_are_allowed_hosts(
    named: Client, closed: Client, host: str, allowed: bool
) -> None:
    for client, is_answered in ((named, allowed), (closed, allowed and "fib." not in host.lower())):
        answer = client.get("/health", {"Host": host})
        assert answer.status == (200 if is_answered else 421)
        assert client.get("/nowhere", {"Host": host}).status == (404 if is_answered else 421)


@every("path", [*PATHS, "/nowhere"])
@every("method", ["GET", "POST", "HEAD", "OPTIONS"])
def test_a_request_for_a_foreign_host_is_421(named: Client, method: str, path: str) -> None:
    index = named.index
    answer = named.request(method, path, {"Host": "evil.test", "Origin": STRANGER})
    assert answer.status == 421
    assert answer.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in answer.headers
    if method != "HEAD":
        assert_problem(answer, 421, "FIB_ALLOWED_HOSTS")
        assert "etag" not in answer.headers
    assert named.index == index


@every("method", ["GET", "POST"])
def test_a_step_for_a_rebound_name_is_421(closed: Client, method: str) -> None:
    """To a browser such a page has the same origin, so nothing else marks its request."""
    rebound = {"Host": f"evil.test:{closed.port}", "Sec-Fetch-Site": "same-origin"}
    index = closed.index
    for fields in (rebound, {**rebound, "Origin": f"http://evil.test:{closed.port}"}):
        assert_problem(closed.request(method, "/next", fields), 421, "FIB_ALLOWED_HOSTS")
    assert closed.get("/health", {"Host": "localhost"}).status == 200
    assert closed.index == index


@pytest.mark.processes
def test_off_the_loopback_any_host_is_answered_with_a_warning_in_the_log(tmp_path: Path) -> None:
    """Also the control: if any name is answered, a page with a rebound name steps."""
    with serving(tmp_path, 7, FIB_HOST="0.0.0.0", FIB_ALLOWED_HOSTS="") as client:
        rebound = {"Host": "evil.test", "Sec-Fetch-Site": "same-origin"}
        assert client.get("/next", rebound).index == 8
    said = tmp_path.joinpath("server.log").read_text()
    assert said.count("WARNING FIB_HOST=0.0.0.0 lets other machines connect") == 1
