"""Which Redis is the primary now: Redis Sentinel is asked, at each connection that is made.

    redis+sentinel://USER:PASSWORD@HOST:26379,HOST:26379/PRIMARY/NUMBER

The hosts are the Sentinels', which are asked without a password; all else is the primary's. What
they say may be old, so that whoever connects asks the server itself what it is.
"""

from typing import Any, Final

from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from fibcore.stores import EngineUnavailableError
from fibcore.stores.urls import member_of, split

__all__ = ["SENTINEL", "Sentinels"]

SENTINEL: Final = "redis+sentinel"
"""The scheme."""

PORT: Final = 26379
ASK_SECONDS: Final = 1.0
"""After which a Sentinel is left for the next one."""


class Sentinels:
    """Those of ``url``, which has the form that is given above.

    Raises:
        ValueError: it has not.
    """

    def __init__(self, url: str) -> None:
        asked, parts = split(url)
        self._user, at, hosts = asked.rpartition("@")
        self._user += at
        self._primary, _, number = parts.path.removeprefix("/").partition("/")
        self._rest = f"/{number}?{parts.query}"
        if not self._primary:
            raise ValueError("it does not say by which name the Sentinels know the primary")
        # It has no types.
        make: Any = Sentinel
        self._sentinels = make(
            [member_of(each, PORT) for each in hosts.split(",")],
            sentinel_kwargs={
                "socket_connect_timeout": ASK_SECONDS,
                "socket_timeout": ASK_SECONDS,
                "retry": Retry(NoBackoff(), 0),
            },
        )

    def primary(self, where: str) -> str:
        """The address and port of the primary.

        Args:
            where: the URL without a password.

        Raises:
            EngineUnavailableError: no Sentinel names one.
        """
        try:
            address, port = self._sentinels.discover_master(self._primary)
        except RedisError as error:
            raise EngineUnavailableError(where, str(error)) from error
        return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

    def url(self, server: str) -> str:
        """That of the server at an address and port."""
        return f"redis://{self._user}{server}{self._rest}"
