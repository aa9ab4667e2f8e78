"""A power cut at any moment loses no acknowledged step: what it could leave is built and opened."""

from pathlib import Path
from typing import Final

import pytest

from tests.crash.images import images, judge
from tests.crash.record import Operation, record

pytestmark = pytest.mark.processes

LIFE: Final = ("create=5", "open", "step", "keyed", "step", "keyed", "step", "step", "close")
"""Of a first process, with checkpoints."""
NEXT: Final = ("open", "step", "keyed", "step", "step", "step", "kill")
"""Of one that takes over."""
LIES: Final = "inject=fsync,fdatasync:retval=0"


def lives(database: Path, *levels: str, faults: tuple[str, ...] = ()) -> list[Operation]:
    operations = record(database, levels[0], *LIFE, faults=faults)
    for level in levels:
        operations += record(database, level, *NEXT, faults=faults)
    return operations


def test_a_power_cut_at_any_moment_leaves_the_acknowledged_index(tmp_path: Path) -> None:
    verdict = judge(images(lives(tmp_path / "fibcore.db", "full")))
    assert verdict.images > 300
    assert verdict[1:] == (0, 0, 0, ""), verdict


def test_a_power_cut_after_set_index_and_backup_leaves_both_whole(tmp_path: Path) -> None:
    database = tmp_path / "fibcore.db"
    operations = record(database, "full", "create=5", "set=70", "backup=copy.db", "lower=60")
    operations += record(database, "full", "open", "step", "backup=copy.db", "step", "close")
    verdict = judge(images(operations))
    assert verdict.images > 100
    assert verdict[1:] == (0, 0, 0, ""), verdict


@pytest.mark.parametrize(
    ("levels", "faults"),
    [(("off",), ()), (("full",), (LIES,)), (("full",), (f"{LIES}:when=8+",))],
    ids=["no sync", "syncs that lie", "late syncs that lie"],
)
def test_the_images_show_what_is_lost_without_syncs(
    tmp_path: Path, levels: tuple[str, ...], faults: tuple[str, ...]
) -> None:
    verdict = judge(images(lives(tmp_path / "fibcore.db", *levels, faults=faults)))
    assert verdict.lost or verdict.invalid, verdict


@pytest.mark.parametrize("failing", [3, 6, 9, 12])
def test_after_a_failed_sync_no_acknowledged_step_is_lost(tmp_path: Path, failing: int) -> None:
    database = tmp_path / "fibcore.db"
    fault = f"inject=fsync,fdatasync:error=EIO:when={failing}"
    operations = record(database, "full", *LIFE, faults=(fault,))
    operations += record(database, "full", *NEXT)
    verdict = judge(images(operations))
    assert verdict[1:] == (0, 0, 0, ""), verdict
