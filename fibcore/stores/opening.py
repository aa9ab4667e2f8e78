"""Which store is set: the openers by the scheme of ``FIB_STORE``.

A store of another engine is a module beside this one and a line in ``OPENERS``. Its driver is
imported by its own line alone, when that scheme is set.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fibcore.problems import DriverMissingError, UrlInvalidError
from fibcore.stores import Opener, Store
from fibcore.stores.engine import EngineOpener
from fibcore.stores.sqlite import SqliteOpener
from fibcore.stores.urls import check

if TYPE_CHECKING:
    from fibcore.settings import Settings

__all__ = [
    "OPENERS",
    "open_store",
    "opener_of",
]


def _sqlite(settings: Settings) -> Opener:
    return SqliteOpener(Path(settings.store.partition(":")[2]), settings.synchronous)


def _postgresql(settings: Settings) -> Opener:
    from fibcore.stores.postgresql import PostgresqlEngine

    return EngineOpener(PostgresqlEngine(settings.store, settings.sequence))


def _redis(settings: Settings) -> Opener:
    from fibcore.stores.redis import RedisEngine

    return EngineOpener(RedisEngine(settings.store, settings.sequence))


def _etcd(settings: Settings) -> Opener:
    from fibcore.stores.etcd import EtcdEngine

    return EngineOpener(EtcdEngine(settings.store, settings.sequence))


OPENERS: Final[dict[str, Callable[[Settings], Opener]]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "postgres": _postgresql,
    "redis": _redis,
    "rediss": _redis,
    "redis+sentinel": _redis,
    "etcd": _etcd,
    "etcds": _etcd,
}
"""By scheme. One raises ``ModuleNotFoundError`` when its driver is missing, and ``ValueError`` when
its URL can't be understood."""


EXTRAS: Final = {"postgres": "postgresql", "rediss": "redis", "redis+sentinel": "redis"}
"""The extras that bring the drivers of schemes that are named otherwise."""


def opener_of(settings: Settings) -> Opener:
    """The store that ``settings.store`` names, not open yet; its scheme is one of ``OPENERS``.

    Raises:
        DriverMissingError: it can't be reached with what is installed.
        UrlInvalidError: its URL can't be understood.
    """
    scheme = settings.store.partition(":")[0]
    try:
        if settings.database is None:
            check(settings.store)
        return OPENERS[scheme](settings)
    except ModuleNotFoundError as error:
        raise DriverMissingError(EXTRAS.get(scheme, scheme)) from error
    except ValueError as error:
        raise UrlInvalidError(scheme, str(error)) from error


def open_store(settings: Settings, report: Callable[[int | None], None] = lambda _: None) -> Store:
    """Open the store that is set, once this process may; ``report`` as for ``Opener.stand_by``.

    Raises:
        StoreSettingError, DatabaseInvalidError, StoreUnavailableError: as ``Opener`` does.
    """
    opener = opener_of(settings)
    opener.stand_by(report)
    return opener.open()
