"""Which store is set: the openers by the scheme of ``FIB_STORE``.

A store of another engine is a module beside this one and a line in ``OPENERS``. Its driver is
imported by its own line alone, when that scheme is set.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from fibcore.problems import DriverMissingError, UrlInvalidError
from fibcore.stores import Opener
from fibcore.stores.engine import EngineOpener
from fibcore.stores.sqlite import Synchronous
from fibcore.stores.sqlite_opener import SqliteOpener
from fibcore.stores.urls import check

Make: TypeAlias = Callable[[str, str, Synchronous], Opener]
"""Makes the opener of a URL, a sequence's name, and a level of durability."""


def _sqlite(url: str, sequence: str, synchronous: Synchronous) -> Opener:  # noqa: ARG001
    return SqliteOpener(Path(url.partition(":")[2]), synchronous)


def _postgresql(url: str, sequence: str, synchronous: Synchronous) -> Opener:  # noqa: ARG001
    from fibcore.stores.postgresql import PostgresqlEngine

    return EngineOpener(PostgresqlEngine(url, sequence))


def _redis(url: str, sequence: str, synchronous: Synchronous) -> Opener:  # noqa: ARG001
    from fibcore.stores.redis import RedisEngine

    return EngineOpener(RedisEngine(url, sequence))


def _etcd(url: str, sequence: str, synchronous: Synchronous) -> Opener:  # noqa: ARG001
    from fibcore.stores.etcd import EtcdEngine

    return EngineOpener(EtcdEngine(url, sequence))


OPENERS: Final[dict[str, Make]] = {
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


def opener_of(url: str, sequence: str, synchronous: Synchronous) -> Opener:
    """The store that ``url`` names, not open yet.

    Args:
        url: as ``FIB_STORE`` has it; its scheme is one of ``OPENERS``.
        sequence: the name of the sequence, in a store that holds several.
        synchronous: the level of durability of a store that is a file.

    Raises:
        DriverMissingError: it can't be reached with what is installed.
        UrlInvalidError: its URL can't be understood.
    """
    scheme = url.partition(":")[0]
    try:
        if scheme != "sqlite":
            check(url)
        return OPENERS[scheme](url, sequence, synchronous)
    except ModuleNotFoundError as error:
        raise DriverMissingError(EXTRAS.get(scheme, scheme)) from error
    except ValueError as error:
        raise UrlInvalidError(scheme, str(error)) from error
