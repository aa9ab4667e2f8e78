"""``python -m web`` as a node of a shared store: several nodes, and one that is cut off.

tests/stores covers each engine, and the contract is tested with three nodes on each.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.conftest import Engines
from tests.support.engines import Redis
from tests.support.nodes import Nodes
from tests.support.proxy import Proxy
from tests.support.reference import digits_of
from tests.support.servers import Client
from tests.support.waiting import until

pytestmark = pytest.mark.processes

PROMPT_SECONDS = 30.0
"""Much longer than a node takes to notice that it is cut off."""


@pytest.fixture
def nodes(engines: Engines, tmp_path: Path) -> Iterator[Nodes]:
    with ExitStack() as stack:
        yield Nodes(engines(Redis), tmp_path, stack)


def assert_turned_away(client: Client, target: str, reason: str) -> None:
    began = time.monotonic()
    answer = client.get(target)
    assert answer.status == 503, answer
    assert reason in json.loads(answer.body)["detail"]
    assert answer.headers["retry-after"]
    assert time.monotonic() - began < PROMPT_SECONDS


def is_healthy(client: Client) -> Callable[[], bool]:
    return lambda: client.get("/health").status == 200


def test_a_node_far_behind_catches_up_with_the_store(nodes: Nodes) -> None:
    client = nodes.start().wait_until_it_serves().client
    with closing(nodes.opener.open()) as store:
        store.advance(100_000)
        assert client.get("/current").body == b'{"current": %b}' % digits_of(100_000)
        store.advance(1)
        assert client.get("/next").body == b'{"next": %b}' % digits_of(100_002)


def test_a_cut_off_node_answers_no_stale_number(nodes: Nodes) -> None:
    """It recovers automatically."""
    with Proxy(nodes.engine.port) as proxy:
        near = nodes.start().wait_until_it_serves().client
        server = nodes.start(nodes.engine.url_at(proxy.port)).wait_until_it_serves()
        far = server.client
        assert near.get("/next").index == far.get("/current").index == 1
        proxy.cut()
        for target in ("/current", "/previous", "/next", "/health"):
            assert_turned_away(far, target, "is unavailable")
        assert near.get("/next").index == 2
        server.log.expect("is unavailable")
        proxy.heal()
        until(is_healthy(far), "the node has come back")
        server.log.expect("replies again")
        assert far.get("/current").index == 2
        assert far.get("/next").index == 3
        assert near.get("/health").body == b'{"status": "healthy"}'


def test_an_engine_that_starts_later_is_waited_for(nodes: Nodes) -> None:
    with Proxy(nodes.engine.port) as proxy:
        proxy.cut()
        server = nodes.start(nodes.engine.url_at(proxy.port))
        server.log.expect("is unavailable")
        for target in ("/current", "/next", "/health"):
            assert_turned_away(server.client, target, "is unavailable")
        proxy.heal()
        server.wait_until_it_serves()
        assert server.client.get("/next").index == 1


def test_a_missing_sequence_is_not_served(nodes: Nodes) -> None:
    server = nodes.start(make=False)
    assert server.wait() == os.EX_DATAERR
    server.log.expect(f"There is no sequence {nodes.sequence} in .*To begin at 0: .*fibcore init")


def test_a_node_exits_when_the_index_has_fallen(nodes: Nodes) -> None:
    """It has answered higher indexes, so it exits for good."""
    server = nodes.start().wait_until_it_serves()
    client = server.client
    assert [client.get("/next").index for _ in range(3)] == [1, 2, 3]
    assert nodes.opener.set_index(2, lower=True).before == 3
    with pytest.raises(OSError):  # noqa: PT011  The connection ends, in one way or another.
        client.get("/current")
    assert server.wait() == os.EX_DATAERR
    server.log.expect("is at index 2, but this process knows that index 3 was committed")


def test_an_idle_node_notices_that_its_engine_is_gone(nodes: Nodes) -> None:
    """A stop in the meantime waits for nothing, and logs nothing about steps."""
    with Proxy(nodes.engine.port) as proxy:
        server = nodes.start(nodes.engine.url_at(proxy.port)).wait_until_it_serves()
        proxy.cut()
        # None of these requests queries the engine.
        until(lambda: not is_healthy(server.client)(), "it has found out")
        status = json.loads(server.client.get("/status").body)
        assert (status["healthy"], status["index"]) == (False, None)
        assert b"\nfibcore_healthy 0.0\n" in server.client.get("/metrics").body
        assert "etag" not in server.client.get("/next", {"Sec-Fetch-Site": "cross-site"}).headers
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "ends without it" not in server.log.text


def test_a_node_answers_409_and_503_while_the_index_is_past_the_largest(nodes: Nodes) -> None:
    """It is served again when a person has set a lower index."""
    client = nodes.start().wait_until_it_serves().client
    assert client.get("/next").index == 1
    assert nodes.opener.set_index(300_000_000).before == 1
    refused = client.get("/next")
    assert (refused.status, refused.index) == (409, 300_000_000)
    for target in ("/current", "/health"):
        assert_turned_away(client, target, "past FIB_MAX_INDEX=10000000")
    late = nodes.start()
    late.log.expect("is at index 300000000, past FIB_MAX_INDEX=10000000")
    assert late.client.get("/next").status == 409
    assert nodes.opener.set_index(5, lower=True).before == 300_000_000
    for each in (client, late.client):
        until(is_healthy(each), "it serves again")
    assert client.get("/next").index == 6
