"""etcd on three hosts: its leader is killed, hangs or is cut off, under load.

No acknowledged step is lost: another member becomes the leader, and the nodes find one that
answers. A cut-off member shows no stale index, since reads are linearizable.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from fibcore.problems import EngineUnavailableError
from fibcore.stores import opener_of
from tests.faults.conftest import Fault
from tests.faults.hosts import Host, Network
from tests.support.engines import Etcd, EtcdCluster
from tests.support.load import Load
from tests.support.nodes import Nodes
from tests.support.waiting import until

pytestmark = [pytest.mark.long, pytest.mark.processes, pytest.mark.usefixtures("root")]

NODES: Final = 3
STEPS: Final = 100
MEMBERS: Final = 3


class FarCluster(EtcdCluster):
    """Members on separate hosts."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        super().__init__(*(host.address for host in hosts))
        self._hosts = {each.name: host for each, host in zip(self.members, hosts, strict=True)}

    def host_of(self, member: Etcd) -> Host:
        return self._hosts[member.name]

    def launch(self, member: Etcd) -> None:
        with self.host_of(member).entered():
            member.launch()


@contextmanager
def far_cluster() -> Iterator[tuple[Network, FarCluster]]:
    with ExitStack() as stack:
        network = stack.enter_context(Network())
        hosts = [stack.enter_context(network.host()) for _ in range(MEMBERS)]
        yield network, stack.enter_context(FarCluster(hosts))


@contextmanager
def killed(etcd: FarCluster, member: Etcd) -> Iterator[None]:
    member.kill()
    yield
    etcd.launch(member)
    member.wait_until_it_is_ready()


def hung(_: FarCluster, member: Etcd) -> AbstractContextManager[None]:
    return member.hung()


def cut_off(etcd: FarCluster, member: Etcd) -> AbstractContextManager[None]:
    return etcd.host_of(member).cut()


def test_an_etcd_that_loses_its_leader_loses_no_step(fault: Fault, tmp_path: Path) -> None:
    with far_cluster() as (_, etcd), ExitStack() as stack:
        nodes = Nodes(etcd.members[0], tmp_path, stack)
        servers = [nodes.start(etcd.url).wait_until_it_serves() for _ in range(NODES)]

        def all_serve() -> bool:
            return all(each.client.get("/health").status == 200 for each in servers)

        with Load([each.client.port for each in servers], conditional=True) as load:
            load.wait_for_steps(STEPS)
            for number in fault.tries(short=3, long=9, share=0.1):
                how = (killed, hung, cut_off)[number % 3]
                load.longest_gap = 0.0
                with how(etcd, etcd.leader()):
                    until(all_serve, "all nodes serve")
                    load.wait_for_steps(STEPS)
                until(all_serve, "all nodes serve")
                load.wait_for_steps(STEPS)
                fault.saw(note=f"{how.__name__}: no answer for {load.longest_gap:.1f} s")
        with closing(nodes.opener_at(etcd.url).open()) as store:
            fault.check(load, last=store.read())


def test_a_cut_off_member_shows_no_stale_index(fault: Fault) -> None:
    for _ in fault.tries(short=1, long=1, share=0):
        with far_cluster() as (_, etcd), ExitStack() as stack:
            assert opener_of(etcd.url, "fibonacci", "full", 1000).create(0) is None
            leader, *others = sorted(etcd.members, key=Etcd.leads, reverse=True)
            urls = (leader.url, "etcd://" + ",".join(f"{it.host}:{it.port}" for it in others))
            near, far = (
                stack.enter_context(closing(opener_of(url, "fibonacci", "full", 1000).open()))
                for url in urls
            )
            assert near.advance(1) == 1
            assert far.read() == 1
            for other in others:
                # It is reachable from here, but not from the others.
                stack.enter_context(etcd.host_of(leader).deaf(etcd.host_of(other)))
            reached = None
            while reached is None:
                # Another leader must be elected first.
                with suppress(EngineUnavailableError):
                    reached = far.advance(1)
            assert reached == 2
            with pytest.raises(EngineUnavailableError):
                near.read()
