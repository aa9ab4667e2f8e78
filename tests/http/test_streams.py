"""Every named stream has its outline on a real server, in one piece and split anywhere."""

import itertools
import os
import random
import re
from collections.abc import Iterator
from typing import Final

import pytest

from tests.http.corpus import HOSTS, MALFORMED, OLDER, STREAMS
from tests.support.raw import exchange
from tests.support.servers import Client, ServerProcess, listening_socket

pytestmark = pytest.mark.processes

_keys: Final = itertools.count()


@pytest.fixture(scope="module")
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    """A server that answers for ``HOSTS``, some steps after its start; or that of --base-url."""
    given = request.config.getoption("--base-url")
    if given is not None:
        yield Client(given)
        return
    database = tmp_path_factory.mktemp("streams") / "fibcore.db"
    settings = {"FIB_ALLOWED_HOSTS": HOSTS}
    with listening_socket() as listener, ServerProcess(database, listener, settings) as server:
        client = server.wait_until_it_serves().client
        for _ in range(9):
            client.get("/next")
        yield client


def filled(data: bytes, index: int) -> bytes:
    """Return ``data`` with the indexes counted from ``index``, and with keys of its own."""
    unique = b"%08x%06d" % (os.getpid(), next(_keys))
    return re.sub(
        rb"~(-?\d+)~",
        lambda found: b"%d" % (index + int(found[1])),
        data.replace(b"~key~", unique),
    )


def cut(data: bytes, *places: int) -> list[bytes]:
    """Cut ``data`` at these places."""
    edges = sorted({0, *(place % (len(data) + 1) for place in places), len(data)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_has_its_outline_however_it_is_split(client: Client, name: str) -> None:
    outline, data = STREAMS[name]
    drawn = random.Random(name)
    for splits in (0, 1, 3, 6):
        stream = filled(data, client.index)
        pieces = cut(stream, *(drawn.randrange(len(stream) + 1) for _ in range(splits)))
        # A server that closes must do so whether or not its client has; one that does not, must
        # answer a client that closes its sending half.
        expected = {outline, OLDER.get(name, outline)}
        ends = not all(each.endswith("closed") for each in expected)
        assert exchange(client, pieces, ends=ends).outline in expected


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_stream_never_steps_and_only_what_is_before_it_is_answered(
    client: Client, name: str
) -> None:
    data = MALFORMED[name]
    for pieces in ([data], cut(data, len(data) // 2), cut(data, -1, -2, -3)):
        outcome = exchange(client, pieces, ends=True)
        assert outcome.steps == 0
        *before, last = [each.status for each in outcome.answers] or [400]
        assert 400 <= last < 500
        assert before in ([], [200])
