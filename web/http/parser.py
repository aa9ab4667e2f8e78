"""One connection's requests, parsed by httptools one at a time.

httptools parses everything it is fed, and can't be stopped at the end of a request. But a request
ends at an empty line or after its Content-Length. So the input is fed in pieces that end there:
httptools never begins a request before the previous one is answered, and pipelined bytes stay
unparsed.

Cython compiles this module unchanged, with the types in ``parser.pxd``.
"""

import contextlib
from typing import Final

import httptools

from web.http.answers import Header
from web.http.heads import Head, Heads, MalformedError, RequestLine, mark

MAX_HEAD: Final = 16_384
"""Bytes of a head, or of the framing of a chunked body; also the most that httptools is fed at
once. Other servers accept heads of about half that size."""

FRAMING_PER_BYTE: Final = 8
"""Additional framing bytes allowed per byte of a chunked body: a chunk of one byte has five."""

MAX_FIELDS: Final = 100
"""Field lines of a head, and of a trailer: a short one takes thirty times its size in memory."""

MAX_BODY: Final = 65_536
"""Bytes of a body kept for Starlette. Bodies for endpoints of the table are dropped."""

EMPTY_LINE: Final = b"\r\n\r\n"


class Parser:
    """The received part of one request at a time; call ``begin`` before each.

    Args:
        heads: reads heads.
    """

    __slots__ = (
        "_fields",
        "_framing",
        "_heads",
        "_left",
        "_parser",
        "_room",
        "_tail",
        "_target",
        "body",
        "head",
        "raw",
        "whole",
    )

    def __init__(self, heads: Heads) -> None:
        self._heads = heads
        self._parser: httptools.HttpRequestParser | None = None
        self.begin()

    def begin(self) -> None:
        """Prepare for a new request."""
        self.head: Head | None = None
        """Its head, once complete."""
        self.raw = b""
        """The head as it arrived."""
        self.body: bytes | bytearray = b""
        """The body, kept for Starlette only."""
        self.whole = False
        """Whether the request is complete."""
        self._target = b""
        self._fields: list[Header] = []
        """The fields that matter."""
        self._room = MAX_FIELDS
        """Field lines that are still allowed."""
        self._framing = 0
        """Bytes of the head; after the head, framing bytes minus the allowance of the body."""
        self._left: int | None = None
        """Bytes of the body still to come, if its length is known."""
        self._tail = b""
        """The last bytes of the last piece, which may be the start of an empty line."""

    @property
    def size(self) -> int:
        """Bytes kept of the request."""
        return len(self.raw) + len(self.body)

    def close(self) -> None:
        """Release httptools' parser, which references this object."""
        self._parser = None

    def request(self, data: bytes) -> Head | None:
        """The head of ``data``, if it is exactly one request for the table, without a body.

        Nearly all are. Otherwise None, and nothing is consumed: ``feed`` it.

        Raises:
            MalformedError: as ``feed``.
        """
        head: Head | None = self._heads.fill(data)
        if head is not None:
            return head
        if len(data) > MAX_HEAD or data.find(EMPTY_LINE) != len(data) - len(EMPTY_LINE):
            return None
        self.raw = data
        self._feed(data)
        head = self.head
        if not self.whole or head is None or head.length != 0 or head.endpoint is None:
            # A new parser will be fed from the beginning.
            self._parser = head = None
        self.begin()
        return head

    def feed(self, data: bytes, at: int = 0) -> int:
        """Consume ``data`` from ``at``, up to the end of the request at most.

        Returns:
            Where it stopped: at the end of ``data`` or of the request.

        Raises:
            MalformedError: it is not a valid request; what follows can't be parsed either.
        """
        while at < len(data) and not self.whole:
            # No piece exceeds the bound, so where a request is split makes no difference.
            room = MAX_HEAD - self._framing
            if room <= 0 and self.head is None:
                raise MalformedError(f"its head has more than {MAX_HEAD} bytes")
            end = min(self._end(data, at), at + max(1, min(room, MAX_HEAD)))
            piece = data[at:end]
            self._framing += end - at
            if self.head is None:
                self.raw += piece
            self._feed(piece)
            if self._left is not None:
                self._left -= end - at
            elif self.head is not None and self.head.length:
                self._left = self.head.length
            if self._framing > MAX_HEAD and not self.whole:
                raise MalformedError(f"the framing of its body has more than {MAX_HEAD} bytes")
            if not self.whole:
                self._tail = b"" if piece.endswith(EMPTY_LINE) else (self._tail + piece)[-3:]
            at = end
        return at

    def _end(self, data: bytes, at: int) -> int:
        """The end of the piece of ``data`` from ``at``: the next point where a request may end."""
        if self._left is not None:
            return min(len(data), at + self._left)
        if self._tail:
            found = (self._tail + data[at : at + 3]).find(EMPTY_LINE)
            if found >= 0:
                return at + found + len(EMPTY_LINE) - len(self._tail)
        found = data.find(EMPTY_LINE, at)
        return len(data) if found < 0 else found + len(EMPTY_LINE)

    def _feed(self, piece: bytes) -> None:
        if self._parser is None:
            self._parser = httptools.HttpRequestParser(self)
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            self._decline_upgrade()
        except httptools.HttpParserCallbackError as error:
            # Raised below: MalformedError, or a mistake of ours.
            raise error.__context__ or error from None
        except httptools.HttpParserError as error:
            raise MalformedError(str(error) or "it can't be parsed") from None

    def _decline_upgrade(self) -> None:
        """Continue as if no upgrade had been offered: RFC 9110, 7.8.

        httptools treats what follows as another protocol's, even an announced body
        (MagicStack/httptools#124). So a new parser is fed the fields that matter without Upgrade.
        """
        head, raw = self.head, self.raw
        assert head is not None
        if head.method == "CONNECT":
            raise MalformedError("CONNECT asks for a tunnel, but this server is not a proxy")
        lines = [b"%b %b HTTP/%b" % (head.method.encode(), head.target, head.version.encode())]
        lines += [b"%b: %b" % field for field in self._fields if field[0] != b"upgrade"]
        self.begin()
        self.raw = raw
        self._parser = None
        self._feed(b"\r\n".join(lines) + EMPTY_LINE)

    # What httptools calls.

    def on_message_begin(self) -> None:
        if self.whole:
            raise MalformedError("it does not end where expected")

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._room:
            raise MalformedError(f"it has more than {MAX_FIELDS} field lines")
        self._room -= 1
        # Trailers must not be merged into the header: RFC 9110, 6.5.1.
        if self._heads.marks[mark(name)] and self.head is None:
            counting = self._heads.counting
            known = counting.get(name) or counting.get(name.lower())
            if known is not None:
                # White space around a value is no part of it: RFC 9110, 5.5.
                self._fields.append((known, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        # httptools skips empty lines before the request line.
        begin = 0
        while self.raw[begin] in b"\r\n":
            begin += 1
        end = begin
        while self.raw[end] != 10:
            end += 1
        line = self.raw[begin:end]
        self.head = self._heads.read(
            line, self._fields, parser.should_keep_alive(), self._request_line
        )
        self._room, self._framing = MAX_FIELDS, 0

    def _request_line(self) -> RequestLine:
        parser = self._parser
        assert parser is not None
        return RequestLine(parser.get_method().decode(), self._target, parser.get_http_version())

    def on_body(self, body: bytes) -> None:
        self._framing -= (1 + FRAMING_PER_BYTE) * len(body)
        if self.head is not None and self.head.endpoint is None:
            if not self.body:
                self.body = bytearray()
            self.body += body
            if len(self.body) > MAX_BODY:
                raise MalformedError(f"its body has more than {MAX_BODY} bytes")

    def on_message_complete(self) -> None:
        self.whole = True
        if self.head is not None and self.head.length == 0:
            self._heads.remember(self.raw, self.head)


class _Fields(list[Header]):
    """All fields of a head, for Starlette."""

    def on_header(self, name: bytes, value: bytes) -> None:
        self.append((name.lower(), value))


def fields_of(raw: bytes) -> list[Header]:
    """All fields of a head that was parsed before, in order, names in lower case."""
    fields = _Fields()
    with contextlib.suppress(httptools.HttpParserUpgrade):
        httptools.HttpRequestParser(fields).feed_data(raw)
    return list(fields)
