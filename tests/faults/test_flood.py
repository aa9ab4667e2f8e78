"""Floods of every endpoint, pipelined: the server makes progress, and is not killed.

Turns of the event loop cause the heartbeat. Their time is bounded, so that newcomers get answers
between them, and costly answers are rendered once for all.
"""

import time
from statistics import median
from typing import NamedTuple

import pytest

from fibcore.appliance.heartbeat import BEAT_SECONDS
from supervise.liveness import sample
from tests.faults.conftest import Fault
from tests.faults.floods import FLOODS, Flood
from tests.faults.server_variants import takes_turns_of_any_length, variant
from tests.support.supervised import Supervised
from tests.support.waiting import until

pytestmark = [pytest.mark.long, pytest.mark.processes, pytest.mark.usefixtures("descriptors")]

HOLD_SECONDS = 8.0
"""Longer than the limit of silence, including polls of the watchdog."""

ANSWERED_SECONDS = 1.0
"""Most newcomers are answered within this much of the server's processor time: the crowd uses a
core, too. A few wait behind a thousand clients of the crowd that reconnect."""


class Wait(NamedTuple):
    """The wait of a newcomer, in seconds."""

    own: float
    """In the server's processor time."""
    passed: float


def newcomers(appliance: Supervised, server: int, seconds: float) -> list[Wait]:
    """The waits of successive newcomers."""

    def now() -> Wait:
        seen = sample(server)
        assert seen is not None, appliance.report()
        return Wait(seen.used, time.monotonic())

    waited = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before = now()
        assert appliance.client.get("/current").status == 200
        after = now()
        waited.append(Wait(after.own - before.own, after.passed - before.passed))
        time.sleep(0.05)  # so that it asks as often as a person might, and not all the time
    return waited


@pytest.mark.parametrize("name", FLOODS)
def test_a_flooded_server_is_not_killed_and_answers_newcomers(name: str, fault: Fault) -> None:
    with Supervised() as appliance:
        server = appliance.server
        # Until the watchdog has had its first beat the server has two minutes to start.
        appliance.log("watchdog").expect(rf"pid {server}\) serves")
        with Flood(appliance.port, name) as flood:
            until(lambda: flood.answered > 2 * FLOODS[name].clients, "the flood is there")
            waited = newcomers(appliance, server, HOLD_SECONDS)
            answered = flood.answered
        assert appliance.server == server, appliance.report()
        assert "killed" not in appliance.log("watchdog").text
        own, passed = zip(*waited, strict=True)
        fault.tried += 1
        fault.saw(
            note=f"{name}: {answered} answered; a newcomer after {median(own):.2f} s of the "
            f"server's, {max(own):.2f} s at the most; {max(passed):.2f} s by the clock"
        )
        assert median(own) < ANSWERED_SECONDS


def test_without_a_bound_on_turns_a_flooded_server_would_be_killed() -> None:
    """With a timer for a heartbeat, and costly answers rendered for each client."""
    assert BEAT_SECONDS < 1
    with Supervised(command=variant(takes_turns_of_any_length)) as appliance:
        server = appliance.server
        appliance.log("watchdog").expect(rf"pid {server}\) serves")
        with Flood(appliance.port, "metrics, many and pipelined"):
            appliance.log("watchdog").expect(rf"pid {server}\), the server, hangs")
