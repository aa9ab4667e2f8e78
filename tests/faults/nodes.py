"""Three nodes on one sequence, each behind its own proxy, and their faults.

A proxy that holds data is a link that breaks unnoticed.
"""

import json
import random
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final, Protocol

from tests.support.engines import Engine
from tests.support.nodes import Nodes
from tests.support.proxy import DIRECTIONS, Direction, Proxy
from tests.support.servers import SERVER, Client, ServerProcess
from tests.support.waiting import PATIENCE, until

NODES: Final = 3
CHOICE: Final = random.Random(0)


def is_healthy(client: Client) -> bool:
    return client.get("/health").status == 200


class Node:
    """A server at one port, however often it is restarted, and its link to the engine."""

    def __init__(self, nodes: Nodes, proxy: Proxy, command: Sequence[str]) -> None:
        self._nodes = nodes
        self._command = command
        self.proxy = proxy
        self._listener: socket.socket | None = None
        self.restart()

    def restart(self) -> None:
        """Start a new process; on return it serves."""
        url = self._nodes.engine.url_at(self.proxy.port)
        started = self._nodes.start(url, listener=self._listener, command=self._command)
        self.server: ServerProcess = started.wait_until_it_serves()
        self._listener = started.listener

    def kill(self) -> None:
        self.server.process.kill()
        self.server.process.wait()

    def wait_until_it_serves(self) -> None:
        until(lambda: is_healthy(self.server.client), "a node is healthy")

    def wait_until_it_says_that_it_can_not(self) -> None:
        until(lambda: not is_healthy(self.server.client), "a node says that it is cut off")

    def wait_until_steps_wait(self) -> None:
        """Return when steps wait for their commit; with a hanging engine they keep waiting."""
        until(
            lambda: bool(json.loads(self.server.client.get("/status").body)["waiting_steps"]),
            "steps wait on a node",
        )


class Cluster:
    """Three nodes of ``engine``, at index 0; on return all serve, until the ``stack`` is closed."""

    def __init__(
        self, engine: Engine, logs: Path, stack: ExitStack, command: Sequence[str] = SERVER
    ) -> None:
        self.engine = engine
        self._sequence = Nodes(engine, logs, stack)
        proxies = [stack.enter_context(Proxy(engine.port)) for _ in range(NODES)]
        self.nodes = [Node(self._sequence, proxy, command) for proxy in proxies]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        return [("127.0.0.1", each.server.client.port) for each in self.nodes]

    @property
    def index(self) -> int:
        """The index of the sequence, read without a node."""
        with closing(self._sequence.opener.open()) as store:
            return store.read()

    def wait_until_all_serve(self) -> None:
        for node in self.nodes:
            node.wait_until_it_serves()


class Clients(Protocol):
    """A load during a fault."""

    def wait_for_steps(self, count: int) -> None:
        """Return when ``count`` more steps have been answered."""


STEPS: Final = 20
"""During a fault."""


def lose_a_reply(it: Cluster, _: Clients) -> None:
    proxy = CHOICE.choice(it.nodes).proxy
    proxy.lose_a_reply()
    assert proxy.lost.acquire(timeout=PATIENCE)


def kill_the_engine(it: Cluster, _: Clients) -> None:
    it.engine.kill()
    it.engine.start()


def restart_the_engine(it: Cluster, _: Clients) -> None:
    it.engine.stop()
    it.engine.start()


def hang_the_engine(it: Cluster, _: Clients) -> None:
    with it.engine.hung():
        for node in it.nodes:
            node.wait_until_it_says_that_it_can_not()


def lose_a_node_with_its_host(it: Cluster, clients: Clients) -> None:
    node = CHOICE.choice(it.nodes)
    # First cut off, so that the engine does not notice its end.
    node.proxy.hold(*DIRECTIONS)
    node.kill()
    clients.wait_for_steps(STEPS)
    node.proxy.heal()
    node.restart()


def break_a_link(it: Cluster, clients: Clients, *directions: Direction) -> None:
    """Break the link of a node while a batch is in flight."""
    node = CHOICE.choice(it.nodes)
    with it.engine.hung():
        node.wait_until_steps_wait()
        node.proxy.hold(*directions)
    node.wait_until_it_says_that_it_can_not()
    clients.wait_for_steps(STEPS)
    node.proxy.heal()


def break_all_links(it: Cluster, _: Clients) -> None:
    for node in it.nodes:
        node.proxy.hold(*DIRECTIONS)
    for node in it.nodes:
        node.wait_until_it_says_that_it_can_not()
    for node in it.nodes:
        node.proxy.heal()


FAULTS: Final[Mapping[str, Callable[[Cluster, Clients], None]]] = {
    "a reply is lost": lose_a_reply,
    "the engine is killed": kill_the_engine,
    "the engine is restarted": restart_the_engine,
    "the engine hangs": hang_the_engine,
    "a node is lost with its host": lose_a_node_with_its_host,
    "a link breaks": lambda it, clients: break_a_link(it, clients, *DIRECTIONS),
    "a link passes requests alone": lambda it, clients: break_a_link(it, clients, "replies"),
    "a link passes replies alone": lambda it, clients: break_a_link(it, clients, "requests"),
    "all links break": break_all_links,
}
