"""Parses an answer from bytes as they arrive."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import httptools

MAX_HEAD: Final = 65_536
"""Bytes before the body; no answer of ours has a longer head."""


class BrokenReplyError(Exception):
    """The received data is not HTTP."""


@dataclass(frozen=True, slots=True)
class Lost:
    """No complete answer arrived."""

    reason: str
    sent: bool
    """Whether the request may have reached the server."""

    @classmethod
    def by(cls, error: OSError | BrokenReplyError, *, sent: bool) -> "Lost":
        """The loss that ``error`` caused."""
        words = error.strerror if isinstance(error, OSError) else str(error)
        return cls(words or str(error) or "timed out", sent)


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer: every byte that its head announced has arrived."""

    status: int
    fields: Mapping[str, str]
    """By name in lower case."""
    body: bytes
    reusable: bool
    """Whether the connection can carry another request."""

    @property
    def problem(self) -> dict[str, Any]:
        """Its members if it is a problem (RFC 9457), else none."""
        if not self.fields.get("content-type", "").startswith("application/problem+json"):
            return {}
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def reason(self) -> str:
        """Its ``detail``, a sentence, if the server sent one; else its status."""
        detail = self.problem.get("detail")
        if isinstance(detail, str):
            return detail
        try:
            phrase = HTTPStatus(self.status).phrase
        except ValueError:
            phrase = "unknown status"
        location = self.fields.get("location")
        return f"{self.status} {phrase}" + (f", to {location}" if location else "")


class ReplyReader:
    """Parses one answer; ``reply`` is set when it is complete.

    An answer of unknown length never is: the end of its connection does not show whether it was cut
    short.
    """

    def __init__(self) -> None:
        self.reply: Reply | None = None
        self._size = 0
        self._fields: dict[str, str] = {}
        self._body: list[bytes] = []
        self._in_head = True
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Parse more bytes.

        Raises:
            BrokenReplyError: it is not HTTP.
        """
        if self._in_head:
            self._size += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise BrokenReplyError(f"it is not HTTP: {error}") from error
        if self._in_head and self._size > MAX_HEAD:
            raise BrokenReplyError(f"its head is longer than {MAX_HEAD} bytes")

    # As httptools calls them.

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers follow the body; they are not fields of the answer.
        if self._in_head:
            self._fields[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._in_head = False

    def on_body(self, piece: bytes) -> None:
        self._body.append(piece)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < HTTPStatus.OK:
            # Interim, such as 103: the answer follows.
            self._fields, self._in_head = {}, True
        elif self.reply is None:
            body = b"".join(self._body)
            self.reply = Reply(status, self._fields, body, self._parser.should_keep_alive())
        else:
            raise BrokenReplyError("more than one answer arrived")
