"""Defects to plant in the embedded store, and in its stepper and server."""

from typing import Final

from fibcore.stepper import Stepper
from fibcore.stores import files, keys, sqlite_file
from fibcore.stores.high_water_mark import Evidence, Record
from fibcore.stores.lock import WriterLock
from fibcore.stores.sqlite import SqliteStore
from fibcore.stores.sqlite_opener import SqliteOpener
from fibcore.threads import Worker
from supervise.backup import BackupCopy
from tests.simulation.bug import Bug
from web.life import Life
from web.service import Service

SQLITE: Final = ("sqlite",)
FAILED: Final = "raise CommitFailedError(self._path, index, str(error)) from error"

MACHINE_BUGS: Final = {
    "serves_without_the_lock": Bug(
        WriterLock,
        "acquire",
        "fcntl.flock(self._fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))",
        "pass",
        SQLITE,
    ),
    "does_not_wait_for_the_lock": Bug(
        SqliteOpener,
        "stand_by",
        "self._lock.acquire(wait=True)",
        "pass",
        SQLITE,
    ),
    "the_mark_is_never_written": Bug(
        SqliteStore,
        "_commit",
        "self._high_water_mark.record(index)",
        "pass",
        SQLITE,
        "a lost WAL",
    ),
    "the_mark_is_written_before_the_commit": Bug(
        SqliteStore,
        "_commit",
        "try:",
        "self._high_water_mark.record(index)\n        try:",
        SQLITE,
        "a kill before a power cut",
    ),
    "a_mark_counts_across_a_boot_at_any_level": Bug(
        Record,
        "counts",
        'return self.synchronous == "full" or',
        "return True or",
        SQLITE,
        "power cuts",
    ),
    "the_backup_copy_is_no_evidence": Bug(
        Evidence,
        "of",
        "backup_copy = sqlite_file.verify_file(files.backup_copy_path(database))",
        "pass",
        SQLITE,
        "a late power cut",
    ),
    "the_backup_copies_unrecorded_steps": Bug(
        BackupCopy,
        "_refresh",
        "mark.index < index",
        "False",
        SQLITE,
        "failed syncs before a power cut",
    ),
    "acknowledges_before_the_commit_to_the_file": Bug(
        Stepper,
        "_commit",
        "self._store.advance(steps, self.sequence.index)",
        """index = self.sequence.index
        self._loop.call_soon_threadsafe(self._answer)
        self._store.advance(steps, index)
        return lambda: None""",
        SQLITE,
        "a kill before a power cut",
    ),
    "commits_without_a_sync": Bug(
        SqliteStore,
        "_prepare",
        'execute(f"PRAGMA synchronous = {synchronous}")',
        'execute("PRAGMA synchronous = off")',
        SQLITE,
        "power cuts",
    ),
    "what_was_written_at_off_is_never_synced": Bug(
        SqliteStore,
        "_open",
        "sqlite_file.sync(path)",
        "pass",
        SQLITE,
        "restarts before a power cut",
        ("keyed",),
        levels=("off", "full"),
    ),
    "a_failed_sync_is_acknowledged": Bug(
        SqliteStore,
        "_commit",
        FAILED,
        "self._index = index\n            return",
        SQLITE,
        "a failed sync before a power cut",
    ),
    "a_failed_commit_does_not_end_the_process": Bug(
        Worker,
        "_work",
        "self._fail_stop(error)",
        "continue",
        SQLITE,
    ),
    "trusts_the_page_cache": Bug(
        SqliteStore,
        "_prepare",
        "self._rewrite_wal()\n            self._empty_wal()",
        "pass",
        SQLITE,
        "a failed sync before a power cut",
    ),
    "a_reader_blocks_serving": Bug(
        SqliteStore,
        "_empty_wal",
        'execute("PRAGMA wal_checkpoint(RESTART)").fetchone()',
        """(busy, _, _) = execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        if busy:
            raise StoreBusyError(self._path)""",
        SQLITE,
        "a kill with a reader",
    ),
    "a_missing_permission_hides_the_database": Bug(
        files,
        "is_there",
        "(FileNotFoundError, NotADirectoryError)",
        "OSError",
        SQLITE,
        "permission lost at each start",
    ),
    "answers_without_the_lock_beside_a_server": Bug(
        Life,
        "stand_by",
        "if servers.another_serves(self._settings):",
        "if False:",
        SQLITE,
        "permission lost at a start",
        also=(Bug(Life, "_open", "if servers.another_serves(self._settings):", "if False:"),),
    ),
    "never_retries_the_store": Bug(
        Service,
        "keep_trying",
        "await asyncio.sleep(RETRY_SECONDS)",
        "await asyncio.sleep(1e4)",
        SQLITE,
    ),
    "the_wal_is_not_reserved": Bug(
        SqliteStore,
        "_prepare",
        "self._reserve_wal()",
        "self._wal_reserve = self._wal_reported = 1",
        SQLITE,
        "a full disk",
    ),
    "a_key_is_not_kept": Bug(
        SqliteStore,
        "_commit_keys",
        'execute("INSERT INTO keys VALUES (?, ?, ?)", row)',
        "pass",
        SQLITE,
        "a kill",
        ("keyed",),
    ),
    "a_key_is_committed_after_its_step": Bug(
        SqliteStore,
        "_commit_keys",
        'execute("BEGIN IMMEDIATE")',
        "pass",
        SQLITE,
        "a kill",
        ("keyed",),
    ),
    "keys_are_lost_at_a_takeover": Bug(
        sqlite_file,
        "read_keys",
        "kept.add(index, dict(MADE.iter_unpack(made)))",
        "pass",
        SQLITE,
        "a kill",
        ("keyed",),
    ),
    "keys_are_dropped_before_the_index_is_set": Bug(
        SqliteStore,
        "_drop_keys",
        """execute("BEGIN IMMEDIATE")
        self._keys, self._dropped = None, index
        execute("DELETE FROM keys")
        self._move(index)
        execute("COMMIT")""",
        """execute("DELETE FROM keys")
        self._keys, self._dropped = None, index
        self._move(index)""",
        SQLITE,
        "killed set-index",
        ("keyed",),
    ),
    "one_key_makes_two_steps_in_a_batch": Bug(
        Stepper,
        "_examine",
        "if key in keys:",
        "if False:",
        SQLITE,
        "a kill",
        ("twins", "crowd"),
    ),
    "a_key_is_not_looked_up": Bug(
        SqliteStore,
        "_check",
        "check(keys, self._keys.made, self._index, self._dropped)",
        "pass",
        SQLITE,
    ),
    "a_dropped_key_counts_as_new": Bug(
        keys, "check", "or not dropped <= key.since <= index", "", SQLITE, "a kill", ("keyed",)
    ),
}
