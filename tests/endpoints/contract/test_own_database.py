"""Tests that need their own database or settings."""

from pathlib import Path

import pytest

from fibcore import MAX_INDEX
from tests.support.implementations import assert_number, assert_problem, serving

pytestmark = pytest.mark.processes


# With its own database


@pytest.mark.own_server
def test_the_reference_session_from_a_fresh_database(tmp_path: Path) -> None:
    with serving(tmp_path, 0) as client:
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
def test_at_the_largest_index_a_step_is_409(tmp_path: Path) -> None:
    with serving(tmp_path, 2, FIB_MAX_INDEX="3") as client:
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
def test_past_the_largest_supported_index_409_names_no_setting(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, MAX_INDEX, FIB_INTEGERS="uint64") as client:
        answer = client.get("/next")
        assert_problem(answer, 409, "No larger index is supported")
        assert "FIB_MAX_INDEX" not in answer.body.decode()


@pytest.mark.own_server
def test_uint64_answers_are_modulo_2_to_the_64(tmp_path: Path) -> None:
    with serving(tmp_path, 93, FIB_INTEGERS="uint64") as client:
        assert_number(client.get("/current"), "current", b"12200160415121876738")
        assert_number(client.get("/next"), "next", b"1293530146158671551")
        assert client.get("/previous").index == 94
