"""A process hangs: the server is stopped or its event loop blocked, the standby is stopped or dies.

A listener of supervisord asks for ``/health`` every five seconds, and kills what has not answered
three times.
"""

import os
import signal
from typing import Final

import pytest

from fibcore.stores import files
from tests.faults.conftest import Fault
from tests.faults.load import Load
from tests.faults.unprotected import blocks_at_a_signal, without
from tests.support.supervised import Supervised, until

pytestmark = pytest.mark.long

LIMIT: Final = 40.0
"""Seconds within which a hang has been found: three ticks, an answer that doesn't come within four
seconds, and what a busy machine adds."""


def judge(fault: Fault, appliance: Supervised, load: Load) -> None:
    fault.judge(load, last=appliance.index)
    assert load.refused == 0
    assert load.errors.total() == 0


def test_a_server_that_is_stopped_is_replaced_by_the_standby(fault: Fault) -> None:
    with Supervised() as appliance:
        server, standby = appliance.server, appliance.standby
        with Load(appliance.port) as load:
            for _ in fault.tries(short=1, long=1, share=0):
                load.wait_for_steps(50)
                os.kill(server, signal.SIGSTOP)
                appliance.log("health").expect(rf"pid {server}\), the server, is stopped", LIMIT)
                load.wait_for_steps(50)
        assert appliance.server == standby
        judge(fault, appliance, load)


def test_a_server_whose_event_loop_is_blocked_is_replaced_by_the_standby(fault: Fault) -> None:
    with Supervised(command=without(blocks_at_a_signal)) as appliance:
        server, standby = appliance.server, appliance.standby
        with Load(appliance.port) as load:
            for _ in fault.tries(short=1, long=1, share=0):
                # One that has never been seen well is given more time.
                spare = files.spare_path(appliance.state)
                until(spare.exists, "the listeners have had their first tick")
                load.wait_for_steps(50)
                os.kill(server, signal.SIGUSR1)
                appliance.log("health").expect(
                    rf"pid {server}\), the server, does not answer .*no answer within", LIMIT
                )
                load.wait_for_steps(50)
        assert appliance.server == standby
        judge(fault, appliance, load)


def test_a_server_that_is_stopped_would_stay_so_without_the_listener(fault: Fault) -> None:
    with Supervised() as appliance:
        server = appliance.server
        assert appliance.standby
        appliance.supervisorctl("stop", "health")
        with Load(appliance.port) as load:
            for _ in fault.tries(short=1, long=1, share=0):
                load.wait_for_steps(50)
                os.kill(server, signal.SIGSTOP)
                with pytest.raises(AssertionError, match="not within 25 s"):
                    load.wait_for_steps(50, seconds=25)
                os.kill(server, signal.SIGCONT)
                load.wait_for_steps(50)
        assert appliance.server == server
        judge(fault, appliance, load)


def test_a_standby_that_is_stopped_is_replaced_and_the_server_undisturbed(fault: Fault) -> None:
    with Supervised() as appliance:
        server, standby = appliance.server, appliance.standby
        with Load(appliance.port) as load:
            for _ in fault.tries(short=1, long=1, share=0):
                load.wait_for_steps(50)
                os.kill(standby, signal.SIGSTOP)
                appliance.log("health").expect(rf"pid {standby}\), the standby, is stopped", LIMIT)
                load.wait_for_steps(50)
                assert appliance.standby not in (server, standby)
        assert appliance.server == server
        judge(fault, appliance, load)
    assert load.unanswered == 0


def test_a_standby_that_dies_is_replaced_and_the_server_undisturbed(fault: Fault) -> None:
    with Supervised() as appliance:
        server = appliance.server
        with Load(appliance.port) as load:
            for _ in fault.tries(short=3, long=30, share=0.01):
                standby = appliance.standby
                load.wait_for_steps(50)
                os.kill(standby, signal.SIGKILL)
                assert appliance.standby not in (server, standby)
        assert appliance.server == server
        judge(fault, appliance, load)
    assert load.unanswered == 0
