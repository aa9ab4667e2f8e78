"""Three nodes on one sequence of a shared store, under load, while it or the way there fails.

Each node has a proxy of its own between itself and the store. What clients are answered, each by
one node, is held against the one sequence that they all step. ``test_nodes`` does so with hosts and
links, which takes root's rights; what meets what is for ``tests/simulation``.
"""

import random
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

import pytest

from tests.faults.conftest import Fault
from tests.faults.load import Load
from tests.support.engines import Engine
from tests.support.nodes import Nodes
from tests.support.proxy import Proxy
from tests.support.servers import Client
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.processes

CHOICE: Final = random.Random(0)
NODES: Final = 3


class Cluster:
    """Three nodes, each behind a proxy of its own."""

    def __init__(self, nodes: Nodes, stack: ExitStack) -> None:
        self.engine = nodes.engine
        self._nodes = nodes
        self.proxies = [stack.enter_context(Proxy(nodes.engine.port)) for _ in range(NODES)]
        urls = [self.engine.url_at(each.port) for each in self.proxies]
        self.servers = [nodes.start(url).wait_until_it_serves() for url in urls]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        return [("127.0.0.1", each.client.port) for each in self.servers]

    @property
    def index(self) -> int:
        """Where the sequence stands, asked without a node."""
        with closing(self._nodes.opener.open()) as store:
            return store.read()

    def wait_until_all_are_healthy(self) -> None:
        def is_healthy(client: Client) -> bool:
            return client.get("/health").status == 200

        for each in self.servers:
            until(lambda client=each.client: is_healthy(client), "a node is healthy")  # type: ignore[misc]


# Faults, each some steps long.


def lose_a_reply(cluster: Cluster, load: Load) -> None:
    proxy = CHOICE.choice(cluster.proxies)
    proxy.lose_a_reply()
    assert proxy.lost.acquire(timeout=PATIENCE)
    load.wait_for_steps(CHOICE.randint(1, 20))


def kill_the_store(cluster: Cluster, load: Load) -> None:
    cluster.engine.kill()
    load.wait_for_errors()
    cluster.engine.start()
    load.wait_for_steps(CHOICE.randint(1, 20))


@pytest.mark.proves(
    "shared", "three nodes, under load, and one of these: a lost reply, a kill of the store"
)
@pytest.mark.parametrize("what", [lose_a_reply, kill_the_store], ids=lambda each: each.__name__)
def test_clients_of_three_nodes_see_one_sequence(
    engine: Engine, tmp_path: Path, fault: Fault, what: Callable[[Cluster, Load], None]
) -> None:
    with ExitStack() as stack:
        cluster = Cluster(Nodes(engine, tmp_path, stack), stack)
        with Load(cluster.addresses, clients=24, conditional=True) as load:
            load.wait_for_steps(50)
            what(cluster, load)
            cluster.wait_until_all_are_healthy()
            load.wait_for_steps(50)
        fault.check(load, last=cluster.index)
