"""What a person may do to a state besides stepping it: set where it stands, and copy it.

The state is one index, so that to restore it is to set it. Whatever is interrupted leaves a state
that stands where it stood, or where it was to stand, or that is refused until it is done again.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fibcore.stores import (
    ForeignStateError,
    StateRefusedError,
    StoreNotThereError,
    StoreUnavailableError,
    files,
    statefile,
)
from fibcore.stores.lock import WriterLock, server_of
from fibcore.stores.mark import Mark, Note, Witnesses, read, witnessed
from fibcore.stores.sqlite import SqliteStore

__all__ = [
    "CopyFailedError",
    "CopyInvalidError",
    "Description",
    "InTheWayError",
    "InUseError",
    "LowerError",
    "Moved",
    "NoFolderError",
    "OwnFileError",
    "SpareDamagedError",
    "backup",
    "describe",
    "restore",
    "set_index",
    "stands_at",
]


class InUseError(Exception):
    """A server holds the state. Nothing has been changed."""

    def __init__(self, where: Path, pid: int | None) -> None:
        super().__init__(f"{where}: in use by process {pid}")
        self.where = where
        self.pid = pid


class LowerError(Exception):
    """The index asked for is lower than one that was committed. Nothing has been changed."""

    def __init__(self, where: Path, index: int, known: int) -> None:
        super().__init__(f"{where}: {index} is lower than {known}")
        self.where = where
        self.index = index
        self.known = known


class InTheWayError(Exception):
    """There is something at the target that must not be replaced. Nothing has been changed."""

    def __init__(self, target: Path, finding: str) -> None:
        super().__init__(f"{target}: {finding}")
        self.target = target
        self.finding = finding


class OwnFileError(InTheWayError):
    """The target is one of the files of the state itself."""


class CopyInvalidError(Exception):
    """What is to be restored is not a good copy of a state, or not there. Nothing has changed."""

    def __init__(self, target: Path, finding: str) -> None:
        super().__init__(f"{target}: {finding}")
        self.target = target
        self.finding = finding


class SpareDamagedError(Exception):
    """The backup copy beside a good state is damaged. Nothing has been changed."""

    def __init__(self, error: StateRefusedError) -> None:
        super().__init__(str(error))
        self.where = error.where
        self.finding = error.finding


class CopyFailedError(Exception):
    """The copy could not be written. The state is untouched, and so is an older copy."""

    def __init__(self, target: Path, cause: str) -> None:
        super().__init__(f"{target}: {cause}")
        self.target = target
        self.cause = cause


class NoFolderError(CopyFailedError):
    """The copy is to be written into a folder that is not there."""


@dataclass(frozen=True)
class Description:
    """What is known of a state, all of it read at one time; a server may be stepping it."""

    state: Path
    index: int
    """Where it stands; 0 where that can't be told."""
    trouble: StateRefusedError | None
    """Why it is not served from, if it is not."""
    server: int | None
    """The process that serves it now."""
    mark: Note | None
    """What its high-water mark says."""
    spare: int | StateRefusedError | StoreUnavailableError | None
    """The index of its backup copy, what is wrong with that, or None where there is none."""


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
    with witnessed(state):
        witnesses = Witnesses.of(state)
        try:
            connection = statefile.connect(state, mode="ro")
        except StoreNotThereError:
            statefile.refuse_remains(state)
            raise
        with contextlib.closing(connection):
            return witnesses.hear(statefile.verify(connection, state))


def describe(state: Path) -> Description:
    """Say all that is known of the state at ``state``; trouble with it is part of that.

    Raises:
        StoreUnavailableError: it can't be read now.
    """
    # Before the state, which may stand higher: a server may be stepping.
    note = read(state)
    spare: int | StateRefusedError | StoreUnavailableError | None
    try:
        spare = statefile.verify_file(files.spare_path(state))
    except StoreNotThereError:
        spare = None
    except (StateRefusedError, StoreUnavailableError) as error:
        spare = error
    index, trouble = 0, None
    try:
        index = stands_at(state)
    except StateRefusedError as error:
        trouble = error
    try:
        server = server_of(state)
    except OSError as error:
        raise StoreUnavailableError(files.lock_path(state), str(error)) from error
    return Description(state, index, trouble, server, note, spare)


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
            raise LowerError(state, index, known)
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
    own = {each.name for each in files.own_files(state)}
    if target.name in own and target.parent.resolve() == state.parent.resolve():
        raise OwnFileError(target, "it is the state's own")
    if not target.parent.is_dir():
        raise NoFolderError(target, f"there is no folder {target.parent}")
    if os.path.lexists(target):
        try:
            statefile.verify_file(target)
        except StateRefusedError as error:
            raise InTheWayError(target, error.finding) from error
    stands_at(state)
    with contextlib.closing(statefile.connect(state, mode="ro")) as connection:
        try:
            return statefile.copy(connection, state, target)
        except (StateRefusedError, StoreUnavailableError) as error:
            raise CopyFailedError(target, str(error.__cause__ or error)) from error


def restore(state: Path, copy: Path, *, lower: bool = False) -> tuple[int, Moved]:
    """Have the state stand where ``copy`` does; return that index, and as ``set_index``.

    Args:
        state: as for ``set_index``.
        copy: a backup, or the backup copy beside the state.
        lower: as for ``set_index``.

    Raises:
        CopyInvalidError: nothing has been changed.
        Exception: as ``set_index``.
    """
    try:
        index = statefile.verify_file(copy)
    except StateRefusedError as error:
        raise CopyInvalidError(copy, error.finding) from error
    return index, set_index(state, index, lower=lower)


@contextlib.contextmanager
def _alone_with(state: Path) -> Iterator[None]:
    with _as_owner_of(state.parent):
        lock = WriterLock(state)
        try:
            if not lock.acquire(wait=False):
                raise InUseError(state, lock.holder())
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
    with contextlib.closing(Mark(state, "full", index, lower=True)) as mark:
        mark.sync()


def _drop_higher_spare(state: Path, index: int) -> None:
    """Remove a spare copy that would speak against ``index``."""
    spare = Witnesses.of(state).spare
    if spare is not None and spare > index:
        files.spare_path(state).unlink(missing_ok=True)
        statefile.sync(state.parent)


def _set_aside(state: Path) -> Path | None:
    """Give the state, and what SQLite keeps beside it, another name; return that."""
    aside = files.aside_path(state)
    kept = None
    # The state first: what is left without it is refused, and a state without its log is not.
    for suffix in files.SQLITE_SUFFIXES:
        part = state.with_name(state.name + suffix)
        if os.path.lexists(part):
            kept = aside
            part.rename(aside.with_name(aside.name + suffix))
    return kept
