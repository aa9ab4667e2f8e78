"""A connection to Redis or Valkey: how it is made, and its timeouts.

``redis`` has the commands.
"""

import contextlib
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from fibcore.stores.deadline import BoundedSocket, Deadline, has_input

CONNECT_SECONDS: Final = 2.0
REPLY_SECONDS: Final = 3.0
"""Time without a reply after which the server counts as gone."""

OPTIONS: Final = ("db", "password", "socket_keepalive", "username")
TLS_OPTIONS: Final = (
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_keyfile",
    "ssl_password",
)
"""The options that a URL may set. redis-py has more, which would change the type of replies or
remove their time limit."""

Command = tuple[str | int, ...]


def check_url(url: str) -> None:
    """Check that a connection can be made from ``url``.

    Raises:
        ValueError: it can't; the message may quote parts of the URL.
    """
    parts = urlsplit(url)
    given = set(parse_qs(parts.query, keep_blank_values=True))
    if unknown := given - {*OPTIONS, *TLS_OPTIONS}:
        taken = ", ".join((*OPTIONS, *TLS_OPTIONS))
        raise ValueError(f"its options may be {taken}; it has {', '.join(sorted(unknown))}")
    if parts.scheme != "rediss" and given & set(TLS_OPTIONS):
        raise ValueError("it names certificates, which only rediss:// uses")
    try:
        _pool(url).make_connection()
    except (RedisError, TypeError) as error:
        raise ValueError(str(error)) from error


def _pool(url: str, **settings: Any) -> Any:
    # Untyped: redis-py's types are those of all its clients at once.
    return redis.ConnectionPool.from_url(
        url,
        protocol=2,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=REPLY_SECONDS,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        **settings,
    )


class Connection:
    """One connection, on which every reply has a time limit.

    Args:
        url: accepted by ``check_url``.
        name: of the connection, shown by ``CLIENT LIST``.
        seconds: time limit for connecting and for each request.

    Raises:
        redis.exceptions.RedisError: can't connect.
    """

    def __init__(self, url: str, name: str, seconds: float | None = None) -> None:
        self._deadline = Deadline()
        self._seconds = REPLY_SECONDS if seconds is None else seconds
        self._connection = _pool(url, client_name=name).make_connection()
        connect = self._connection._connect
        self._connection._connect = lambda: BoundedSocket(connect(), self._deadline)
        with self.in_one():
            self._connection.connect()

    def in_one(self) -> contextlib.AbstractContextManager[None]:
        return self._deadline.within(self._seconds)

    def ask(self, *commands: Command) -> list[Any]:
        """Send commands together; return the replies, some of which may be ``ResponseError``.

        Raises:
            redis.exceptions.RedisError: a reply is missing, and the connection is unusable.
        """
        return self.ask_packed(self.packed(*commands), len(commands))

    def packed(self, *commands: Command) -> bytes:
        """Commands in wire format: for repeated commands, packing is half of the cost."""
        return b"".join(self._connection.pack_commands(commands))

    def ask_packed(self, commands: bytes, count: int) -> list[Any]:
        """As ``ask``, for ``count`` packed commands."""
        with self.in_one():
            self._connection.send_packed_command([commands], check_health=False)
            return [self._reply() for _ in range(count)]

    def _reply(self) -> Any:
        try:
            return self._connection.read_response()
        except ResponseError as error:
            return error

    def has_input(self) -> bool:
        sock = self._connection._sock
        return sock is None or has_input(sock.fileno())

    def close(self) -> None:
        self._connection.disconnect()


def pairs(flat: Sequence[bytes]) -> dict[str, str]:
    """The names and values of a flat list in which they alternate."""
    texts = [each.decode("utf-8", "replace") for each in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))
