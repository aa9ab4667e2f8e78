"""PostgreSQL with a standby: the primary is lost under load, and the standby takes its place.

With a synchronous standby no acknowledged step is lost, and the nodes follow: their URL names both
servers, and libpq connects to the one that accepts writes. With an asynchronous standby the steps
that it has not received are lost; the nodes detect that the index has fallen, and exit.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from bench.checker import WrongAnswer
from tests.faults.conftest import Fault
from tests.faults.hosts import Host, Network
from tests.faults.load import Load
from tests.faults.nodes import NODES, is_healthy
from tests.support.engines import Postgresql, Standby
from tests.support.nodes import Nodes
from tests.support.waiting import until

pytestmark = [pytest.mark.long, pytest.mark.processes, pytest.mark.usefixtures("root")]

STEPS = 100

Server = TypeVar("Server", bound=Postgresql)


class Pair:
    """A primary and its standby, each on a host of its own; three nodes are here."""

    def __init__(self, logs: Path, stack: contextlib.ExitStack, *, synchronous: bool) -> None:
        network = stack.enter_context(Network())
        self.host, self.standby_host = (stack.enter_context(network.host()) for _ in range(2))
        self.primary = self._on(self.host, stack, Postgresql())
        self.standby = self._on(self.standby_host, stack, Standby(self.primary))
        if synchronous:
            self.standby.is_waited_for()
        hosts = ",".join(f"{each.host}:{each.port}" for each in (self.primary, self.standby))
        nodes = Nodes(self.primary, logs, stack)
        self._sequence = nodes.sequence
        url = f"postgresql://fibcore@{hosts}/postgres"
        self.servers = [nodes.start(url).wait_until_it_serves() for _ in range(NODES)]
        for each in self.servers:
            # A stop would wait for a primary that is gone.
            stack.callback(each.process.kill)
        self.ports = [each.client.port for each in self.servers]

    def _on(self, host: Host, stack: contextlib.ExitStack, server: Server) -> Server:
        server.host = host.address
        with host.entered():
            stack.enter_context(server)
        return server

    @property
    def index(self) -> int:
        """The index at the standby."""
        statement = f"SELECT n FROM fibcore_sequence WHERE name = '{self._sequence}'"
        return int(self.standby.sql(statement))

    def wait_until_all_serve(self) -> None:
        for each in self.servers:
            until(lambda client=each.client: is_healthy(client), "a node is healthy")  # type: ignore[misc]


@contextlib.contextmanager
def pair(logs: Path, *, synchronous: bool) -> Iterator[Pair]:
    with contextlib.ExitStack() as stack:
        yield Pair(logs, stack, synchronous=synchronous)


@contextlib.contextmanager
def killed(it: Pair) -> Iterator[None]:
    it.primary.kill()
    yield


@contextlib.contextmanager
def cut_off_for_a_while(it: Pair) -> Iterator[None]:
    with it.host.cut():
        yield


@pytest.mark.proves("shared", "PostgreSQL's primary is lost, with a synchronous standby")
@pytest.mark.parametrize("lost", [killed, cut_off_for_a_while])
def test_a_primary_with_a_synchronous_standby_loses_no_step(
    fault: Fault, lost: Callable[[Pair], contextlib.AbstractContextManager[None]], tmp_path: Path
) -> None:
    for number in fault.tries(short=1, long=2, share=0.03):
        logs = tmp_path / str(number)
        logs.mkdir()
        with pair(logs, synchronous=True) as it:
            with Load(it.ports, conditional=True) as load:
                load.wait_for_steps(STEPS)
                with lost(it):
                    it.standby.promote()
                    load.wait_for_steps(STEPS)
                    it.wait_until_all_serve()
                # A primary that is there again is not one that anybody has to do with.
                load.wait_for_steps(STEPS)
            fault.check(load, last=it.index)


@pytest.mark.proves(
    "shared", "PostgreSQL's primary is lost, with…", control="with one that is not waited for"
)
def test_a_primary_whose_standby_is_not_waited_for_loses_steps(
    fault: Fault, tmp_path: Path
) -> None:
    for _ in fault.tries(short=1, long=1, share=0):
        with pair(tmp_path, synchronous=False) as it:
            with Load(it.ports) as load:
                load.wait_for_steps(STEPS)
                # Promoted before it is there again: the kernel of the primary's host still has, and
                # would send, what the primary has written.
                with it.standby_host.cut():
                    load.wait_for_steps(STEPS)
                    it.primary.kill()
                    with it.standby_host.entered():
                        it.standby.promote()
                for server in it.servers:
                    assert server.wait() == os.EX_DATAERR
                    # Else the kernel would take in who asks on.
                    assert server.listener is not None
                    server.listener.close()
            fault.saw(lost=load.lost(it.index))
            assert load.lost(it.index)
            with pytest.raises(WrongAnswer, match="lost"):
                load.check(first=0, last=it.index)
