"""The disk fails: a write or a sync returns an error, a write is short, or there is no space.

After a failed sync the contents of the disk are unknown, and a second sync that succeeds proves
nothing. So the process exits without an answer; the next one reads what is there, and syncs it
before it shows it. A power cut at the end of every try checks that.
"""

import os
import resource
from pathlib import Path
from typing import Final

import pytest

from fibcore.stores import sqlite_file
from tests.faults.conftest import Fault
from tests.faults.disks import Volume, volume
from tests.faults.moments import STEPS, Moment, at_each, last_moment, moments_of, thread_of
from tests.faults.server_variants import (
    answers_after_a_failed_commit,
    checkpoints_often,
    variant,
)
from tests.faults.servers import Servers
from tests.faults.tracing import Point, strace
from tests.support.checker import Operation, WrongAnswer, check
from tests.support.load import SequentialClient
from tests.support.servers import SERVER

pytestmark = [pytest.mark.long, pytest.mark.processes]


WRITES: Final = ("fdatasync", "ftruncate", "pwrite64")


def is_committed(moment: Moment) -> bool:
    """Whether the pages of the step had been written to the WAL and synced before."""
    before = [call for call in moment.passed[:-1] if call.split()[0] in WRITES]
    pages = [call for call in before if call == "pwrite64 fibcore.db-wal"]
    return len(pages) > 1 and before[-1] != "pwrite64 fibcore.db-wal"


def fail_at(
    thread: str, point: Point, servers: Servers, history: list[Operation]
) -> tuple[Moment, bool]:
    """Step with an error at some point, then read and step on.

    Returns:
        Where it was, and whether it ended the server.
    """
    client = SequentialClient(servers.port, history)
    server = servers.server
    with strace(
        thread_of(servers, thread), "-y", point.inject("error=EIO"), threads=False
    ) as trace:
        client.step(STEPS)
        unanswered = history[-1].index is None
        if unanswered:
            assert server.wait() == os.EX_IOERR, "fail-stop"
    # What is read now must last, whatever is on the disk.
    client.read()
    return last_moment(thread, trace), unanswered


def cut_power(servers: Servers, disk: Volume) -> None:
    servers.freeze()
    disk.cut_power()
    servers.kill()
    disk.restore_power()


def test_an_error_at_any_write_or_sync_loses_nothing(fault: Fault, tmp_path: Path) -> None:
    history: list[Operation] = []
    ended: set[Moment] = set()
    with volume() as disk:
        database = disk.path / "fibcore.db"
        command = disk.there(variant(checkpoints_often))
        with Servers(database, tmp_path, command=command) as servers:
            found = moments_of(servers, SequentialClient(servers.port, history))
        moments = {
            moment: point
            for moment, point in found.items()
            if moment.thread == "the commit" and moment.passed[-1].split()[0] in WRITES
        }

        def fail(thread: str, point: Point) -> Moment:
            with Servers(database, tmp_path, standbys=1, command=command) as servers:
                check(history, first=0, last=servers.client.index)
                moment, ends = fail_at(thread, point, servers, history)
                if ends:
                    ended.add(moment)
                cut_power(servers, disk)
            return moment

        at_each(moments, fault, fail)
        with Servers(database, tmp_path, command=command) as servers:
            check(history, first=0, last=servers.client.index)
    # A failing checkpoint follows the commit, and is repeated after the next one.
    assert set(moments) - ended == {moment for moment in moments if is_committed(moment)}
    fault.saw(lost=0, note=f"{len(moments)} writes and syncs; {len(ended)} ended the server")


def test_a_short_write_loses_nothing(fault: Fault, tmp_path: Path) -> None:
    history: list[Operation] = []
    with volume() as disk:
        database = disk.path / "fibcore.db"
        command = disk.there(SERVER)
        for at in fault.tries(short=4, long=4, share=0):
            with Servers(database, tmp_path, standbys=1, command=command) as servers:
                check(history, first=0, last=servers.client.index)
                client = SequentialClient(servers.port, history)
                client.step()
                server = servers.server
                # The WAL has its header, the first commit of a server, and a step; the next frame
                # is a header and a page again.
                end = 32 + 2 * (24 + sqlite_file.PAGE_SIZE) + (1, 23, 24, 24 + 300)[at]
                resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (end, end))
                client.step()
                assert history[-1].index is None
                assert server.wait() == os.EX_IOERR
                client.read()
                client.step()
                assert history[-1].index is not None
                cut_power(servers, disk)
        with Servers(database, tmp_path, command=command) as servers:
            check(history, first=0, last=servers.client.index)
    fault.saw(lost=0)


def test_answering_after_a_failed_sync_would_lose_the_step(tmp_path: Path) -> None:
    history: list[Operation] = []
    with volume() as disk:
        database = disk.path / "fibcore.db"
        command = disk.there(variant(answers_after_a_failed_commit))
        with Servers(database, tmp_path, command=command) as servers:
            with strace(servers.server.pid, Point("fdatasync", 1).inject("error=EIO")):
                SequentialClient(servers.port, history).step()
            cut_power(servers, disk)
        with Servers(database, tmp_path, command=command) as servers:
            last = servers.client.index
    with pytest.raises(WrongAnswer, match="lost: the sequence is at 0"):
        check(history, first=0, last=last)
