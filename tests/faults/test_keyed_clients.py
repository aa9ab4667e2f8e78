"""64 clients that lose each tenth answer, while what they ask is killed and cut off.

Each step has a key, so each client has each of its numbers once, and no index is missing but those
of steps that were given up.
"""

import os
import random
import signal
from pathlib import Path
from typing import Final

import pytest

from bench.checker import WrongAnswer
from tests.faults.conftest import Fault
from tests.faults.keyed_clients import KeyedClients, lossy
from tests.faults.nodes import Cluster, proxied_cluster
from tests.support.engines import ENGINES, Engine
from tests.support.proxy import Proxy
from tests.support.supervised import Supervised

pytestmark = pytest.mark.processes

STEPS: Final = 300
"""Between two faults."""
CHOICE: Final = random.Random(0)


@pytest.mark.proves("2", "of many clients each has its numbers once, and none is left behind")
@pytest.mark.proves("pairs", "`kill -9`", "many clients that ask again with `Idempotency-Key`")
@pytest.mark.proves("client", "64 clients lose each tenth answer, while the server is killed")
def test_each_client_has_each_of_its_numbers_once_through_kills(fault: Fault) -> None:
    with Supervised() as appliance:
        with lossy(("127.0.0.1", appliance.port)) as urls, KeyedClients(urls) as clients:
            for _ in fault.tries(short=3, long=200, share=0.1):
                clients.wait_for_steps(CHOICE.randint(1, STEPS))
                assert appliance.standby
                os.kill(appliance.server, signal.SIGKILL)
            clients.wait_for_steps(STEPS)
        clients.check_each_once(fault, last=appliance.index)


@pytest.mark.proves(
    "client", "64 clients lose each tenth…", control="without keys: numbers are lost"
)
def test_without_keys_lost_answers_would_be_steps_of_nobody() -> None:
    with Supervised() as appliance:
        with (
            lossy(("127.0.0.1", appliance.port)) as urls,
            KeyedClients(urls, keys=False) as clients,
        ):
            clients.wait_for_steps(STEPS)
        with pytest.raises(WrongAnswer, match="answered to nobody"):
            clients.check(first=0, last=appliance.index)


@pytest.fixture(params=ENGINES, ids=lambda kind: kind.__name__.lower())
def kind(request: pytest.FixtureRequest) -> type[Engine]:
    found: type[Engine] = request.param
    return found


def break_something(number: int, it: Cluster, proxies: list[Proxy], clients: KeyedClients) -> None:
    """Another fault each time, in the middle of what clients ask for."""
    node, proxy = it.nodes[number % len(it.nodes)], proxies[number % len(proxies)]
    match number % 4:
        case 0:
            node.kill()
            clients.wait_for_steps(STEPS)
            node.restart()
        case 1:
            proxy.cut()
            node.wait_until_it_says_that_it_can_not()
            clients.wait_for_steps(STEPS)
            proxy.heal()
        case 2:
            it.engine.kill()
            it.start_engine()
        case _:
            with it.host.cut():
                node.wait_until_it_says_that_it_can_not()
    it.wait_until_all_serve()


@pytest.mark.long
@pytest.mark.usefixtures("root")
@pytest.mark.proves(
    "client", "… on three nodes of one engine, of which nodes and engine are killed and cut off"
)
def test_each_client_has_each_of_its_numbers_once_on_any_node(
    fault: Fault, kind: type[Engine], tmp_path: Path
) -> None:
    with proxied_cluster(kind, tmp_path) as (it, proxies):
        with lossy(*it.addresses) as urls, KeyedClients(urls) as clients:
            for number in fault.tries(short=4, long=40, share=0.05):
                clients.wait_for_steps(CHOICE.randint(1, STEPS))
                break_something(number, it, proxies, clients)
            clients.wait_for_steps(STEPS)
        clients.check_each_once(fault, last=it.index)
