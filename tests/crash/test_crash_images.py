"""A power cut, a kill or damage at any moment loses no acknowledged step.

What it could leave is built and opened. The controls are from outside: without syncs, steps are
lost.
"""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.crash.images import DATABASE, PAGE, Image, Verdict, images, judge, left
from tests.crash.record import Operation, record, record_backup

pytestmark = pytest.mark.processes

LIFE: Final = ("create=5", "open", "step", "keyed", "step", "keyed", "step", "step", "close")
"""Of a first process, with checkpoints."""
NEXT: Final = ("open", "step", "keyed", "step", "step", "step", "kill")
"""Of one that takes over."""
STEPS: Final = ("open", "step", "keyed", "step", "kill")
LIES: Final = "inject=fsync,fdatasync:retval=0"


def lives(database: Path, level: str, *faults: str) -> list[Operation]:
    first = record(database, level, *LIFE, faults=faults)
    return first + record(database, level, *NEXT, faults=faults)


def assert_nothing_lost(verdict: Verdict, images: int = 1) -> None:
    assert verdict.images >= images
    assert verdict[1:] == (0, 0, 0, ""), verdict


@pytest.fixture
def database(tmp_path: Path) -> Path:
    folder = tmp_path / "first"
    folder.mkdir()
    return folder / DATABASE


def test_a_power_cut_at_any_moment_leaves_the_acknowledged_index(database: Path) -> None:
    assert_nothing_lost(judge(images(lives(database, "full"))), 300)


def test_a_power_cut_after_set_index_and_backup_leaves_both_whole(database: Path) -> None:
    operations = record(database, "full", "create=5", "open", "keyed", "close")
    operations += record(database, "full", "set=900", "backup=copy.db", "lower=60")
    operations += record(database, "full", "open", "step", "backup=copy.db", "step", "close")
    assert_nothing_lost(judge(images(operations)), 100)


@pytest.mark.parametrize(
    ("level", "faults"),
    [("off", ()), ("full", (LIES,)), ("full", (f"{LIES}:when=8+",))],
    ids=["no sync", "syncs that lie", "late syncs that lie"],
)
def test_the_images_show_what_is_lost_without_syncs(
    database: Path, level: str, faults: tuple[str, ...]
) -> None:
    verdict = judge(images(lives(database, level, *faults)))
    assert verdict.lost or verdict.invalid, verdict


# A sync that fails


def failed_at(database: Path, sync: int) -> list[Operation]:
    """A process whose sync with this number fails; it ends."""
    operations = record(database, "full", "create=5", "open", "step", "close")
    fault = f"inject=fdatasync:error=EIO:when={sync}"
    failed = record(database, "full", "open", "step", "step", "keyed", "step", faults=(fault,))
    assert failed[-1].kind != "done", "it went on"
    return operations + failed


@pytest.mark.parametrize("sync", range(1, 8))
def test_after_a_failed_sync_no_acknowledged_step_is_lost(database: Path, sync: int) -> None:
    """The next process trusts nothing that is in the page cache alone; nor does the backup."""
    operations = failed_at(database, sync) + record_backup(database)
    operations += record(database, "full", *NEXT)
    assert_nothing_lost(judge(images(operations)), 100)


# Other levels of durability


def without_promises(operations: list[Operation]) -> list[Operation]:
    """Nothing is durable when it is acknowledged."""
    kept = (it for it in operations if it.kind != "keyed")
    return [it._replace(kind="begin") if it.kind == "done" else it for it in kept]


@pytest.mark.parametrize("end", ["close", "kill"])
def test_what_was_acknowledged_at_off_is_durable_once_it_is_served_at_full(
    database: Path, end: str
) -> None:
    at_off = record(database, "off", *LIFE) + record(database, "off", *NEXT[:-1], end)
    may_be_lost = [Operation("setting", DATABASE, 0), *without_promises(at_off)]
    assert_nothing_lost(judge(images(may_be_lost + record(database, "full", *NEXT))), 300)


def test_at_normal_only_steps_are_lost_and_none_that_the_backup_copy_has(database: Path) -> None:
    operations = without_promises(lives(database, "normal"))
    index = operations[-1].at
    operations += [*record_backup(database), Operation("kept", DATABASE, index)]
    operations += without_promises(record(database, "normal", "open", "step", "kill"))
    assert_nothing_lost(judge(images(operations)), 300)
    control = judge(images(operations), booted=False)
    assert control.invalid, "what was lost without a power cut is not served from"


# Killed, with the power on


def test_a_kill_at_any_write_or_sync_leaves_the_acknowledged_index(
    database: Path, tmp_path: Path
) -> None:
    before = record(database, "full", "create=5", "open", "step", "kill")
    killed, cut = [], []
    for call, kind in (("pwrite64", "write"), ("fdatasync", "sync")):
        whole = tmp_path / call
        shutil.copytree(database.parent, whole)
        calls = sum(it.kind == kind for it in record(whole / DATABASE, "full", *STEPS))
        for number in range(max(1, calls - 9), calls + 1):
            folder = tmp_path / f"{call} {number}"
            shutil.copytree(database.parent, folder)
            fault = f"inject={call}:signal=KILL:when={number}"
            operations = before + record(folder / DATABASE, "full", *STEPS, faults=(fault,))
            killed.append(left(folder / DATABASE, operations))
            cut += list(images(operations))[-4:]
    assert any(it.promises[DATABASE].low > 6 for it in killed), "none was killed in a step"
    assert_nothing_lost(judge(killed, booted=False))
    assert_nothing_lost(judge(cut))


# Files that are lost or damaged


def damaged(image: Image, choice: random.Random) -> Iterator[Image]:
    """Yield the image without each file, with each cut short, and with bits flipped."""
    for name, data in image.files.items():
        others = {each: kept for each, kept in image.files.items() if each != name}
        yield image._replace(files=others)
        for _ in range(30 if data else 0):
            at = choice.randrange(len(data))
            flipped = bytearray(data)
            flipped[at] ^= 1 << choice.randrange(8)
            yield image._replace(files={**others, name: bytes(flipped)})
            yield image._replace(files={**others, name: data[:at]})


def test_a_damaged_or_lost_file_never_lowers_the_index(database: Path) -> None:
    """It is invalid, or served from where it was."""
    operations = record(database, "full", "create=5", "open", "keyed", "step", "step", "kill")
    whole = left(database, operations)
    assert judge([whole], booted=False) == Verdict(images=1)
    promises = {DATABASE: whole.promises[DATABASE]._replace(may_be_invalid=True)}
    harmed = damaged(whole._replace(promises=promises), random.Random(0))
    assert_nothing_lost(judge(harmed, booted=False), 100)
    without_the_page = {name: data for name, data in whole.files.items() if len(data) != PAGE}
    control = damaged(Image(0, without_the_page, promises), random.Random(0))
    assert judge(control, booted=False).lost, "the high-water mark is what shows it"
