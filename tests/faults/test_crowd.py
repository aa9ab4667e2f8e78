"""Two thousand hostile clients at once, of all kinds or the worst: the appliance keeps serving.

It has the memory of its unit, and the default bounds and deadlines; numbers are of 1 MB. A well-
behaved client gets answers all the time, the server is not replaced, and all processes stay within
the memory limit.
"""

import http.client
import time
from collections import Counter
from contextlib import suppress
from typing import Final

import pytest

from tests.faults.conftest import Fault
from tests.faults.crowd import KINDS, Crowd
from tests.faults.limited_memory import UNIT_LIMIT, LimitedAppliance, limited_memory
from tests.faults.server_variants import keeps_parts_of_requests_without_bound, variant
from tests.support.corpus import PATHS
from tests.support.servers import Answer
from tests.support.supervised import Supervised
from tests.support.waiting import PATIENCE, until

pytestmark = [pytest.mark.long, pytest.mark.processes, pytest.mark.usefixtures("descriptors")]

INDEX: Final = 4_800_000
"""Of a number of 1,003,134 digits."""

CLIENTS: Final = 2000

HOLD_SECONDS: Final = 10
"""How long the whole crowd is connected."""


class Honest:
    """A well-behaved client: it reads its answers, and retries as ``Retry-After`` says."""

    def __init__(self, appliance: Supervised) -> None:
        self._appliance = appliance
        self.outcomes: Counter[tuple[str, int]] = Counter()
        self.longest = 0.0
        """Seconds until its answers."""
        self.steps = 0

    def ask(self, path: str) -> None:
        """Request until there is an answer: connections may be evicted."""
        began = time.monotonic()
        answers: list[Answer] = []

        def is_answered() -> bool:
            with suppress(OSError, http.client.HTTPException):
                answers.append(self._appliance.client.get(path))
            return bool(answers)

        until(is_answered, f"{path} is answered")
        (answer,) = answers
        self.longest = max(self.longest, time.monotonic() - began)
        self.outcomes[path, answer.status] += 1
        assert answer.status in (200, 503), answer
        if answer.status == 503:
            assert answer.headers["Retry-After"]
        elif path == "/next":
            self.steps += 1

    def finds_it_healthy(self) -> bool:
        """Like all others, it may get 503: too many connections, none of them idle."""
        before = self.outcomes["/health", 200]
        self.ask("/health")
        return self.outcomes["/health", 200] > before

    def steps_once(self) -> bool:
        before = self.steps
        self.ask("/next")
        return self.steps > before


def serve_beside(kinds: list[str], it: LimitedAppliance, fault: Fault) -> None:
    """Serve a well-behaved client while the crowd is connected, and afterwards."""
    appliance = it.appliance
    server = appliance.server
    honest = Honest(appliance)
    with Crowd(appliance.port, kinds, CLIENTS) as crowd:
        crowd.wait_until_all_have_come()
        end = time.monotonic() + HOLD_SECONDS
        while time.monotonic() < end:
            for path in PATHS:
                honest.ask(path)
            until(honest.finds_it_healthy, "/health is answered 200 beside the crowd")
            time.sleep(0.05)  # so that it asks as often as a person might, and not all the time
        there = dict(crowd.there)
        until(honest.steps_once, "a step is made beside the crowd", seconds=2 * PATIENCE)
    until(honest.steps_once, "a step is made when the crowd has gone")
    fault.tried += 1
    fault.saw(
        note=f"{', '.join(dict.fromkeys(kinds))}: {it}; there at the end {there}; "
        f"answered {dict(honest.outcomes)}, after {honest.longest:.1f} s at the most"
    )
    assert honest.outcomes["/current", 200] > 0
    assert honest.outcomes["/previous", 200] > 0
    assert appliance.server == server, appliance.report()
    assert it.most < UNIT_LIMIT


MOST: Final = {"unread answers": 24, "half pages": 2, "half heads": 3, "slow readers": 3}
"""A mix that uses more memory than any kind alone."""


def test_the_worst_mix_of_clients_does_not_fill_memory(fault: Fault) -> None:
    mixture = [kind for kind, share in MOST.items() for _ in range(share)]
    with limited_memory(INDEX) as it:
        serve_beside(mixture, it, fault)


def test_nearly_complete_requests_would_fill_memory_without_a_bound() -> None:
    without_bound = variant(keeps_parts_of_requests_without_bound)
    with (
        limited_memory(INDEX, command=without_bound) as it,
        Crowd(it.appliance.port, ["half pages"], CLIENTS),
    ):
        until(
            lambda: (
                it.most > UNIT_LIMIT
                or bool(it.appliance.log("supervisord").find("terminated by SIGKILL"))
            ),
            "the memory is full",
        )


def test_hostile_clients_of_every_kind_shut_nobody_out(fault: Fault) -> None:
    with limited_memory(INDEX) as it:
        serve_beside(list(KINDS), it, fault)
