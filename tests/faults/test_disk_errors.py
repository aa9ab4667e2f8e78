"""The disk fails: a write or a sync returns an error, a write is short, or there is no space.

After a failed sync the contents of the disk are unknown, and a second sync that succeeds proves
nothing. So the process exits without an answer; the next one reads what is there, and syncs it
before it shows it. A power cut at the end of every try checks that.
"""

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from tests.faults.conftest import Fault
from tests.faults.disks import Volume, volume
from tests.faults.servers import Servers
from tests.support import requires
from tests.support.checker import Operation, WrongAnswer, check
from tests.support.load import SequentialClient
from tests.support.servers import SERVER
from tests.support.waiting import PATIENCE

pytestmark = [pytest.mark.long, pytest.mark.processes]

CALLS: Final = ("fdatasync", "pwrite64")


@contextmanager
def strace(thread: int, *options: str) -> Iterator[None]:
    """Inject faults into the calls of one thread until it ends, or the block does."""
    command = [requires.program("strace"), "-o", os.devnull, "-p", str(thread), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            assert "attached" in said, said
            yield
        finally:
            # It may wait forever when it is told to detach from a process that is just dying.
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait(PATIENCE)


def cut_power(servers: Servers, disk: Volume) -> None:
    servers.freeze()
    disk.cut_power()
    servers.kill()
    disk.restore_power()


def test_an_error_at_any_write_or_sync_of_a_step_loses_nothing(
    fault: Fault, tmp_path: Path
) -> None:
    """The images of tests/crash have every call; here a server exits on what they begin with."""
    history: list[Operation] = []
    with volume() as disk:
        database = disk.path / "fibcore.db"
        command = disk.there(SERVER)
        for number in fault.tries(short=6, long=40, share=0.1):
            call, when = CALLS[number % 2], number // 2 % 3 + 1
            with Servers(database, tmp_path, standbys=1, command=command) as servers:
                check(history, first=0, last=servers.client.index)
                client = SequentialClient(servers.port, history)
                server = servers.server
                with strace(servers.commit_thread, f"--inject={call}:error=EIO:when={when}"):
                    client.step(5)
                    assert history[-1].index is None, "it went on"
                    assert server.wait() == os.EX_IOERR, "fail-stop"
                # What is read now must last, whatever is on the disk.
                client.read()
                client.step()
                assert history[-1].index is not None
                cut_power(servers, disk)
        with Servers(database, tmp_path, command=command) as servers:
            check(history, first=0, last=servers.client.index)
    fault.saw(lost=0)


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
                page = int.from_bytes(database.read_bytes()[16:18], "big")
                end = 32 + 2 * (24 + page) + (1, 23, 24, 24 + 300)[at]
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


def test_a_disk_that_only_pretends_to_sync_would_lose_the_steps(tmp_path: Path) -> None:
    """The control."""
    history: list[Operation] = []
    with volume() as disk:
        database = disk.path / "fibcore.db"
        command = disk.there(SERVER)
        with Servers(database, tmp_path, command=command) as servers:
            with strace(servers.commit_thread, "--inject=fdatasync:retval=0"):
                SequentialClient(servers.port, history).step(5)
            cut_power(servers, disk)
        with Servers(database, tmp_path, command=command) as servers:
            # A database that has lost steps is invalid, or behind.
            last = servers.client.index
    with pytest.raises(WrongAnswer, match="lost"):
        check(history, first=0, last=last)
