"""The server with one of its protections taken away, for the controls.

A test that passes proves little until it has failed: each fault is also tried on a server that is
like ours but for the protection that should help, and must then do its harm.

    python unprotected.py answers_before_the_commit
"""

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Final

from fibcore.stepper import Stepper
from fibcore.stores import CommitFailedError, sqlite, statefile
from fibcore.stores.lock import WriterLock
from fibcore.stores.mark import Mark
from fibcore.stores.sqlite import SqliteStore
from web import server

__all__ = ["WITHOUT", "without"]


def answers_before_the_commit() -> None:
    """A step is answered, and committed a little later."""

    def commit_all(self: Stepper) -> None:
        while (index := self._indexes.get()) is not None:
            self._loop.call_soon_threadsafe(self._answer)
            time.sleep(0.02)
            self._store.commit(index)

    Stepper._commit_all = commit_all  # type: ignore[method-assign]


def answers_after_a_failed_commit() -> None:
    """An error of the disk is nobody's business."""
    commit = SqliteStore.commit

    def commit_or_not(self: SqliteStore, index: int) -> None:
        with contextlib.suppress(CommitFailedError):
            commit(self, index)

    SqliteStore.commit = commit_or_not  # type: ignore[method-assign]


def trusts_the_page_cache() -> None:
    """What an earlier life has left in the log is served as it is read."""

    def prepare(self: SqliteStore, synchronous: str, index: int) -> None:  # noqa: ARG001
        self._mark = Mark(self._path, synchronous, self._index)

    SqliteStore._prepare = prepare  # type: ignore[method-assign]


def reserves_no_log() -> None:
    """The log takes its space from the disk as it grows."""

    def reserve_log(self: SqliteStore) -> None:
        pass

    SqliteStore._reserve_log = reserve_log  # type: ignore[method-assign]


def takes_no_lock() -> None:
    """Every server serves at once, and none looks whether another has written to the state."""

    def acquire(self: WriterLock, *, wait: bool) -> bool:  # noqa: ARG001
        return True

    def commit(self: SqliteStore, index: int) -> None:
        self._connection.execute(
            "UPDATE sequence SET n = ?, digest = ?", (index, statefile.index_digest(index))
        )

    WriterLock.acquire = acquire  # type: ignore[method-assign]
    SqliteStore.commit = commit  # type: ignore[method-assign]


def outlives_supervisord() -> None:
    """It runs on when supervisord has been killed."""
    server._end_with_supervisord = lambda: None


def moves_its_log_often() -> None:
    """Nothing is taken away: every few commits end with what else happens at one in a thousand."""
    sqlite.LOG_PAGES = 3  # type: ignore[misc]


WITHOUT: Final[dict[str, Callable[[], None]]] = {
    each.__name__: each
    for each in (
        answers_before_the_commit,
        answers_after_a_failed_commit,
        trusts_the_page_cache,
        reserves_no_log,
        takes_no_lock,
        outlives_supervisord,
        moves_its_log_often,
    )
}


def without(protection: Callable[[], None]) -> list[str]:
    """The command that runs the server so."""
    return [sys.executable, __file__, protection.__name__]


if __name__ == "__main__":
    WITHOUT[sys.argv[1]]()
    server.main()
