"""Servers with a new database, and what their answers must be."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from fibcore.stores import opener_of
from tests.support.servers import SERVER, Answer, Client, ServerProcess, listening_socket


@contextmanager
def serving(
    folder: Path, start: int, *, command: Sequence[str] = SERVER, **settings: str
) -> Iterator[Client]:
    """Run a server with a new database at ``start``, or another ``command``."""
    database = folder / "fibcore.db"
    opener_of(f"sqlite:{database}", "", "full", 10_000).create(start)
    with (
        listening_socket() as listener,
        ServerProcess(database, listener, settings, command=command) as server,
    ):
        yield server.wait_until_it_serves().client


def server_of_the_module(start: int, **settings: str) -> Any:
    """Return a module-scoped fixture: the client of a server that starts at this index."""

    @pytest.fixture(scope="module")
    def client(
        processes: None,  # noqa: ARG001
        tmp_path_factory: pytest.TempPathFactory,
    ) -> Iterator[Client]:
        folder = tmp_path_factory.mktemp("served")
        with serving(folder, start, **settings) as client:
            yield client

    return client


def assert_number(answer: Answer, key: str, digits: bytes) -> None:
    """Assert that the answer is this number in JSON."""
    assert answer.status == 200
    assert answer.body == b'{"%b": %b}' % (key.encode(), digits)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == str(len(answer.body))


def assert_problem(answer: Answer, status: int, detail: str, key: str | None = None) -> None:
    """Assert that the answer is a problem per RFC 9457."""
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = json.loads(answer.body)
    assert problem["type"] == "about:blank"
    assert problem.get("key") == key
    assert problem["title"] == HTTPStatus(status).phrase
    assert problem["status"] == status
    assert detail in problem["detail"]
    # These speak only of the request itself: steps of others may be in doubt or in progress.
    its_own = status == 503 or key in ("ahead", "dropped", "outstanding")
    untouched = "This request has not stepped" if its_own else "Nothing has stepped"
    assert untouched in problem["detail"]
    if "etag" in answer.headers:
        assert problem["index"] == answer.index
