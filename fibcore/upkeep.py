"""What a person may do to a sequence wherever it lives: a file, or an engine that nodes share.

Of a file it is ``maintenance`` that does it. In an engine it is a transaction, beside nodes that
serve: one that finds the sequence higher goes on from there, and one that finds it lower ends.
"""

import contextlib
from pathlib import Path
from typing import TypeAlias

from fibcore import maintenance, problems
from fibcore.maintenance import Moved
from fibcore.problems import LowerError, SequenceMissingError, SteppedMeanwhileError
from fibcore.settings import Settings
from fibcore.stores import Weakness, sqlite_file
from fibcore.stores.engine import EngineOpener
from fibcore.stores.opening import opener_of

__all__ = [
    "Place",
    "backup",
    "copy",
    "create",
    "look",
    "place_of",
    "restore",
    "set_index",
    "where",
]

Place: TypeAlias = Path | EngineOpener
"""Where a sequence is: a file's path, or a way to an engine."""


def place_of(settings: Settings) -> Place:
    """Where the sequence of ``settings`` is.

    Raises:
        StoreSettingError: it can't be reached as it is set.
    """
    if settings.database is not None:
        return settings.database
    opener = opener_of(settings)
    assert isinstance(opener, EngineOpener)
    return opener


def where(place: Place) -> str:
    """What messages call it."""
    return str(place) if isinstance(place, Path) else place.where


def look(place: Place) -> tuple[int, tuple[Weakness, ...]]:
    """Return where the sequence stands, and what its engine may lose.

    Raises:
        DatabaseInvalidError, StoreUnavailableError: as at the start of a server.
    """
    if isinstance(place, Path):
        return maintenance.stands_at(place), ()
    with contextlib.closing(place.open()) as store:
        return store.read(), store.weaknesses


def create(place: Place, index: int = 0) -> int | None:
    """Make the sequence at ``index``; return None, or where it stands if it is there already.

    Raises:
        DatabaseMissingError: a file is not there, and what is left beside it shows that it was.
        StoreUnavailableError, DatabaseInvalidError, OSError: it may have been made; do it again.
    """
    if not isinstance(place, Path):
        return place.engine.create(index)
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        return maintenance.stands_at(place)
    with maintenance.alone_with(place):
        sqlite_file.create(place, index)
    return None


def set_index(place: Place, index: int, *, lower: bool = False) -> Moved:
    """Have the sequence stand at ``index``; it is made if there is none.

    Raises:
        LowerError: nothing has been changed.
        Exception: as ``maintenance.set_index``.
    """
    if isinstance(place, Path):
        return maintenance.set_index(place, index, lower=lower)
    try:
        before = place.engine.place(index, lower=lower)
    except SequenceMissingError:
        there = place.engine.create(index)
        if there is None:
            return Moved(None, None)
        before = place.engine.place(index, lower=lower)
    if before > index and not lower:
        raise LowerError(place.where, index, before)
    return Moved(before, None)


def backup(place: Place, target: Path) -> int:
    """Write a copy to ``target``, a file; return its index.

    Raises:
        Exception: as ``maintenance.backup``.
    """
    if isinstance(place, Path):
        return maintenance.backup(place, target)
    maintenance.check_target(target)
    index, _ = look(place)
    try:
        sqlite_file.write(target, index)
    except Exception as error:
        raise problems.CopyFailedError(target, str(error)) from error
    return index


def restore(place: Place, file: Path, *, lower: bool = False) -> tuple[int, Moved]:
    """Have the sequence stand where the copy ``file`` does; return that, and as ``set_index``.

    Raises:
        CopyInvalidError: nothing has been changed.
        Exception: as ``set_index``.
    """
    index = maintenance.index_of_copy(file)
    return index, set_index(place, index, lower=lower)


def copy(source: Place, target: Place) -> tuple[int, Moved]:
    """Have ``target`` stand where ``source`` does; return that, and as ``set_index``.

    Raises:
        InUseError: a file is served. Nothing has been changed.
        LowerError: ``target`` stands higher. Nothing has been changed.
        SteppedMeanwhileError: nodes step the source. Stop them, and do it again.
        Exception: as ``look`` of the source and ``set_index`` of the target.
    """
    with contextlib.ExitStack() as alone:
        if isinstance(source, Path):
            alone.enter_context(maintenance.alone_with(source))
        index, _ = look(source)
        moved = set_index(target, index)
        if look(source)[0] != index:
            raise SteppedMeanwhileError(where(source), where(target))
        return index, moved
