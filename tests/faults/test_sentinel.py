"""Redis with a replica and Sentinel: the primary is lost under load, and the replica promoted.

The nodes ask Sentinel for the primary. If the primary waits for the replica
(``min-replicas-to-write``), nothing is lost; otherwise the steps that the replica had not received
are. Then the index has fallen, and each node that has seen a higher one exits.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final

import pytest

from bench.checker import WrongAnswer
from tests.faults.conftest import Fault
from tests.faults.hosts import Host, Network
from tests.faults.load import Load
from tests.support.engines import Redis
from tests.support.nodes import Nodes
from tests.support.servers import ServerProcess
from tests.support.waiting import until

pytestmark = [pytest.mark.long, pytest.mark.processes, pytest.mark.usefixtures("root")]

STEPS: Final = 100
NODES: Final = 3
NAME: Final = "fibonacci"


class Sentinel(Redis):
    """A Sentinel that watches ``primary``, with a quorum of one."""

    def __init__(self, primary: Redis) -> None:
        super().__init__()
        self._primary = primary

    @property
    def command(self) -> list[str | Path]:
        return ["redis-server", self._configuration, "--sentinel"]

    @property
    def _configuration(self) -> Path:
        return self.folder / "sentinel.conf"

    def prepare(self) -> None:
        # It writes there itself what it finds out.
        self._configuration.write_text(
            f"port {self.port}\nbind {self.host}\ndir {self.folder}\n"
            f"sentinel monitor {NAME} {self._primary.host} {self._primary.port} 1\n"
            f"sentinel down-after-milliseconds {NAME} 1000\n"
            f"sentinel failover-timeout {NAME} 5000\n"
        )
        self._configuration.chmod(0o666)

    def url_at(self, port: int) -> str:
        return f"redis+sentinel://{self.host}:{port}/{NAME}"

    def knows_the_replica(self) -> bool:
        said = self.cli("sentinel", "replicas", NAME).splitlines()
        fields = dict(zip(said[::2], said[1::2], strict=False))
        return fields.get("flags") == "slave" and fields.get("master-link-status") == "ok"


class Pair:
    """A primary and a replica, each on a host of its own; Sentinel and three nodes are here."""

    def __init__(self, logs: Path, stack: ExitStack, **settings: str) -> None:
        network = stack.enter_context(Network())
        self.hosts = [stack.enter_context(network.host()) for _ in range(2)]
        self.primary = self._on(self.hosts[0], stack, Redis(**settings))
        address = f"{self.primary.host} {self.primary.port}"
        self._on(self.hosts[1], stack, Redis(replicaof=address))
        sentinel = stack.enter_context(Sentinel(self.primary))
        until(sentinel.knows_the_replica, "Sentinel knows the replica")
        nodes = Nodes(self.primary, logs, stack)
        self._opener = nodes.opener_at(sentinel.url)
        self.servers: list[ServerProcess] = [nodes.start(sentinel.url) for _ in range(NODES)]
        for server in self.servers:
            server.wait_until_it_serves()
            # A stop would wait for a primary that is gone.
            stack.callback(server.process.kill)

    def _on(self, host: Host, stack: ExitStack, server: Redis) -> Redis:
        server.host = host.address
        with host.entered():
            return stack.enter_context(server)

    def replica_hears_nothing(self) -> AbstractContextManager[None]:
        """Of the primary; Sentinel, which asks both, notices nothing."""
        primary, replica = self.hosts
        return replica.deaf(primary)

    @property
    def ports(self) -> list[int]:
        return [each.client.port for each in self.servers]

    @property
    def index(self) -> int:
        """The index at the primary that Sentinel names."""
        with closing(self._opener.open()) as store:
            return store.read()


@contextmanager
def pair(logs: Path, **settings: str) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(logs, stack, **settings)


@contextmanager
def killed(it: Pair) -> Iterator[None]:
    it.primary.kill()
    yield


def cut_off_for_a_while(it: Pair) -> AbstractContextManager[None]:
    return it.hosts[0].cut()


@pytest.mark.proves(
    "shared",
    "Redis's primary is killed or cut off, and Sentinel promotes a replica that is waited for",
)
@pytest.mark.parametrize("lost", [killed, cut_off_for_a_while])
def test_a_failover_to_a_replica_waited_for_loses_no_step(
    fault: Fault, lost: Callable[[Pair], AbstractContextManager[None]], tmp_path: Path
) -> None:
    for number in fault.tries(short=1, long=5, share=0.03):
        logs = tmp_path / str(number)
        logs.mkdir()
        with pair(logs, min_replicas_to_write="1") as it:
            with Load(it.ports, conditional=True) as load:
                load.wait_for_steps(STEPS)
                with lost(it):
                    load.wait_for_steps(STEPS)
                # A primary that is there again is not one that anybody has to do with.
                load.wait_for_steps(STEPS)
            fault.check(load, last=it.index)


@pytest.mark.proves(
    "shared",
    "Redis's primary is lost, and Sentinel promotes a replica that was behind: steps are lost, "
    "and the nodes end",
)
def test_a_failover_loses_what_its_replica_did_not_receive(fault: Fault, tmp_path: Path) -> None:
    for _ in fault.tries(short=1, long=1, share=0):
        with pair(tmp_path) as it:
            with Load(it.ports) as load:
                load.wait_for_steps(STEPS)
                # For good: the system of the primary's host would send what that has written.
                with it.replica_hears_nothing():
                    load.wait_for_steps(STEPS)
                    it.primary.kill()
                    for server in it.servers:
                        assert server.wait() == os.EX_DATAERR
                        # Else the kernel would take in who asks on.
                        assert server.listener is not None
                        server.listener.close()
            fault.saw(lost=load.lost(it.index))
            assert load.lost(it.index)
            with pytest.raises(WrongAnswer, match="lost"):
                load.check(first=0, last=it.index)
