"""Three nodes on one sequence of a shared store, under load, while it or the way there fails.

Each node has a proxy of its own between itself and the store. What clients are answered, each by
one node, is held against the one sequence that they all step. ``test_nodes`` does so with hosts and
links, which takes root's rights; here are a few on one host, and what meets what.
"""

import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

import pytest

from bench.checker import WrongAnswer
from tests.conftest import Engines
from tests.faults.conftest import Fault
from tests.faults.load import Load
from tests.faults.server_variants import (
    makes_a_batch_again,
    reads_without_asking,
    steps_from_wherever_the_store_stands,
    variant,
)
from tests.support.engines import Engine, Redis
from tests.support.nodes import Nodes
from tests.support.proxy import Proxy
from tests.support.servers import SERVER, Client, ServerProcess
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.processes

CHOICE: Final = random.Random(0)
NODES: Final = 3

COMMIT: Final = b"node:"
"""What of all that is asked of Redis only a commit has in it: the name of the node's record."""


class Cluster:
    """Three nodes, each behind a proxy of its own."""

    def __init__(self, nodes: Nodes, stack: ExitStack, command: Sequence[str] = SERVER) -> None:
        self.engine = nodes.engine
        self._nodes = nodes
        self._command = command
        self.proxies = [stack.enter_context(Proxy(nodes.engine.port)) for _ in range(NODES)]
        self.servers = [self._start(number) for number in range(NODES)]
        for each in self.servers:
            each.wait_until_it_serves()

    def _start(self, number: int, before: ServerProcess | None = None) -> ServerProcess:
        url = self.engine.url_at(self.proxies[number].port)
        listener = None if before is None else before.listener
        return self._nodes.start(url, listener=listener, command=self._command)

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

    def kill_a_node(self) -> None:
        """Kill one, and start another in its place."""
        number = CHOICE.randrange(NODES)
        before = self.servers[number]
        before.signal(signal.SIGKILL)
        before.wait()
        self.servers[number] = self._start(number, before).wait_until_it_serves()


@pytest.fixture
def make(engine: Engine, tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    with ExitStack() as stack:
        yield lambda command=SERVER: Cluster(Nodes(engine, tmp_path, stack), stack, command)


# Faults, each some steps long.


def lose_a_reply(cluster: Cluster, load: Load, to: bytes = b"") -> None:
    proxy = CHOICE.choice(cluster.proxies)
    proxy.lose_a_reply(to)
    assert proxy.lost.acquire(timeout=PATIENCE)
    load.wait_for_steps(CHOICE.randint(1, 20))


def cut_a_node_off(cluster: Cluster, load: Load) -> None:
    proxy = CHOICE.choice(cluster.proxies)
    proxy.cut()
    load.wait_for_errors()
    load.wait_for_steps(CHOICE.randint(1, 20))
    proxy.heal()


def hold_requests_up(cluster: Cluster, load: Load) -> None:
    """What was on its way arrives when it has been asked about on another connection."""
    proxy = CHOICE.choice(cluster.proxies)
    proxy.hold("requests", new=CHOICE.random() < 0.5)
    load.wait_for_errors()
    load.wait_for_steps(CHOICE.randint(1, 20))
    proxy.heal()


def hold_replies_up(cluster: Cluster, load: Load) -> None:
    proxy = CHOICE.choice(cluster.proxies)
    proxy.hold("replies", new=CHOICE.random() < 0.5)
    load.wait_for_errors()
    load.wait_for_steps(CHOICE.randint(1, 20))
    proxy.heal()


def kill_a_node(cluster: Cluster, load: Load) -> None:
    cluster.kill_a_node()
    load.wait_for_steps(CHOICE.randint(1, 20))


def kill_the_store(cluster: Cluster, load: Load) -> None:
    cluster.engine.kill()
    load.wait_for_errors()
    cluster.engine.start()
    load.wait_for_steps(CHOICE.randint(1, 20))


def restart_the_store(cluster: Cluster, load: Load) -> None:
    cluster.engine.stop()
    cluster.engine.start()
    load.wait_for_steps(CHOICE.randint(1, 20))


def hang_the_store(cluster: Cluster, load: Load) -> None:
    with cluster.engine.hung():
        load.wait_for_errors()
    load.wait_for_steps(CHOICE.randint(1, 20))


FAULTS: Final = (
    lose_a_reply,
    cut_a_node_off,
    hold_requests_up,
    hold_replies_up,
    kill_a_node,
    kill_the_store,
    restart_the_store,
    hang_the_store,
)


def run(
    cluster: Cluster, fault: Fault, what: Callable[[Cluster, Load], None], share: float
) -> None:
    with Load(cluster.addresses, clients=24, conditional=True) as load:
        load.wait_for_steps(50)
        for _ in fault.tries(short=1, long=30, share=share):
            what(cluster, load)
            cluster.wait_until_all_are_healthy()
        load.wait_for_steps(50)
    fault.check(load, last=cluster.index)


@pytest.mark.proves(
    "shared", "three nodes, under load, and one of these: a lost reply, a kill of the store"
)
@pytest.mark.parametrize("what", [lose_a_reply, kill_the_store], ids=lambda each: each.__name__)
def test_clients_of_three_nodes_see_one_sequence(
    make: Callable[..., Cluster], fault: Fault, what: Callable[[Cluster, Load], None]
) -> None:
    run(make(), fault, what, share=0.01)


@pytest.mark.proves(
    "shared",
    "three nodes, under load, and two of eight faults, one after the other, with a lost reply",
)
@pytest.mark.long
def test_clients_see_one_sequence_whatever_meets_what(
    make: Callable[..., Cluster], fault: Fault
) -> None:
    """They are those of three nodes."""

    def one_after_the_other(cluster: Cluster, load: Load) -> None:
        # No time to recover in between, and a reply is lost somewhere.
        CHOICE.choice(cluster.proxies).lose_a_reply()
        for each in CHOICE.sample(FAULTS, 2):
            each(cluster, load)

    run(make(), fault, one_after_the_other, share=0.08)


# Without what protects. That is the nodes' own, so that one store is enough.


@pytest.fixture
def changed(engines: Engines, tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    with ExitStack() as stack:
        nodes = Nodes(engines(Redis), tmp_path, stack)
        yield lambda change: Cluster(nodes, stack, variant(change))


@pytest.mark.proves(
    "shared",
    "three nodes, under load, and two…",
    control="without identity, `expected`, or asking before a read",
)
@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (makes_a_batch_again, "answered to nobody"),
        (reads_without_asking, "it went back"),
        (
            steps_from_wherever_the_store_stands,
            "made from another index|answered to nobody|never gets",
        ),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_without_it_the_harm_is_found(
    changed: Callable[..., Cluster],
    fault: Fault,
    change: Callable[[], None],
    finding: str,
) -> None:
    cluster = changed(change)
    with Load(cluster.addresses, clients=24, conditional=True) as load:
        load.wait_for_steps(200)
        for _ in fault.tries(short=5, long=5, share=0):
            lose_a_reply(cluster, load, COMMIT)
    with pytest.raises(WrongAnswer, match=finding):
        load.check(first=0, last=cluster.index)
