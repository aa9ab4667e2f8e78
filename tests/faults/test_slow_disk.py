"""A sync takes 200 ms: reads do not wait for it, and all waiting steps share it."""

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.faults.conftest import Fault
from tests.faults.server_variants import (
    commits_each_step_by_itself,
    commits_in_the_event_loop,
    variant,
)
from tests.faults.servers import Servers
from tests.faults.tracing import Trace, strace
from tests.support.load import Load

pytestmark = [pytest.mark.long, pytest.mark.processes]

SYNC: Final = 0.2
"""Seconds."""

CLIENTS: Final = 1000
"""Enough to request 1,000 steps a second while each waits for its answer."""


@contextmanager
def slow_disk(thread: int) -> Iterator[Trace]:
    """Delay each sync of the committing thread; the others are not traced."""
    delay = f"--inject=fdatasync:delay_enter={SYNC * 1e6:.0f}"
    with strace(thread, "--trace=fdatasync", delay, threads=False) as trace:
        yield trace


def seconds(load: Load, *paths: str) -> float:
    """The median time to an answer."""
    return statistics.median(
        each.end - each.start
        for each in load.history
        if each.endpoint in paths and each.index is not None
    )


def test_on_a_slow_disk_reads_continue_and_steps_share_a_sync(fault: Fault, tmp_path: Path) -> None:
    """At 1,000 per second none is shed."""
    with Servers(tmp_path / "fibcore.db", tmp_path) as servers:
        with (
            slow_disk(servers.commit_thread) as trace,
            Load(servers.port, clients=CLIENTS, rate=2200) as load,
        ):
            load.wait_for_steps(8000)
        last = servers.client.index
    load.check(first=0, last=last)
    reads, steps = seconds(load, "current", "previous"), seconds(load, "next")
    fault.tried += 1
    fault.saw(
        lost=load.lost(last),
        gap=load.longest_gap,
        note=f"{load.rate:.0f} requests a second; {load.steps / trace.count('fdatasync'):.0f} "
        f"steps to a sync; half of the reads took {reads * 1000:.1f} ms, of the steps "
        f"{steps * 1000:.0f} ms",
    )
    assert load.refused == 0
    assert load.errors.total() == 0
    assert reads < SYNC / 2 < SYNC <= steps


def test_reads_would_wait_for_commits_in_the_event_loop(tmp_path: Path) -> None:
    command = variant(commits_in_the_event_loop)
    with (
        Servers(tmp_path / "fibcore.db", tmp_path, command=command) as servers,
        # The event loop is in the main thread.
        slow_disk(servers.server.pid),
        Load(servers.port, clients=50) as load,
    ):
        load.wait_for_steps(200)
    assert seconds(load, "current", "previous") > SYNC / 4


def test_steps_with_a_commit_each_would_wait_for_each_other(tmp_path: Path) -> None:
    command = variant(commits_each_step_by_itself)
    with (
        Servers(tmp_path / "fibcore.db", tmp_path, command=command) as servers,
        slow_disk(servers.commit_thread) as trace,
        Load(servers.port, clients=20) as load,
    ):
        load.wait_for_steps(20)
        assert trace.count("fdatasync") >= 20
    assert seconds(load, "next") > 4 * SYNC
