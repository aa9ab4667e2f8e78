"""The reference load: 1,000 requests per second on each endpoint at once; all answers are checked.

    locust -f bench/locustfile.py --headless --users 90 --spawn-rate 90 --run-time 30s \\
           --stop-timeout 5 --host http://127.0.0.1:8080 --html report.html

Every number is compared with the sequence at the index in its ETag. No index of /next may be
answered twice, be lower than one answered before the request was sent, or be missing. This load
must be the only one that steps. With FIB_INTEGERS=uint64, numbers are checked modulo 2^64.
"""

import os
import time
from dataclasses import replace
from typing import Any, ClassVar

from locust import FastHttpUser, constant_throughput, events, task
from locust.env import Environment

import fibcore
from tests.support.checker import (
    Endpoint,
    Integers,
    Operation,
    WrongAnswer,
    check,
    index_of,
    residue_of,
)

REQUESTS_A_SECOND = 1_000  # on each endpoint
USERS = 30  # on each endpoint
LEAST_SHARE = 0.9  # of the rate; below it, this was not the reference load


def integers() -> Integers:
    return "uint64" if os.environ.get("FIB_INTEGERS") == "uint64" else "exact"


class Client(FastHttpUser):
    """Requests its endpoint at its share of the rate, however long the answers take."""

    abstract = True
    endpoint: Endpoint
    fixed_count = USERS
    wait_time = constant_throughput(REQUESTS_A_SECOND / USERS)
    network_timeout = 10.0
    max_retries = 0  # a repeated /next would step twice
    history: ClassVar[list[Operation]] = []

    @task
    def ask(self) -> None:
        asked = Operation(self.endpoint, time.monotonic())
        with self.client.get(f"/{self.endpoint}", catch_response=True) as response:
            end = time.monotonic()
            try:
                if response.status_code != 200:
                    raise WrongAnswer(f"status {response.status_code}: {response.error}")
                index = index_of(response.headers.get("ETag"))
                number = residue_of(self.endpoint, response.content or b"", integers())
                asked = replace(asked, end=end, index=index, number=number)
            except WrongAnswer as wrong:
                response.failure(str(wrong))
            self.history.append(asked)


class Current(Client):
    endpoint = "current"


class Next(Client):
    endpoint = "next"


class Previous(Client):
    endpoint = "previous"


def where(environment: Environment) -> int:
    """The current index."""
    with fibcore.Client(environment.host, timeout=10) as client:
        return client.current().index


def begin(environment: Environment, **_: Any) -> None:
    """Read the index before the first step."""
    environment.first_index = where(environment)


def report(environment: Environment, **_: Any) -> None:
    """Print the result; fail the run if the answers together are wrong, or too few."""
    first: int | None = getattr(environment, "first_index", None)
    if first is None:
        return
    environment.process_exit_code = 1
    last, total = where(environment), environment.stats.total
    try:
        missing = check(Client.history, first=first, last=last, integers=integers()).taken
    except WrongAnswer as wrong:
        print(wrong)
        return
    wanted = 3 * REQUESTS_A_SECOND
    print(
        f"checked {total.num_requests - total.num_failures:,} answers ({integers()}), "
        f"{total.num_failures:,} requests failed; index {first:,} to {last:,}, none twice, "
        f"{missing:,} missing; {total.total_rps:,.0f}/s of {wanted:,} asked for"
    )
    if total.total_rps < LEAST_SHARE * wanted:
        print("too few requests a second: this was not the reference load")
    elif not total.num_failures and not missing:
        environment.process_exit_code = 0


events.test_start.add_listener(begin)
events.quitting.add_listener(report)
