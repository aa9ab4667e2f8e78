"""The openers, by the scheme of ``FIB_STORE``.

A store in another engine is a module beside this one and a line in ``OPENERS``. Its driver is
imported only when its scheme is configured.
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
"""Makes an opener from the arguments of ``opener_of``."""


def _sqlite(url: str, sequence: str, synchronous: Synchronous, max_keys: int) -> Opener:  # noqa: ARG001
    return SqliteOpener(Path(url.partition(":")[2]), synchronous, max_keys)


def _engine(module: str, name: str) -> Make:
    """The opener of an engine, whose module is imported when needed."""

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
"""By scheme. Each raises ``ModuleNotFoundError`` if its driver is missing, and ``ValueError`` if
the URL is malformed."""


EXTRAS: Final = {"postgres": "postgresql", "rediss": "redis", "redis+sentinel": "redis"}
"""The extras with the drivers of schemes that have another name."""


def opener_of(url: str, sequence: str, synchronous: Synchronous, max_keys: int) -> Opener:
    """The opener of the store at ``url``.

    Args:
        url: per ``FIB_STORE``; its scheme is one of ``OPENERS``.
        sequence: the name of the sequence, in a store that holds several.
        synchronous: the level of durability of a store that is a file.
        max_keys: of how many keyed steps the last are kept; see ``keys``.

    Raises:
        DriverMissingError: its driver is not installed.
        UrlInvalidError: its URL is malformed.
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
