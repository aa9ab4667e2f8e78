"""Finds the current primary: Redis Sentinel is asked before each new connection.

    redis+sentinel://USER:PASSWORD@HOST:26379,HOST:26379/PRIMARY/NUMBER

The hosts are the Sentinels', which are asked without a password; everything else is the primary's.
Their replies may be outdated, so the server itself is asked for its role after connecting.
"""

import contextlib
from typing import Final

from redis.exceptions import RedisError, ResponseError

from fibcore.problems import EngineUnavailableError
from fibcore.stores.redis_connection import Connection, pairs
from fibcore.stores.urls import parse

SENTINEL: Final = "redis+sentinel"
"""The scheme."""

PORT: Final = 26379
ASK_SECONDS: Final = 1.0
"""Time after which the next Sentinel is tried."""


class Sentinels:
    """The Sentinels of ``url``, whose form is given above.

    Raises:
        ValueError: the URL is malformed.
    """

    def __init__(self, url: str) -> None:
        parts = parse(url)
        self._user = parts.user
        self._primary, _, number = parts.path.removeprefix("/").partition("/")
        self._rest = f"/{number}?{'&'.join(map('='.join, parts.options))}"
        if not self._primary:
            raise ValueError("it does not contain the name by which the Sentinels know the primary")
        self.members = parts.members(PORT)

    def primary(self, where: str) -> str:
        """The address and port of the primary.

        Args:
            where: the URL without a password.

        Raises:
            EngineUnavailableError: no Sentinel names one.
        """
        for member in self.members:
            try:
                connection = Connection(f"redis://{_address(*member)}", "fibcore", ASK_SECONDS)
                with contextlib.closing(connection):
                    (known,) = connection.ask(("SENTINEL", "MASTERS"))
                for each in () if isinstance(known, ResponseError) else map(pairs, known):
                    flags = set(each["flags"].split(","))
                    if each["name"] == self._primary and not flags & {"s_down", "o_down"}:
                        return _address(each["ip"], int(each["port"]))
            except (RedisError, KeyError, TypeError, ValueError, AttributeError):
                # Unreachable, or not a Sentinel.
                continue
        asked = ", ".join(_address(*each) for each in self.members)
        raise EngineUnavailableError(
            where, f"none of the Sentinels {asked} knows a primary named {self._primary!r}"
        )

    def url(self, server: str) -> str:
        """The URL of the server at an address and port."""
        return f"redis://{self._user}{server}{self._rest}"


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
