"""Nodes and the store of one sequence, each on a host of its own."""

import contextlib
import json
import socket
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from fibcore.appliance.settings import Settings
from fibcore.stores.engine import EngineOpener
from tests.faults.hosts import Host, Network
from tests.support.engines import Engine
from tests.support.proxy import Proxy
from tests.support.servers import SERVER, Client, ServerProcess
from tests.support.waiting import until

COUNT: Final = 3


class Node:
    """A server on a host; it listens where the clients are, however often it is started.

    Args:
        host: has been entered.
        url: of the store.
        sequence: its name.
        logs: the folder for what it says.
        command: what to run instead of ``python -m web``.
    """

    def __init__(
        self, host: Host, url: str, sequence: str, logs: Path, command: Sequence[str]
    ) -> None:
        self.host = host
        self._url = url
        self._settings = {"FIB_SEQUENCE": sequence}
        self._logs = logs
        self._command = command
        with host.entered():
            self._listener = socket.create_server((host.front, 0), backlog=128)
        self.address: tuple[str, int] = self._listener.getsockname()
        self.client = Client(f"http://{self.address[0]}:{self.address[1]}")
        self.server = self._start()

    def _start(self) -> ServerProcess:
        with self.host.entered():
            return ServerProcess(
                self._url,
                self._listener,
                self._settings,
                logs=self._logs,
                name=self.host.name,
                command=self._command,
            )

    def close(self) -> None:
        """Kill it, and refuse connections from now on."""
        self.kill()
        self._listener.close()

    def kill(self) -> None:
        self.server.process.kill()
        self.server.process.wait()

    def restart(self) -> None:
        """Start another one, after ``kill``, on the same host; on return it serves."""
        self.server = self._start()
        self.wait_until_it_serves()

    def wait_until_it_serves(self) -> None:
        until(lambda: self._health() == 200, f"{self.host.name} is healthy")

    def wait_until_it_says_that_it_can_not(self) -> None:
        until(lambda: self._health() == 503, f"{self.host.name} says that it is cut off")

    def _health(self) -> int:
        return self.client.get("/health").status

    def wait_until_steps_wait(self) -> None:
        """Return when steps wait for their commit; with a store that hangs, they go on waiting."""

        def wait() -> bool:
            return bool(json.loads(self.client.get("/status").body)["waiting_steps"])

        until(wait, f"steps wait on {self.host.name}")


class Cluster:
    """What ``cluster`` makes.

    Args:
        network: where all are.
        host: that of the store.
        engine: the store, or a member of it; it runs.
        url: of the store, if it has more members than that one.
    """

    def __init__(
        self, network: Network, host: Host, engine: Engine, url: str | None = None
    ) -> None:
        self.network = network
        self.host = host
        self.engine = engine
        self.sequence = f"test-{uuid.uuid4()}"
        self.nodes: list[Node] = []
        store = {"FIB_STORE": url or engine.url, "FIB_SEQUENCE": self.sequence}
        self.opener = Settings.from_environ(store).opener()
        assert isinstance(self.opener, EngineOpener)
        assert self.opener.create(0) is None

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Of the nodes, for their clients."""
        return [node.address for node in self.nodes]

    @property
    def index(self) -> int:
        """Where the sequence stands, as the store says."""
        with contextlib.closing(self.opener.open()) as store:
            return store.read()

    def start_engine(self) -> None:
        """Start it again where it was."""
        with self.host.entered():
            self.engine.start()

    def wait_until_all_serve(self) -> None:
        for node in self.nodes:
            node.wait_until_it_serves()


@contextlib.contextmanager
def cluster(
    kind: type[Engine], logs: Path, *, command: Sequence[str] = SERVER
) -> Iterator[Cluster]:
    """A store and three nodes on a sequence that stands at 0; on return all serve.

    Args:
        kind: of the store.
        logs: the folder for what the nodes say.
        command: what they run instead of ``python -m web``.
    """
    with _cluster(kind, logs, command, proxied=False) as (made, _):
        yield made


@contextlib.contextmanager
def proxied_cluster(
    kind: type[Engine], logs: Path, *, command: Sequence[str] = SERVER
) -> Iterator[tuple[Cluster, list[Proxy]]]:
    """The same with a ``Proxy`` on the host of each node, through which it reaches the store."""
    with _cluster(kind, logs, command, proxied=True) as made:
        yield made


@contextlib.contextmanager
def _cluster(
    kind: type[Engine], logs: Path, command: Sequence[str], *, proxied: bool
) -> Iterator[tuple[Cluster, list[Proxy]]]:
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network())
        host = stack.enter_context(network.host())
        engine = kind()
        engine.host = host.address
        with host.entered():
            stack.enter_context(engine)
        made = Cluster(network, host, engine)
        proxies = []
        for _ in range(COUNT):
            there = stack.enter_context(network.host())
            url = engine.url
            if proxied:
                # Its thread is where this one is when it begins.
                with there.entered():
                    proxies.append(stack.enter_context(Proxy(engine.port, host=host.address)))
                engine.host = "127.0.0.1"
                url = engine.url_at(proxies[-1].port)
                engine.host = host.address
            node = Node(there, url, made.sequence, logs, command)
            stack.callback(node.close)
            made.nodes.append(node)
        made.wait_until_all_serve()
        yield made, proxies
