"""PostgreSQL with a standby: the primary is lost under load, and the standby takes its place.

With a synchronous standby no answered step is lost, and the nodes follow by themselves: their URL
names both, and libpq goes to the one that can be written to. With a standby that is not waited for,
what it has not received is lost; the nodes see that the sequence has fallen, and end.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.checker import WrongAnswer
from tests.faults.conftest import Fault
from tests.faults.hosts import Host, Network
from tests.faults.keyed_clients import KeyedClients, lossy
from tests.faults.load import Load
from tests.faults.nodes import COUNT, Cluster, Node
from tests.support.engines import Postgresql, Standby
from tests.support.servers import SERVER

pytestmark = [pytest.mark.long, pytest.mark.processes, pytest.mark.usefixtures("root")]

STEPS = 100


class Pair(Cluster):
    """Three nodes on a primary and its standby, each on a host of its own."""

    def __init__(
        self, network: Network, host: Host, primary: Postgresql, standby_host: Host
    ) -> None:
        super().__init__(network, host, primary)
        self.primary = primary
        self.standby_host = standby_host
        self.standby = Standby(primary)
        self.standby.host = standby_host.address

    @property
    def url(self) -> str:
        hosts = ",".join(f"{each.host}:{each.port}" for each in (self.primary, self.standby))
        return f"postgresql://fibcore@{hosts}/postgres"

    @property
    def index(self) -> int:
        """Where the sequence stands at the standby."""
        statement = f"SELECT n FROM fibcore_sequence WHERE name = '{self.sequence}'"
        return int(self.standby.sql(statement))


@contextlib.contextmanager
def pair(logs: Path, *, synchronous: bool) -> Iterator[Pair]:
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network())
        hosts = [stack.enter_context(network.host()) for _ in range(2)]
        primary = Postgresql()
        primary.host = hosts[0].address
        with hosts[0].entered():
            stack.enter_context(primary)
        it = Pair(network, hosts[0], primary, hosts[1])
        with hosts[1].entered():
            stack.enter_context(it.standby)
        if synchronous:
            it.standby.is_waited_for()
        for _ in range(COUNT):
            host = stack.enter_context(network.host())
            it.nodes.append(Node(host, it.url, it.sequence, logs, SERVER))
            stack.callback(it.nodes[-1].close)
        it.wait_until_all_serve()
        yield it


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
    for number in fault.tries(short=1, long=5, share=0.05):
        logs = tmp_path / str(number)
        logs.mkdir()
        with pair(logs, synchronous=True) as it:
            with Load(it.addresses, conditional=True) as load:
                load.wait_for_steps(STEPS)
                with lost(it):
                    it.standby.promote()
                    load.wait_for_steps(STEPS)
                    it.wait_until_all_serve()
                # A primary that is there again is not one that anybody has to do with.
                load.wait_for_steps(STEPS)
            fault.check(load, last=it.index)


@pytest.mark.proves("client", "… on nodes of a PostgreSQL, whose synchronous standby takes over")
def test_each_client_has_its_numbers_once_when_the_standby_takes_over(
    fault: Fault, tmp_path: Path
) -> None:
    for number in fault.tries(short=1, long=5, share=0.05):
        logs = tmp_path / str(number)
        logs.mkdir()
        with pair(logs, synchronous=True) as it:
            with lossy(*it.addresses) as urls, KeyedClients(urls) as clients:
                clients.wait_for_steps(STEPS)
                with killed(it):
                    it.standby.promote()
                    clients.wait_for_steps(STEPS)
                    it.wait_until_all_serve()
                clients.wait_for_steps(STEPS)
            clients.check_each_once(fault, last=it.index)


@pytest.mark.proves(
    "shared", "PostgreSQL's primary is lost, with…", control="with one that is not waited for"
)
def test_a_primary_whose_standby_is_not_waited_for_loses_steps(
    fault: Fault, tmp_path: Path
) -> None:
    for _ in fault.tries(short=1, long=1, share=0):
        with pair(tmp_path, synchronous=False) as it:
            with Load(it.addresses) as load:
                load.wait_for_steps(STEPS)
                # Promoted before it is there again: the kernel of the primary's host still has, and
                # would send, what the primary has written.
                with it.standby_host.cut():
                    load.wait_for_steps(STEPS)
                    it.primary.kill()
                    with it.standby_host.entered():
                        it.standby.promote()
                for node in it.nodes:
                    assert node.server.wait() == os.EX_DATAERR
                    node.close()
            fault.saw(lost=load.lost(it.index))
            assert load.lost(it.index)
            with pytest.raises(WrongAnswer, match="lost"):
                load.check(first=0, last=it.index)


@pytest.mark.proves("shared", "PostgreSQL's primary is lost, with…")
def test_a_synchronous_standby_that_hangs_is_waited_for(fault: Fault, tmp_path: Path) -> None:
    for _ in fault.tries(short=1, long=1, share=0):
        with pair(tmp_path, synchronous=True) as it:
            with Load(it.addresses) as load:
                load.wait_for_steps(STEPS)
                with it.standby.hung():
                    for node in it.nodes:
                        node.wait_until_it_says_that_it_can_not()
                    it.primary.kill()
                it.standby.promote()
                it.wait_until_all_serve()
                load.wait_for_steps(STEPS)
            fault.check(load, last=it.index)
