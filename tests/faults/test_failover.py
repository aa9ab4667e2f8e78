"""The primary of an engine is lost under load, and its replica takes its place.

PostgreSQL's nodes name both servers in their URL, and libpq connects to the one that accepts
writes; Redis's ask Sentinel. If the primary waits for the replica, no acknowledged step is lost.
Otherwise the steps that the replica had not received are: the index has fallen, and each node that
has seen a higher one exits.
"""

import abc
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final, TypeVar

import pytest

from tests.faults.conftest import Fault
from tests.faults.hosts import Host, Network
from tests.support.checker import WrongAnswer
from tests.support.engines import Engine, Postgresql, Redis, Standby
from tests.support.load import Load
from tests.support.nodes import Nodes
from tests.support.waiting import until

pytestmark = [pytest.mark.long, pytest.mark.processes, pytest.mark.usefixtures("root")]

NODES: Final = 3
STEPS: Final = 100

Server = TypeVar("Server", bound=Engine)


class Pair(abc.ABC):
    """A primary and its replica on separate hosts; three nodes are on this one.

    Args:
        logs: the folder of the nodes' logs.
        stack: stops everything.
        waits: whether the primary waits for the replica.
    """

    primary: Engine

    def __init__(self, logs: Path, stack: ExitStack, *, waits: bool) -> None:
        network = stack.enter_context(Network())
        self.host, self.other = (stack.enter_context(network.host()) for _ in range(2))
        url, later = self._start(stack, waits=waits)
        nodes = Nodes(self.primary, logs, stack)
        self._opener = nodes.opener_at(later)
        self.servers = [nodes.start(url).wait_until_it_serves() for _ in range(NODES)]
        for each in self.servers:
            # A graceful stop would wait for the lost primary.
            stack.callback(each.process.kill)
        self.ports = [each.client.port for each in self.servers]

    @abc.abstractmethod
    def _start(self, stack: ExitStack, *, waits: bool) -> tuple[str, str]:
        """Start both; return the URL for the nodes, and that of the primary after a failover."""

    def _on(self, host: Host, stack: ExitStack, server: Server) -> Server:
        server.host = host.address
        with host.entered():
            stack.enter_context(server)
        return server

    def fail_over(self) -> None:  # noqa: B027
        """Promote the replica, unless something else does."""

    @property
    def index(self) -> int:
        """The index at the new primary."""
        with closing(self._opener.open()) as store:
            return store.read()


class PostgresqlPair(Pair):
    def _start(self, stack: ExitStack, *, waits: bool) -> tuple[str, str]:
        self.primary = primary = self._on(self.host, stack, Postgresql())
        self._standby = self._on(self.other, stack, Standby(primary))
        if waits:
            self._standby.is_waited_for()
        hosts = ",".join(f"{each.host}:{each.port}" for each in (primary, self._standby))
        return f"postgresql://fibcore@{hosts}/postgres", self._standby.url

    def fail_over(self) -> None:
        self._standby.promote()


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
        # Sentinel rewrites it.
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


class RedisPair(Pair):
    def _start(self, stack: ExitStack, *, waits: bool) -> tuple[str, str]:
        replicas = "1" if waits else "0"
        primary = self._on(self.host, stack, Redis(min_replicas_to_write=replicas))
        replica = self._on(self.other, stack, Redis(replicaof=f"{primary.host} {primary.port}"))
        self.primary = primary
        # Its link is up as much as a second before it gets the first command.
        until(lambda: "OK" in primary.cli("set", "written", "1"), "the primary accepts a write")
        until(lambda: "1" in replica.cli("get", "written"), "the replica receives it")
        sentinel = stack.enter_context(Sentinel(primary))
        until(sentinel.knows_the_replica, "Sentinel knows the replica")
        return sentinel.url, sentinel.url


@contextmanager
def killed(it: Pair) -> Iterator[None]:
    it.primary.kill()
    yield


def cut_off_for_a_while(it: Pair) -> AbstractContextManager[None]:
    return it.host.cut()


KINDS: Final = pytest.mark.parametrize("kind", [PostgresqlPair, RedisPair])


@KINDS
@pytest.mark.parametrize("lost", [killed, cut_off_for_a_while])
def test_a_failover_to_a_synchronous_replica_loses_no_step(
    fault: Fault,
    kind: type[Pair],
    lost: Callable[[Pair], AbstractContextManager[None]],
    tmp_path: Path,
) -> None:
    for number in fault.tries(short=1, long=2, share=0.03):
        logs = tmp_path / str(number)
        logs.mkdir()
        with ExitStack() as stack:
            it = kind(logs, stack, waits=True)
            with Load(it.ports, conditional=True) as load:
                load.wait_for_steps(STEPS)
                with lost(it):
                    it.fail_over()
                    load.wait_for_steps(STEPS)
                # The return of the old primary has no effect.
                load.wait_for_steps(STEPS)
            fault.check(load, last=it.index)


@KINDS
def test_a_failover_loses_steps_that_the_replica_did_not_receive(
    fault: Fault, kind: type[Pair], tmp_path: Path
) -> None:
    for _ in fault.tries(short=1, long=1, share=0):
        with ExitStack() as stack:
            it = kind(tmp_path, stack, waits=False)
            with Load(it.ports) as load:
                load.wait_for_steps(STEPS)
                # Permanently: the kernel of the primary's host would still send what it has
                # written.
                with it.other.deaf(it.host):
                    load.wait_for_steps(STEPS)
                    for server in it.servers:
                        # Now each node has seen an index that the replica does not have. One that
                        # has not, since all of these steps were made by the others, would not exit.
                        assert server.client.get("/current").status == 200
                    it.primary.kill()
                    it.fail_over()
                    for server in it.servers:
                        assert server.wait() == os.EX_DATAERR
                        # Otherwise the kernel would accept clients that nobody answers.
                        assert server.listener is not None
                        server.listener.close()
            fault.saw(lost=load.lost(it.index))
            assert load.lost(it.index)
            with pytest.raises(WrongAnswer, match="lost"):
                load.check(first=0, last=it.index)
