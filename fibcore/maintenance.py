"""What a person may do to a state besides stepping it: set where it stands, and copy it.

The state is one index, so that to restore it is to set it. Whatever is interrupted leaves a state
that stands where it stood, or where it was to stand, or that is refused until it is done again.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from fibcore.stores import (
    ForeignStateError,
    StateRefusedError,
    StoreUnavailableError,
    statefile,
)
from fibcore.stores.lock import WriterLock, lock_path
from fibcore.stores.mark import Mark, Witnesses
from fibcore.stores.sqlite import SqliteStore

__all__ = [
    "CopyFailedError",
    "InTheWayError",
    "InUseError",
    "LowerError",
    "Moved",
    "backup",
    "set_index",
    "stands_at",
]

SUFFIXES: Final = ("", "-journal", "-shm", "-wal")
"""What SQLite makes of a database's name for its files."""


class InUseError(Exception):
    """A server holds the state. Nothing has been changed."""


class LowerError(Exception):
    """The index asked for is lower than one that was committed. Nothing has been changed."""


class InTheWayError(Exception):
    """There is something at the target that must not be replaced. Nothing has been changed."""


class CopyFailedError(Exception):
    """The copy could not be written. The state is untouched, and so is an older copy."""


class Moved(NamedTuple):
    """What ``set_index`` did."""

    before: int | None
    """Where the state stood, or None when it could not be trusted or there was none."""
    kept: Path | None
    """Where the file that could not be trusted is kept now."""


def stands_at(state: Path) -> int:
    """Return the index of a state that has lost nothing; a server may be stepping it.

    Raises:
        StateRefusedError, StoreUnavailableError: as at the start of a server.
    """
    witnesses = Witnesses.of(state)
    with contextlib.closing(statefile.connect(state, mode="ro")) as connection:
        return witnesses.hear(statefile.verify(connection, state))


def set_index(state: Path, index: int, *, lower: bool = False) -> Moved:
    """Have the state stand at ``index``, durably, whatever has become of it.

    A file that can't be trusted, or one whose steps are lost, is kept under another name.

    Args:
        state: made if there is none; its folder must exist.
        index: from 0 to ``statefile.MAX_INDEX``.
        lower: whether the index may be one that the sequence has passed.

    Raises:
        InUseError, LowerError: nothing has been changed.
        ForeignStateError: the file is whole, but not ours to replace.
        StoreUnavailableError, CommitFailedError, OSError: it may be done; do it again.
    """
    with _alone_with(state):
        witnesses = Witnesses.of(state)
        try:
            before = stands_at(state)
        except ForeignStateError:
            raise
        except StateRefusedError:
            before = None
        known = max(witnesses.largest, before or 0)
        if index < known and not lower:
            raise LowerError(
                f"The state file {state} stood at index {known}: going back to {index} answers "
                f"the indexes between again. Nothing has been changed. If that is meant, add "
                f"--lower."
            )
        _drop_higher_spare(state, index)
        if before is not None:
            kept = None
            with contextlib.closing(SqliteStore(state)) as store:
                store.commit(index)
            _mark_durably(state, index)
        else:
            # First, so that what there is meanwhile is refused if it is missing or stands lower.
            _mark_durably(state, index)
            kept = _set_aside(state)
            statefile.write(state, index)
        # The checkpoint listener may have been making one.
        _drop_higher_spare(state, index)
        return Moved(before, kept)


def backup(state: Path, target: Path) -> int:
    """Copy the state to ``target``, verified and durable; a server may be stepping it.

    Args:
        state: the state file.
        target: not there, or an older copy, which is replaced in one step or not at all.

    Returns:
        The index of the copy.

    Raises:
        InTheWayError: nothing has been changed.
        StateRefusedError, StoreUnavailableError, CopyFailedError: ``target`` is as it was.
    """
    own = [*(state.name + suffix for suffix in SUFFIXES), lock_path(state).name]
    own += [statefile.mark_path(state).name, statefile.spare_path(state).name]
    if target.name in own and target.parent.resolve() == state.parent.resolve():
        raise InTheWayError(f"{target} is one of the state's own files. Name another one.")
    if os.path.lexists(target):
        try:
            statefile.verify_file(target)
        except StateRefusedError as error:
            raise InTheWayError(
                f"{target} is no copy of a state, so it is not replaced. The state is as it was. "
                f"Move it away, or name another file. In particular: {error}"
            ) from error
    stands_at(state)
    with contextlib.closing(statefile.connect(state, mode="ro")) as connection:
        try:
            return statefile.copy(connection, state, target)
        except (StateRefusedError, StoreUnavailableError) as error:
            raise CopyFailedError(
                f"{target} is not written: {error.__cause__ or error}. The state is untouched, "
                f"and so is an older copy. Free disk space there, or name another file."
            ) from error


@contextlib.contextmanager
def _alone_with(state: Path) -> Iterator[None]:
    with _as_owner_of(state.parent):
        lock = WriterLock(state)
        try:
            if not lock.acquire(wait=False):
                raise InUseError(
                    f"The state file {state} is in use by process {lock.holder()}. Nothing has "
                    f"been changed. Stop the server and its standby first: supervisorctl -c "
                    f"supervisord.conf stop web:*"
                )
            yield
        finally:
            lock.release()


@contextlib.contextmanager
def _as_owner_of(folder: Path) -> Iterator[None]:
    """Make files, if we are root, as the folder's owner, who could not use root's."""
    owner = folder.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        yield
        return
    group = os.getegid()
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)


def _mark_durably(state: Path, index: int) -> None:
    with contextlib.closing(Mark(state, "full", index)) as mark:
        mark.sync()


def _drop_higher_spare(state: Path, index: int) -> None:
    """Remove a spare copy that would speak against ``index``."""
    spare = Witnesses.of(state).spare
    if spare is not None and spare > index:
        statefile.spare_path(state).unlink(missing_ok=True)
        statefile.sync(state.parent)


def _set_aside(state: Path) -> Path | None:
    """Give the state, and what SQLite keeps beside it, another name; return that."""
    number = 1
    while any(os.path.lexists(f"{state}.refused-{number}{suffix}") for suffix in SUFFIXES):
        number += 1
    aside = state.with_name(f"{state.name}.refused-{number}")
    kept = None
    # The state first: what is left without it is refused, and a state without its log is not.
    for suffix in SUFFIXES:
        part = state.with_name(state.name + suffix)
        if os.path.lexists(part):
            kept = aside
            part.rename(aside.with_name(aside.name + suffix))
    return kept
