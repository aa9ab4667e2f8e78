"""The openers, by the scheme of ``FIB_STORE``.

A store in another engine is a module beside this one and a line in ``ENGINES``. The module, and
with it the driver, is imported only when its scheme is configured.
"""

from importlib import import_module
from pathlib import Path
from typing import Final

from fibcore.problems import DriverMissingError, UrlInvalidError
from fibcore.stores import Opener
from fibcore.stores.sqlite import Synchronous
from fibcore.stores.sqlite_opener import SqliteOpener
from fibcore.stores.urls import parse

ENGINES: Final = {
    "postgresql": ("postgresql", "PostgresqlOpener"),
    "postgres": ("postgresql", "PostgresqlOpener"),
    "redis": ("redis", "RedisOpener"),
    "rediss": ("redis", "RedisOpener"),
    "redis+sentinel": ("redis", "RedisOpener"),
    "etcd": ("etcd", "EtcdOpener"),
    "etcds": ("etcd", "EtcdOpener"),
}
"""By scheme: the module, which has the name of the extra with its driver, and its opener."""

SCHEMES: Final = ("sqlite", *ENGINES)


def opener_of(url: str, sequence: str, synchronous: Synchronous, max_keys: int) -> Opener:
    """The opener of the store at ``url``.

    Args:
        url: per ``FIB_STORE``; its scheme is one of ``SCHEMES``.
        sequence: the name of the sequence, in a store that holds several.
        synchronous: the level of durability of a store that is a file.
        max_keys: number of latest keyed steps whose keys are kept; see ``keys``.

    Raises:
        DriverMissingError: its driver is not installed.
        UrlInvalidError: its URL is malformed.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite":
        return SqliteOpener(Path(rest), synchronous, max_keys)
    module, name = ENGINES[scheme]
    try:
        parse(url)
        kind = getattr(import_module(f"fibcore.stores.{module}"), name)
        opener: Opener = kind(url, sequence, max_keys)
    except ModuleNotFoundError as error:
        raise DriverMissingError(module) from error
    except ValueError as error:
        raise UrlInvalidError(scheme, str(error)) from error
    return opener
