"""The cost of viewers of the status page, each of which requests /status once a second."""

import http.client
import time
from contextlib import ExitStack, closing

from bench import heads, machine, servers
from bench.sections import appliance
from bench.servers import Server
from bench.suite import Suite

VIEWERS = 50
SECONDS = 10
INDEX = 1_000_000  # 208,988 digits, of which /status returns the ends


def viewers(suite: Suite) -> None:
    """The processor time of the appliance with viewers, less that without."""
    suite.say(f"viewers: {VIEWERS} viewers of the page for {SECONDS} s, n = {INDEX:,}")
    with servers.supervised(suite.folder, INDEX, "exact") as server:
        machine.wait_until(lambda: appliance.standby_waits(server), 30, "a standby waits")
        idle = _used(server, 0)
        seen = _used(server, VIEWERS)
    share = max(0.0, seen - idle) / VIEWERS / SECONDS
    suite.viewers = {"viewers": VIEWERS, "seconds": SECONDS, "percent of a core": 100 * share}
    suite.say(f"{100 * share:.3f}% of a core per viewer ({idle:.2f} s without, {seen:.2f} s with)")


def _used(server: Server, count: int) -> float:
    """The processor seconds that the appliance uses with ``count`` viewers."""
    asked = next(r for r in heads.requests("chromium-fetch") if r.method == "GET")
    fields = {name: value for name, value in asked.fields if name != "host"}
    with ExitStack() as stack:
        clients = [
            stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", server.port)))
            for _ in range(count)
        ]
        pids = server.pids()
        before, begun = machine.cpu_seconds(pids), time.monotonic()
        for turn in range(SECONDS):
            for number, client in enumerate(clients or [None]):
                due = begun + turn + number / max(1, count)
                time.sleep(max(0.0, due - time.monotonic()))
                if client is not None:
                    client.request("GET", "/status", headers=fields)
                    answer = client.getresponse()
                    if answer.status != 200 or not answer.read():
                        raise ValueError(f"/status was answered {answer.status}")
        time.sleep(max(0.0, begun + SECONDS - time.monotonic()))
        return machine.cpu_seconds(pids) - before
