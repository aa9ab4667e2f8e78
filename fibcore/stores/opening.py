"""Which store is set: the openers by the scheme of ``FIB_STORE``.

A store of another engine is a module beside this one and a line in ``OPENERS``. Its driver is
imported by its own line alone, when that scheme is set.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fibcore.stores import Opener, Store
from fibcore.stores.sqlite import SqliteOpener

if TYPE_CHECKING:
    from fibcore.settings import Settings

__all__ = ["OPENERS", "DriverMissingError", "open_store", "opener_of"]


class DriverMissingError(Exception):
    """What a store is reached with is not installed.

    Args:
        scheme: the store's, which is also the name of the extra that brings the driver.
    """

    def __init__(self, scheme: str) -> None:
        super().__init__(f"the driver of {scheme}: is not installed")
        self.scheme = scheme


def _sqlite(settings: Settings) -> Opener:
    return SqliteOpener(Path(settings.store.partition(":")[2]), settings.synchronous)


OPENERS: Final[dict[str, Callable[[Settings], Opener]]] = {"sqlite": _sqlite}
"""By scheme. One raises ``ModuleNotFoundError`` when its driver is missing."""


def opener_of(settings: Settings) -> Opener:
    """The store that ``settings.store`` names, not open yet; its scheme is one of ``OPENERS``.

    Raises:
        DriverMissingError: it can't be reached with what is installed.
    """
    scheme = settings.store.partition(":")[0]
    try:
        return OPENERS[scheme](settings)
    except ModuleNotFoundError as error:
        raise DriverMissingError(scheme) from error


def open_store(settings: Settings, report: Callable[[int | None], None] = lambda _: None) -> Store:
    """Open the store that is set, once this process may; ``report`` as for ``Opener.stand_by``.

    Raises:
        DriverMissingError, DatabaseInvalidError, StoreUnavailableError: as ``Opener`` does.
    """
    opener = opener_of(settings)
    opener.stand_by(report)
    return opener.open()
