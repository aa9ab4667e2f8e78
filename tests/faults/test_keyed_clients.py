"""64 clients that lose every tenth answer, while the server is killed.

Each step has a key, so each client gets each of its numbers once, and only indexes of abandoned
steps are missing. ``test_stores`` does the same with nodes of an engine.
"""

import os
import random
import signal
from typing import Final

import pytest

from tests.faults.conftest import Fault
from tests.faults.keyed_clients import KeyedClients, lossy
from tests.support.checker import WrongAnswer
from tests.support.supervised import Supervised

pytestmark = pytest.mark.processes

STEPS: Final = 300
"""Between two faults."""
CHOICE: Final = random.Random(0)


def test_each_client_gets_each_of_its_numbers_once_through_kills(fault: Fault) -> None:
    with Supervised() as appliance:
        with lossy(("127.0.0.1", appliance.port)) as urls, KeyedClients(urls) as clients:
            for _ in fault.tries(short=2, long=40, share=0.05):
                clients.wait_for_steps(CHOICE.randint(1, STEPS))
                assert appliance.standby
                os.kill(appliance.server, signal.SIGKILL)
            clients.wait_for_steps(STEPS)
        clients.check_each_once(fault, last=appliance.index)


@pytest.mark.long
def test_without_keys_lost_answers_would_leave_gaps() -> None:
    with Supervised() as appliance:
        with (
            lossy(("127.0.0.1", appliance.port)) as urls,
            KeyedClients(urls, keys=False) as clients,
        ):
            clients.wait_for_steps(STEPS)
        with pytest.raises(WrongAnswer, match="answered to nobody"):
            clients.check(first=0, last=appliance.index)
