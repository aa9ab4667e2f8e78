"""The power is cut: unsynced data is gone.

The database is on its own ext4 file system, with its backup copy, which is refreshed continually.
The file system is shut down, as by a power cut, and mounted again.
"""

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fibcore.problems import DatabaseInvalidError
from fibcore.stores import files, sqlite_file
from fibcore.stores.sqlite import Synchronous
from tests.faults.conftest import Fault
from tests.faults.disks import Volume, volume
from tests.faults.server_variants import checkpoints_often, variant
from tests.faults.servers import Servers, is_frozen
from tests.support.checker import WrongAnswer
from tests.support.load import Load
from tests.support.servers import SERVER
from tests.support.waiting import until

pytestmark = [pytest.mark.long, pytest.mark.processes]

CHOICE = random.Random(0)

RENEW_THE_SPARE = """
import sys
from pathlib import Path
from supervise.backup import BackupCopy

backup_copy = BackupCopy(Path(sys.argv[1]))
while True:
    backup_copy.refresh()
"""


@contextmanager
def renewed_backup_copy(database: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The backup listener, without the five seconds between two copies."""
    with subprocess.Popen(
        [sys.executable, "-c", RENEW_THE_SPARE, database], stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def step_and_cut(
    database: Path, disk: Volume, logs: Path, level: Synchronous = "full", *, often: bool = False
) -> Load:
    """Cut the power under load, after some answered steps.

    Args:
        database: on the disk; created if missing.
        disk: its power is restored on return.
        logs: a folder elsewhere.
        level: of durability.
        often: whether the WAL is moved into the database every few commits.
    """
    with (
        Servers(
            database,
            logs,
            settings={"FIB_SYNCHRONOUS": level},
            command=disk.there(variant(checkpoints_often) if often else SERVER),
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


def test_no_acknowledged_step_is_lost_whenever_the_power_is_cut(
    fault: Fault, tmp_path: Path
) -> None:
    last = 0
    with volume() as disk:
        for number in fault.tries(short=6, long=12, share=0.03):
            # Each database goes through three cuts.
            database = disk.path / f"state_{number // 3}" / "fibcore.db"
            first = last if number % 3 else 0
            load = step_and_cut(database, disk, tmp_path, often=number % 2 == 1)
            last = index_after(database, disk, tmp_path)
            fault.saw(lost=load.lost(last))
            load.check(first=first, last=last)
            backup_copy = files.backup_copy_path(database)
            if backup_copy.exists():
                assert sqlite_file.verify_file(backup_copy) <= last


def test_at_normal_a_power_cut_loses_only_the_last_steps(fault: Fault, tmp_path: Path) -> None:
    last = 0
    with volume() as disk:
        database = disk.path / "fibcore.db"
        for number in fault.tries(short=2, long=4, share=0.01):
            first = last
            load = step_and_cut(database, disk, tmp_path, "normal", often=number % 2 == 1)
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
            load = step_and_cut(database, disk, tmp_path, "off", often=number % 2 == 1)
            try:
                last = sqlite_file.verify_file(database)
            except DatabaseInvalidError as invalid:
                fault.saw(lost=load.steps, note=str(invalid))
                continue
            lost = load.lost(last)
            fault.saw(lost=lost)
            # The kernel may have written all of it in time anyway.
            if lost:
                with pytest.raises(WrongAnswer, match="lost"):
                    load.check(first=0, last=last)
    assert fault.lost
