"""Three nodes on one sequence of a shared store, under load, while it or a link to it fails.

The answers of all nodes are checked against one sequence: no step is lost, none is made twice, and
no read is stale. ``tests/simulation`` combines faults.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.faults.conftest import SECONDS, Fault
from tests.faults.keyed_clients import KeyedClients, lossy
from tests.faults.nodes import FAULTS, Cluster
from tests.support.engines import Engine
from tests.support.load import Load

pytestmark = pytest.mark.processes

STEPS: Final = 50
"""Between two faults, on all nodes together."""

TRIED: Final = len(FAULTS) if SECONDS else 2
"""The least number of faults: all of them, or in the short form the first ones."""


def test_clients_of_three_nodes_see_one_sequence(
    engine: Engine, tmp_path: Path, fault: Fault
) -> None:
    with ExitStack() as stack:
        it = Cluster(engine, tmp_path, stack)
        with Load(it.addresses, clients=24, conditional=True) as load:
            load.wait_for_steps(STEPS)
            for number in fault.tries(short=TRIED, long=2 * len(FAULTS), share=0.1):
                name, break_something = list(FAULTS.items())[number % len(FAULTS)]
                load.longest_gap = 0.0
                break_something(it, load)
                it.wait_until_all_serve()
                load.wait_for_steps(STEPS)
                fault.saw(note=f"{name}: no answer for {load.longest_gap * 1000:.0f} ms")
        fault.check(load, last=it.index)


@pytest.mark.long
def test_each_client_gets_each_of_its_numbers_once_on_any_node(
    engine: Engine, fault: Fault, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        it = Cluster(engine, tmp_path, stack)
        with lossy(*it.addresses) as urls, KeyedClients(urls) as clients:
            for number in fault.tries(short=len(FAULTS), long=2 * len(FAULTS), share=0.05):
                clients.wait_for_steps(STEPS)
                list(FAULTS.values())[number % len(FAULTS)](it, clients)
                it.wait_until_all_serve()
            clients.wait_for_steps(STEPS)
        clients.check_each_once(fault, last=it.index)
