"""Three nodes and their store, each on a host of its own, of which one is lost or can't be reached.

All that the nodes' clients are told must be what one sequence has told them: no step is lost, none
is made twice, and no read is old. What else that rests on is taken away in test_stores.py.
"""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from bench.checker import WrongAnswer
from tests.faults.conftest import Fault
from tests.faults.load import Load
from tests.faults.nodes import Cluster, Node, cluster, proxied_cluster
from tests.faults.server_variants import makes_a_batch_again, variant
from tests.support.engines import ENGINES, Engine
from tests.support.waiting import until

pytestmark = [pytest.mark.long, pytest.mark.processes, pytest.mark.usefixtures("root")]

STEPS: Final = 100
"""Between two faults, on all nodes together."""
TRIES: Final = 10
"""Of a control, in one of which the harm must be seen."""

Break = Callable[[Node, Cluster], contextlib.AbstractContextManager[None]]


@pytest.fixture(params=ENGINES, ids=lambda kind: kind.__name__.lower())
def kind(request: pytest.FixtureRequest) -> type[Engine]:
    found: type[Engine] = request.param
    return found


@contextlib.contextmanager
def loaded(it: Cluster) -> Iterator[Load]:
    with Load(it.addresses, conditional=True) as load:
        load.wait_for_steps(STEPS)
        yield load
        load.wait_for_steps(STEPS)


def nodes_in_turn(fault: Fault, it: Cluster, share: float) -> Iterator[Node]:
    """Another node for each try."""
    tries = fault.tries(short=1, long=2, share=share)
    for _, node in zip(tries, itertools.cycle(it.nodes), strict=False):
        yield node


@pytest.mark.proves("shared", "hosts of their own: a node lost with its host")
def test_a_node_lost_with_its_host_takes_no_step_with_it(
    fault: Fault, kind: type[Engine], tmp_path: Path
) -> None:
    with cluster(kind, tmp_path) as it:
        with loaded(it) as load:
            for node in nodes_in_turn(fault, it, share=0.05):
                # Cut off first, so that the store is not told.
                with node.host.cut():
                    node.kill()
                    load.wait_for_steps(STEPS)
                node.restart()
                load.wait_for_steps(STEPS)
        fault.check(load, last=it.index)


def cut(node: Node, _: Cluster) -> contextlib.AbstractContextManager[None]:
    return node.host.cut()


def deaf(node: Node, it: Cluster) -> contextlib.AbstractContextManager[None]:
    return node.host.deaf(it.host)


def mute(node: Node, it: Cluster) -> contextlib.AbstractContextManager[None]:
    return node.host.mute(it.host)


def break_in_a_batch(it: Cluster, node: Node, how: Break, load: Load) -> None:
    """Break the link of a node while a batch of it is at the store, and heal it."""
    with contextlib.ExitStack() as broken:
        with it.engine.hung():
            node.wait_until_steps_wait()
            broken.enter_context(how(node, it))
        node.wait_until_it_says_that_it_can_not()
        load.wait_for_steps(STEPS)
    node.wait_until_it_serves()


@pytest.mark.proves(
    "shared",
    "hosts of their own: a link that breaks in the middle of a batch, both directions or one, "
    "and heals",
)
@pytest.mark.parametrize("how", [cut, deaf, mute])
def test_a_link_that_breaks_in_the_middle_of_a_batch_and_heals(
    fault: Fault, kind: type[Engine], how: Break, tmp_path: Path
) -> None:
    with cluster(kind, tmp_path) as it:
        with loaded(it) as load:
            for node in nodes_in_turn(fault, it, share=0.05):
                break_in_a_batch(it, node, how, load)
        fault.check(load, last=it.index)
    assert load.errors[503], "the node that was cut off has said so to its clients"


@pytest.mark.proves(
    "shared",
    "hosts of their own: the store's link breaks and heals; the store is killed, restarted, hangs",
)
def test_the_link_of_the_store_breaks_and_heals(
    fault: Fault, kind: type[Engine], tmp_path: Path
) -> None:
    with cluster(kind, tmp_path) as it:
        with loaded(it) as load:
            for _ in fault.tries(short=1, long=2, share=0.05):
                with it.host.cut():
                    for node in it.nodes:
                        node.wait_until_it_says_that_it_can_not()
                it.wait_until_all_serve()
                load.wait_for_steps(STEPS)
        fault.check(load, last=it.index)


@pytest.mark.proves("shared", "hosts of their own: delays that differ from node to node")
def test_delays_that_differ_from_node_to_node(
    fault: Fault, kind: type[Engine], tmp_path: Path
) -> None:
    with proxied_cluster(kind, tmp_path) as (it, proxies):
        with loaded(it) as load:
            for number in fault.tries(short=1, long=3, share=0.03):
                for place, proxy in enumerate(proxies):
                    proxy.delay = 0.03 * ((place + number) % len(proxies))
                load.wait_for_steps(STEPS)
        fault.check(load, last=it.index)


def killed(it: Cluster) -> None:
    it.engine.kill()
    it.start_engine()


def restarted(it: Cluster) -> None:
    it.engine.stop()
    it.start_engine()


def hung(it: Cluster) -> None:
    with it.engine.hung():
        for node in it.nodes:
            node.wait_until_it_says_that_it_can_not()


@pytest.mark.proves("shared", "hosts of their own: the…")
@pytest.mark.parametrize("how", [killed, restarted, hung])
def test_a_store_that_is_gone_for_a_while(
    fault: Fault, kind: type[Engine], how: Callable[[Cluster], None], tmp_path: Path
) -> None:
    with cluster(kind, tmp_path) as it:
        with loaded(it) as load:
            for _ in fault.tries(short=1, long=2, share=0.03):
                how(it)
                it.wait_until_all_serve()
                load.wait_for_steps(STEPS)
        fault.check(load, last=it.index)


# Without what protects


@pytest.mark.proves(
    "shared", "hosts of their own: a link…", control="without its identity the batch is made twice"
)
def test_without_its_identity_a_broken_link_makes_a_batch_twice(
    fault: Fault, kind: type[Engine], tmp_path: Path
) -> None:
    # What is under way when the store stops may be a question of another kind.
    with cluster(kind, tmp_path, command=variant(makes_a_batch_again)) as it:
        first = 0
        for _ in fault.tries(short=TRIES, long=TRIES, share=0):
            with Load(it.addresses) as load:
                load.wait_for_steps(STEPS)
                break_in_a_batch(it, it.nodes[0], cut, load)
            last = it.index
            try:
                load.check(first=first, last=last)
            except WrongAnswer as error:
                if "answered to nobody" not in str(error):
                    raise
                fault.saw(note=str(error)[:100])
                return
            first = last
    pytest.fail("no batch was made twice")


def test_nothing_is_left_of_the_hosts() -> None:
    ours = f"fib{os.getpid()}"
    until(
        lambda: (
            not [*Path("/run/netns").glob(f"{ours}-*"), *Path("/sys/class/net").glob(f"{ours}*")]
        ),
        "no namespace and no link is left",
    )
