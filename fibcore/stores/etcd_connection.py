"""A connection to one member of etcd: JSON over HTTP, with time limits.

``etcd`` has the requests.
"""

import contextlib
import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fibcore.problems import EngineUnavailableError, NoRightError
from fibcore.stores.deadline import BoundedSocket, Deadline, has_input
from fibcore.stores.link import ReplyLostError

REPLY_SECONDS: Final = 1.5
"""Time after which the next member is tried. An election takes one or two seconds."""

NO_RIGHT: Final = 7
REFUSED: Final = {8}
"""gRPC's codes of requests that are certainly not applied: no space left, or too many requests."""

NOT_ETCDS: Final = "its reply is not that of an etcd server"


class Connection:
    """A connection, made at the first request.

    Args:
        where: the store's URL without a password.
        member: host and port.
        context: the TLS context; None without TLS.
    """

    def __init__(self, where: str, member: tuple[str, int], context: ssl.SSLContext | None) -> None:
        self._where = where
        self._deadline = Deadline()
        self._connection = (
            http.client.HTTPConnection(*member)
            if context is None
            else http.client.HTTPSConnection(*member, context=context)
        )
        self.headers = {"Content-Type": "application/json"}
        """Headers of each request."""

    def in_one(self) -> contextlib.AbstractContextManager[None]:
        return self._deadline.within(REPLY_SECONDS)

    def exchange(
        self, method: str, path: str, question: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Send one request; return its reply.

        Raises:
            ReplyLostError, EngineUnavailableError, DatabaseInvalidError: see ``Link``.
        """
        body = None if question is None else json.dumps(question).encode()
        try:
            with self.in_one():
                if self._connection.sock is None:
                    self._connect()
                self._connection.request(method, path, body, self.headers)
                response = self._connection.getresponse()
                text = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ReplyLostError(str(error) or type(error).__name__) from error
        with as_etcd_answers():
            reply = json.loads(text)
            reason, code = reply.get("message") or reply.get("error"), reply.get("code")
        if response.status == http.HTTPStatus.OK:
            return dict(reply)
        if code == NO_RIGHT:
            raise NoRightError(self._where, str(reason))
        if code in REFUSED:
            raise EngineUnavailableError(self._where, str(reason))
        raise ReplyLostError(str(reason or NOT_ETCDS))

    def _connect(self) -> None:
        self._connection.timeout = self._deadline.left()
        self._connection.connect()
        self._connection.sock = BoundedSocket(self._connection.sock, self._deadline)

    def has_input(self) -> bool:
        sock = self._connection.sock
        return sock is None or has_input(sock.fileno())

    def close(self) -> None:
        self._connection.close()


@contextlib.contextmanager
def as_etcd_answers() -> Iterator[None]:
    """Treat a reply with missing or mistyped parts as lost."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ReplyLostError(NOT_ETCDS) from error
