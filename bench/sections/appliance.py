"""The complete appliance under supervisord: takeover after a kill, memory, and locust."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from bench import machine, servers
from bench.load import generator, loads, records
from bench.load.loads import Run
from bench.servers import Server
from bench.suite import Suite
from fibcore import Client
from fibcore.client import ClientError
from fibcore.stores.lock import waiting_for
from tests.support.checker import ENDPOINTS, Integers

RATE = 500  # requests a second on each endpoint
LARGE = 9_999_000  # 2 MB of digits, 1,000 steps before the default FIB_MAX_INDEX


def standby_waits(server: Server) -> bool:
    """Whether a process waits for the lock."""
    assert server.database is not None
    return bool(waiting_for(server.database))


def takeover(suite: Suite) -> None:
    """Kill the serving process repeatedly under load, and measure the gaps between answers."""
    suite.takeover = _kills(
        suite,
        Kills("takeover", 90, suite.effort.kills, {"next": RATE, "current": RATE}),
    )


def large_takeover(suite: Suite) -> None:
    """The same at a number of 2 MB, which is mostly requested with HEAD."""
    kills = Kills("large takeover", LARGE, suite.effort.large_kills, {"next": 10, "current": RATE})
    head = b"HEAD /current HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    suite.large_takeover = _kills(suite, replace(kills, seconds=4.0, sent={"current": head}))


@dataclass(frozen=True, slots=True)
class Kills:
    """How often to kill, and under which load; `seconds`: least time between two kills."""

    section: str
    index: int
    times: int
    rates: Mapping[str, float]
    seconds: float = 1.5
    sent: Mapping[str, bytes] | None = None


def _kills(suite: Suite, kills: Kills) -> dict[str, Any]:
    """Kill, and return the results for the figures."""
    suite.log(
        f"{kills.section}: kill -9 of the serving process, {kills.times} times, at n = "
        f"{kills.index:,}, under {sum(kills.rates.values()):,}/s"
    )
    streams = tuple(kills.rates)
    with servers.supervised(suite.folder, kills.index, "exact") as server:
        machine.wait_until(lambda: standby_waits(server), 30, "a standby waits for the lock")
        rate = sum(kills.rates.values()) / len(streams)
        run = Run.of(kills.section, server, "next", 100, rate=rate)
        run.first_index = loads.where(server)
        process = generator.start(
            suite.folder,
            server,
            streams,
            connections=100,
            seconds=(kills.times + 1) * kills.seconds,
            rate=kills.rates,
            requests_sent=kills.sent,
        )
        times = []
        for _ in range(kills.times):
            time.sleep(kills.seconds)  # a gap is visible only between answers
            loads.where(server)  # returns when the last takeover is complete
            machine.wait_until(lambda: standby_waits(server), 30, "a standby waits for the lock")
            if process.poll() is not None:
                raise TimeoutError(f"{kills.section}: the load ended before the last kill")
            victim = server.lock_holder()
            times.append(time.monotonic_ns())
            os.kill(victim, signal.SIGKILL)
        recorded = generator.finish(suite.folder, server, streams, process)
        loads.summarize(run, recorded, may_lose=True)
        loads.check_records(run, recorded, server)
        suite.add(run)
    gaps = [records.longest_gap(recorded.records, t, t + 10**9) / 1e6 for t in times]
    suite.log(f"gaps: {', '.join(f'{gap:.1f}' for gap in gaps)} ms")
    if recorded.counts["refused"]:
        suite.problem(f"{kills.section}: {recorded.counts['refused']} connections were refused")
    return {
        "kills": kills.times,
        "gaps ms": [round(gap, 2) for gap in gaps],
        "longest gap ms": max(gaps),
        "median gap ms": median(gaps),
        "refused connections": recorded.counts["refused"],
        "requests in flight lost with the process": recorded.counts["lost"],
        "answers": run.requests,
        "checked": run.checked,
        "durability": run.synchronous,
        "first index": run.first_index,
        "last index": run.last_index,
    }


def memory(suite: Suite) -> None:
    """The memory of all processes (PSS) while a thousand connections are served."""
    suite.log("memory: n = 100,000, 1,000 connections")
    peak = processes = 0
    cgroup_peak: int | None = None
    with servers.supervised(suite.folder, 100_000, "exact") as server:
        machine.wait_until(lambda: standby_waits(server), 30, "a standby waits for the lock")
        idle = machine.pss_bytes(server.pids())
        run = Run.of("memory", server, "all", 1_000, rate=RATE)
        run.first_index = loads.where(server)
        process = generator.start(
            suite.folder, server, ENDPOINTS, connections=1_000, seconds=10, rate=RATE
        )
        while process.poll() is None:
            pids = server.pids()
            peak, processes = max(peak, machine.pss_bytes(pids)), len(pids)
            time.sleep(0.25)
        recorded = generator.finish(suite.folder, server, ENDPOINTS, process)
        cgroup_peak = servers.memory_limit.peak_bytes(server.pid)
        loads.summarize(run, recorded)
        loads.check_records(run, recorded, server)
        suite.add(run)
    suite.memory = {
        "idle MB": idle / 1e6,
        "peak MB": peak / 1e6,
        "cgroup peak MB": None if cgroup_peak is None else cgroup_peak / 1e6,
        "processes": processes,
        "connections": 1_000,
        "first index": run.first_index,
        "last index": run.last_index,
        "durability": run.synchronous,
    }
    charged = "unknown" if cgroup_peak is None else f"{cgroup_peak / 1e6:.1f} MB"
    suite.log(
        f"{processes} processes: PSS {idle / 1e6:.1f} MB idle, {peak / 1e6:.1f} MB at the peak; "
        f"cgroup peak, including page cache: {charged}"
    )


def locust(suite: Suite) -> None:
    """The reference load, by locust, with its report as HTML.

    With `suite.url` it loads the server there, and starts none.
    """
    integers: Integers = "uint64" if os.environ.get("FIB_INTEGERS") == "uint64" else "exact"
    seconds = suite.effort.locust_seconds
    report = machine.RESULTS / "locust.html"
    suite.log(f"locust: 3 x 1,000 requests a second for {seconds} s, {integers}")
    with contextlib.ExitStack() as stack:
        url = suite.url
        if url is None:
            server = stack.enter_context(servers.supervised(suite.folder, 0, integers))
            url = f"http://127.0.0.1:{server.port}"
        else:
            suite.log(f"{url}: {what_it_moves(standing_at(url), seconds)}")
        command = machine.pinned(
            machine.LOAD_CORE,
            [
                *(sys.executable, "-m", "locust", "-f", "bench/locustfile.py"),
                *("--headless", "--users", "90", "--spawn-rate", "90", "--stop-timeout", "5"),
                *("--run-time", f"{seconds}s", "--host", url),
                *("--only-summary", "--html", report),
            ],
        )
        environment = {**os.environ, "FIB_INTEGERS": integers}
        done = subprocess.run(
            command,
            cwd=machine.ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    print(done.stdout, file=sys.stderr)
    found = re.findall(r"^(?:checked|too few) .*$", done.stdout, re.MULTILINE)
    suite.locust = {
        "exit": done.returncode,
        "summary": ". ".join(found),
        "report": str(report.relative_to(machine.ROOT)),
        "integers": integers,
        "url": suite.url,
        "durability": "full" if suite.url is None else "as configured there",
    }
    if done.returncode or not found:
        suite.problem(f"locust exited with {done.returncode}: {'. '.join(found)}")


def standing_at(url: str) -> int:
    """The index at ``url``. Raises ConnectionError if no server answers there."""
    try:
        with Client(url, timeout=3) as client:
            return client.current().index
    except (ClientError, ValueError) as error:
        raise ConnectionError(f"No load was started: {error}") from error


def what_it_moves(index: int, seconds: int) -> str:
    """The warning before the load steps the sequence of a running server."""
    return (
        f"the sequence is at index {index:,}. This load makes up to {1_000 * seconds:,} steps, "
        f"which can't be undone, and must be the only one that steps"
    )
