"""The power is cut: unsynced data is gone.

The database is on its own ext4 file system, with its backup copy, which is refreshed continually.
The file system is shut down, as by a power cut, and mounted again.
"""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fibcore.stores import opener_of
from tests.faults.conftest import Fault
from tests.faults.disks import Volume, volume
from tests.faults.servers import Servers, is_frozen
from tests.support.load import Load
from tests.support.servers import SERVER
from tests.support.waiting import until

pytestmark = [pytest.mark.long, pytest.mark.processes]

CHOICE = random.Random(0)


@contextmanager
def renewed_backup_copy(database: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The backup listener, without the five seconds between two copies."""
    with subprocess.Popen(
        [sys.executable, "-m", "supervise.backup", "0.001"],
        env={**os.environ, "FIB_STATE": str(database)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def step_and_cut(database: Path, disk: Volume, logs: Path, level: str = "full") -> Load:
    """Cut the power under load, after some answered steps.

    Args:
        database: on the disk; created if missing.
        disk: its power is restored on return.
        logs: a folder elsewhere.
        level: of durability.
    """
    with (
        Servers(
            database,
            logs,
            settings={"FIB_SYNCHRONOUS": level},
            command=disk.there(SERVER),
        ) as servers,
        renewed_backup_copy(database) as renewer,
        Load(servers.port, clients=8, rate=None) as load,
    ):
        load.wait_for_steps(CHOICE.randint(1, 300))
        servers.freeze()
        renewer.send_signal(signal.SIGSTOP)
        until(lambda: is_frozen(renewer.pid), "the renewal of the backup copy is stopped")
        disk.cut_power()
        servers.kill()
    disk.restore_power()
    return load


def index_after(database: Path, disk: Volume, logs: Path) -> int:
    """The index at which a server would continue now."""
    with Servers(database, logs, command=disk.there(SERVER)) as servers:
        return servers.client.index


def found(database: Path) -> int:
    """The index of a file; 0 if it is invalid."""
    return opener_of(f"sqlite:{database}", "main", "full", 1000).describe().index


def test_no_acknowledged_step_is_lost_whenever_the_power_is_cut(
    fault: Fault, tmp_path: Path
) -> None:
    last = 0
    with volume() as disk:
        for number in fault.tries(short=6, long=12, share=0.03):
            # Each database goes through three cuts.
            database = disk.path / f"state_{number // 3}" / "fibcore.db"
            first = last if number % 3 else 0
            load = step_and_cut(database, disk, tmp_path)
            last = index_after(database, disk, tmp_path)
            fault.saw(lost=load.lost(last))
            load.check(first=first, last=last)
            copy = Path(f"{database}.backup")
            if copy.exists():
                assert found(copy) <= last


def test_at_normal_a_power_cut_loses_only_the_last_steps(fault: Fault, tmp_path: Path) -> None:
    last = 0
    with volume() as disk:
        database = disk.path / "fibcore.db"
        for _ in fault.tries(short=2, long=4, share=0.01):
            first = last
            load = step_and_cut(database, disk, tmp_path, "normal")
            last = index_after(database, disk, tmp_path)
            fault.saw(lost=load.lost(last))
            assert first <= last <= first + load.steps + load.unanswered
    assert fault.lost


def test_at_off_the_same_power_cut_loses_steps_or_the_database(
    fault: Fault, tmp_path: Path
) -> None:
    with volume() as disk:
        for number in fault.tries(short=3, long=20, share=0.02):
            database = disk.path / f"state_{number}" / "fibcore.db"
            load = step_and_cut(database, disk, tmp_path, "off")
            # The kernel may have written all of it in time anyway.
            fault.saw(lost=load.lost(found(database)))
    assert fault.lost
