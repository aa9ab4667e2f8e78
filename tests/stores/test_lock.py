"""The lock that makes one process the only writer."""

import fcntl
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from fibcore.stores import file_system, lock
from fibcore.stores.files import aside_path, lock_path
from fibcore.stores.lock import WriterLock, server_of, waiting_for
from tests.support.disks import SmallDisk, fill
from tests.support.waiting import until


@contextmanager
def held(database: Path) -> Iterator[WriterLock]:
    lock = WriterLock(database)
    assert lock.acquire(wait=False)
    try:
        yield lock
    finally:
        lock.release()


@contextmanager
def held_by_another_process(database: Path) -> Iterator[subprocess.Popen[str]]:
    program = """
import sys
from pathlib import Path
from fibcore.stores.lock import WriterLock

lock = WriterLock(Path(sys.argv[1]))
assert lock.acquire(wait=False)
print("held", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, database],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def can_be_taken(database: Path) -> bool:
    lock = WriterLock(database)
    try:
        return lock.acquire(wait=False)
    finally:
        lock.release()


def test_a_process_that_tests_the_lock_is_not_taken_for_its_holder(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``server_of`` holds it for a moment, shared."""
    lock = WriterLock(database)
    with lock_path(database).open() as tested:
        fcntl.flock(tested, fcntl.LOCK_SH)
        monkeypatch.setattr("fibcore.stores.lock.time.sleep", lambda _: tested.close())
        assert lock.acquire(wait=False)
    assert not can_be_taken(database)
    lock.release()


def test_only_one_process_holds_the_lock(database: Path) -> None:
    with held(database):
        assert not can_be_taken(database)
        assert can_be_taken(database.with_name("other.db"))
    assert can_be_taken(database)


def test_read_permission_is_enough_to_see_the_lock_holder(database: Path) -> None:
    umask = os.umask(0)
    try:
        with held(database):
            assert stat.S_IMODE(lock_path(database).stat().st_mode) == 0o644
    finally:
        os.umask(umask)


@pytest.mark.processes
def test_the_lock_of_another_process_is_respected(database: Path) -> None:
    with held_by_another_process(database):
        assert not can_be_taken(database)


@pytest.mark.processes
def test_the_kernel_releases_the_lock_of_a_killed_process(database: Path) -> None:
    with held_by_another_process(database) as process:
        process.kill()
        process.wait()
        assert can_be_taken(database)


@pytest.mark.processes
def test_the_lock_names_the_process_that_holds_it(database: Path) -> None:
    onlooker = WriterLock(database)
    assert onlooker.holder() is None
    with held(database):
        assert onlooker.holder() == os.getpid()
    with held_by_another_process(database) as process:
        assert onlooker.holder() == process.pid
        assert lock_path(database).read_bytes() == b"%d\n" % process.pid
    onlooker.release()


@pytest.mark.parametrize(
    "content", [b"", b"99999999999999999999\n", b"not a number", b"\xff\n", b"7" * 99]
)
def test_any_content_of_the_lock_file_is_replaced(database: Path, content: bytes) -> None:
    lock_path(database).write_bytes(content)
    lock = WriterLock(database)
    assert (lock.holder() is None) != content.strip().isdigit()
    lock.release()
    with held(database):
        assert lock_path(database).read_bytes() == b"%d\n" % os.getpid()


def test_the_lock_can_be_taken_on_a_full_disk(tmp_path: Path, small_disk: SmallDisk) -> None:
    with small_disk(tmp_path / "disk") as disk:
        new, known = disk / "new.db", disk / "known.db"
        lock_path(known).write_bytes(b"123456789012\n")
        fill(disk)
        with held(new), held(known):
            assert lock_path(new).read_bytes() == b""
            assert lock_path(known).read_bytes() == b"%d\n" % os.getpid()


@pytest.mark.processes
def test_a_child_of_the_holder_does_not_keep_the_lock(database: Path) -> None:
    with ExitStack() as child:
        with held(database):
            process = child.enter_context(
                subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False)
            )
            assert process.stdin is not None
            child.enter_context(closing(process.stdin))
        assert process.poll() is None
        assert can_be_taken(database)


@pytest.mark.parametrize("replaced", [False, True], ids=["deleted", "replaced"])
def test_a_lock_on_a_deleted_file_does_not_count(database: Path, replaced: bool) -> None:
    lock = WriterLock(database)
    lock_path(database).unlink()
    if replaced:
        lock_path(database).touch()
    assert lock.acquire(wait=False)
    assert not can_be_taken(database)
    lock.release()


def test_a_lock_on_the_current_file_counts_after_a_replacement(database: Path) -> None:
    late = WriterLock(database)
    lock_path(database).unlink()
    with held(database):
        assert not late.acquire(wait=False)
    late.release()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_asking_who_serves_does_not_take_the_lock(database: Path) -> None:
    assert server_of(database) is None
    with held(database):
        assert server_of(database) == os.getpid()
        lock_path(database).write_bytes(b"")
        assert server_of(database) == 0  # There was no space for the id of its holder.
        lock_path(database).write_bytes(b"somebody\n")
        assert server_of(database) == 0
    before = open_files()
    for _ in range(20):
        assert server_of(database) is None
    assert open_files() < before + 20
    assert can_be_taken(database)


def test_retaking_the_lock_leaves_no_file_open(database: Path) -> None:
    lock = WriterLock(database)
    before = open_files()
    for _ in range(20):
        lock_path(database).unlink()
        assert lock.acquire(wait=False)
    assert open_files() < before + 20
    lock.release()


def test_waiting_processes_are_known_from_the_kernel(
    database: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert waiting_for(database) is None
    with held(database):
        status = lock_path(database).stat()
        inode = status.st_ino
        device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
        elsewhere = f"{os.major(status.st_dev) + 1:02x}:{os.minor(status.st_dev):02x}"
        monkeypatch.setattr("fibcore.stores.lock.LOCKS", tmp_path / "locks")
        monkeypatch.setattr("fibcore.stores.file_system.MOUNTS", tmp_path / "mounts")
        (tmp_path / "mounts").write_text("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n")
        assert waiting_for(database) is None
        holds = f"7: FLOCK  ADVISORY  WRITE 4711 {device}:{inode} 0 EOF\n"
        waits = f"7: -> FLOCK  ADVISORY  WRITE 4712 {device}:{inode} 0 EOF\n"
        for others, waited_for in (
            ("", False),
            (waits.replace("FLOCK", "POSIX"), False),
            (waits.replace(f":{inode}", f":{inode}0"), False),
            (waits.replace(f":{inode}", f":1{inode}"), False),
            (waits.replace(device, elsewhere), False),
            (waits, True),
        ):
            (tmp_path / "locks").write_text(holds + others)
            assert waiting_for(database) == [4712] * waited_for


def test_a_lock_is_matched_by_the_device_in_the_mount_table(
    database: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It may differ from that of stat: on Btrfs that is specific to the subvolume."""
    with held(database):
        inode = lock_path(database).stat().st_ino
        with lock_path(database).open() as file:
            info = Path(f"/proc/self/fdinfo/{file.fileno()}").read_text()
        number = re.findall(r"^mnt_id:\s*(\d+)$", info, re.MULTILINE)[0]
        for module, name, text in (
            (
                file_system,
                "mounts",
                f"1{number} 0 9:9 / /a rw\n{number} 0 254:17 / /b rw - x y z\n",
            ),
            (lock, "locks", f"1: -> FLOCK  ADVISORY  WRITE 4712 fe:11:{inode} 0 EOF\n"),
        ):
            (tmp_path / name).write_text(text)
            monkeypatch.setattr(module, name.upper(), tmp_path / name)
        assert waiting_for(database) == [4712]


@pytest.mark.processes
def test_a_real_kernel_tells_who_waits(database: Path) -> None:
    program = "import sys; from pathlib import Path; from fibcore.stores.lock import WriterLock; "
    program += "WriterLock(Path(sys.argv[1])).acquire(wait=True)"
    with held(database):
        waiter = subprocess.Popen([sys.executable, "-c", program, database])
        try:
            until(lambda: waiting_for(database) == [waiter.pid], "it waits")
        finally:
            waiter.kill()
            waiter.wait()


def test_a_file_set_aside_gets_an_unused_name(database: Path) -> None:
    assert aside_path(database) == database.with_name(f"{database.name}.invalid-1")
    database.with_name(f"{database.name}.invalid-1-wal").touch()
    assert aside_path(database) == database.with_name(f"{database.name}.invalid-2")
    database.with_name(f"{database.name}.invalid-2").symlink_to("nowhere")
    assert aside_path(database) == database.with_name(f"{database.name}.invalid-3")


def test_a_folder_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        WriterLock(tmp_path / "missing" / "fibcore.db")
