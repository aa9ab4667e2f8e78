"""Defects of the embedded store and of the stepper over it, planted to see that seeds find them.

Each is a small change of the source, with the faults that bring it out (``machine_plan.TOGETHER``).
"""

import contextlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from typing import Any, Final

from fibcore.stepper import Stepper
from fibcore.stores.high_water_mark import Evidence, Record
from fibcore.stores.lock import WriterLock
from fibcore.stores.sqlite import SqliteStore
from fibcore.stores.sqlite_opener import SqliteOpener
from fibcore.threads import Worker
from supervise.backup import BackupCopy
from web.service import Service

FAILED: Final = "raise CommitFailedError(self._path, index, str(error)) from error"

MACHINE_BUGS: Final[dict[str, tuple[str | None, Any, str, str, str]]] = {
    "serves_without_the_lock": (
        None,
        WriterLock,
        "acquire",
        "fcntl.flock(self._fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))",
        "pass",
    ),
    "does_not_wait_for_the_lock": (
        None,
        SqliteOpener,
        "stand_by",
        "self._lock.acquire(wait=True)",
        "pass",
    ),
    "the_mark_is_never_written": (
        "a lost WAL",
        SqliteStore,
        "commit",
        "self._high_water_mark.record(index)",
        "pass",
    ),
    "the_mark_is_written_before_the_commit": (
        "a kill before a power cut",
        SqliteStore,
        "commit",
        "try:\n            if made:",
        "self._high_water_mark.record(index)\n        try:\n            if made:",
    ),
    "a_mark_counts_across_a_boot_at_any_level": (
        "power cuts",
        Record,
        "counts",
        'return self.synchronous == "full" or (',
        "return True or (",
    ),
    "the_backup_copy_is_no_evidence": (
        "a late power cut",
        Evidence,
        "of",
        "backup_copy = sqlite_file.verify_file(files.backup_copy_path(database))",
        "pass",
    ),
    "the_backup_copies_what_nobody_has_recorded": (
        "failed syncs before a power cut",
        BackupCopy,
        "_refresh",
        "mark.index < index",
        "False",
    ),
    "answers_before_the_commit_to_the_file": (
        "a kill before a power cut",
        Stepper,
        "_commit",
        "self._store.advance(steps, self.sequence.index)",
        """index = self.sequence.index
        self._loop.call_soon_threadsafe(self._answer)
        self._store.advance(steps, index)
        return lambda: None""",
    ),
    "commits_without_a_sync": (
        "power cuts",
        SqliteStore,
        "_prepare",
        'execute(f"PRAGMA synchronous = {synchronous}")',
        'execute("PRAGMA synchronous = off")',
    ),
    "a_failed_sync_is_answered": (
        "a failed sync before a power cut",
        SqliteStore,
        "commit",
        FAILED,
        "self._index = index\n            return",
    ),
    "a_failed_commit_ends_nothing": (
        None,
        Worker,
        "_work",
        "self._fail_stop(error)",
        "continue",
    ),
    "trusts_the_page_cache": (
        "a failed sync before a power cut",
        SqliteStore,
        "_prepare",
        "if not self._empty_wal():",
        "if False:",
    ),
    "a_reader_keeps_it_from_serving": (
        "a kill beside a reader",
        SqliteStore,
        "_prepare",
        "self._rewrite_wal()",
        "raise StoreBusyError(self._path)",
    ),
    "never_tries_the_store_again": (
        None,
        Service,
        "_open_when_possible",
        "await asyncio.sleep(RETRY_SECONDS)",
        "await asyncio.sleep(1e4)",
    ),
    "the_wal_has_no_space_of_its_own": (
        "a full disk",
        SqliteStore,
        "_prepare",
        "self._reserve_wal()",
        "self._wal_reserve = self._wal_reported = 1",
    ),
}


@contextlib.contextmanager
def planted(name: str) -> Iterator[str | None]:
    """Have the defect of this name for as long as this lasts; its faults are what it gives."""
    faults, owner, attribute, before, after = MACHINE_BUGS[name]
    was = vars(owner)[attribute]
    source = inspect.getsource(inspect.unwrap(getattr(was, "fget", was)))
    assert source.count(before) == 1, (
        f"{attribute} has {before!r} in it {source.count(before)} times"
    )
    made: dict[str, Any] = {}
    exec(textwrap.dedent(source.replace(before, after)), vars(sys.modules[owner.__module__]), made)
    setattr(owner, attribute, made[attribute])
    try:
        yield faults
    finally:
        setattr(owner, attribute, was)
