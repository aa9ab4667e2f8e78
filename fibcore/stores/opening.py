"""Which store is set: the openers by the scheme of ``FIB_STORE``.

A store of another engine is a module beside this one and a line in ``OPENERS``. Its driver is
imported by its own line alone, when that scheme is set.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Final, TypeAlias

from fibcore.problems import DriverMissingError, UrlInvalidError
from fibcore.stores import Opener
from fibcore.stores.engine import EngineOpener
from fibcore.stores.sqlite import Synchronous
from fibcore.stores.sqlite_opener import SqliteOpener
from fibcore.stores.urls import check

Make: TypeAlias = Callable[[str, str, Synchronous, int], Opener]
"""Makes an opener from what ``opener_of`` is given."""


def _sqlite(url: str, sequence: str, synchronous: Synchronous, max_keys: int) -> Opener:  # noqa: ARG001
    return SqliteOpener(Path(url.partition(":")[2]), synchronous, max_keys)


def _engine(module: str, name: str) -> Make:
    """Make the opener of an engine, whose module is imported when it is needed."""

    def make(url: str, sequence: str, synchronous: Synchronous, max_keys: int) -> Opener:  # noqa: ARG001
        engine = getattr(import_module(f"fibcore.stores.{module}"), name)
        return EngineOpener(engine(url, sequence), max_keys)

    return make


POSTGRESQL: Final = _engine("postgresql", "PostgresqlEngine")
REDIS: Final = _engine("redis", "RedisEngine")
ETCD: Final = _engine("etcd", "EtcdEngine")

OPENERS: Final[dict[str, Make]] = {
    "sqlite": _sqlite,
    "postgresql": POSTGRESQL,
    "postgres": POSTGRESQL,
    "redis": REDIS,
    "rediss": REDIS,
    "redis+sentinel": REDIS,
    "etcd": ETCD,
    "etcds": ETCD,
}
"""By scheme. One raises ``ModuleNotFoundError`` when its driver is missing, and ``ValueError`` when
its URL can't be understood."""


EXTRAS: Final = {"postgres": "postgresql", "rediss": "redis", "redis+sentinel": "redis"}
"""The extras that bring the drivers of schemes that are named otherwise."""


def opener_of(url: str, sequence: str, synchronous: Synchronous, max_keys: int) -> Opener:
    """The store that ``url`` names, not open yet.

    Args:
        url: as ``FIB_STORE`` has it; its scheme is one of ``OPENERS``.
        sequence: the name of the sequence, in a store that holds several.
        synchronous: the level of durability of a store that is a file.
        max_keys: of how many keyed steps the last are kept; see ``keys``.

    Raises:
        DriverMissingError: it can't be reached with what is installed.
        UrlInvalidError: its URL can't be understood.
    """
    scheme = url.partition(":")[0]
    try:
        if scheme != "sqlite":
            check(url)
        return OPENERS[scheme](url, sequence, synchronous, max_keys)
    except ModuleNotFoundError as error:
        raise DriverMissingError(EXTRAS.get(scheme, scheme)) from error
    except ValueError as error:
        raise UrlInvalidError(scheme, str(error)) from error
