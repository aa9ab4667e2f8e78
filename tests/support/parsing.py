"""Parses requests and answers for the tests, with httptools and without ``web``.

A stream is fed to httptools one byte at a time, to learn where each element ends.
"""

from dataclasses import dataclass, field
from typing import Final

import httptools

from tests.support.checker import index_of

Field = tuple[bytes, bytes]


@dataclass
class ParsedRequest:
    """A request, perhaps incomplete."""

    line: bytes = b""
    """The request line, with its end."""
    method: str = ""
    target: bytes = b""
    version: str = ""
    fields: list[Field] = field(default_factory=list)
    trailers: list[Field] = field(default_factory=list)
    keeps_alive: bool = True
    has_upgrade: bool = False
    head_size: int = 0
    """Bytes of the head received so far."""
    body_size: int = 0
    """Bytes of the body, without its framing."""
    framing: int = 0
    """Highest value of: bytes of chunk framing and trailers, minus eight per byte of body."""
    has_head: bool = False
    is_whole: bool = False

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of the fields with this name, given in lower case."""
        return [value.strip(b" \t") for found, value in self.fields if found == name]

    @property
    def length(self) -> int | None:
        """The announced length of the body; None if chunked."""
        if self.values(b"transfer-encoding"):
            return None
        (length,) = self.values(b"content-length") or [b""]
        return int(length.lstrip(b"0") or 0)

    @property
    def path(self) -> bytes | None:
        """The path of the target, undecoded, if there is one."""
        try:
            return httptools.parse_url(self.target).path
        except httptools.HttpParserInvalidURLError:
            return None


@dataclass
class ParsedStream:
    """A stream as parsed by httptools."""

    requests: list[ParsedRequest] = field(default_factory=list)
    is_malformed: bool = False
    rest: bytes = b""
    """Data after an upgrade, which httptools does not parse."""


class _Recorder:
    def __init__(self) -> None:
        self.stream = ParsedStream()
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    @property
    def now(self) -> ParsedRequest:
        return self.stream.requests[-1]

    def on_message_begin(self) -> None:
        self.stream.requests.append(ParsedRequest())

    def on_url(self, url: bytes) -> None:
        self.now.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        (self.now.trailers if self.now.has_head else self.now.fields).append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.now.has_head = True
        self.now.method = self.parser.get_method().decode()
        self.now.version = self.parser.get_http_version()
        self.now.keeps_alive = self.parser.should_keep_alive()
        self.now.has_upgrade = self.parser.should_upgrade()

    def on_body(self, body: bytes) -> None:
        self.now.body_size += len(body)

    def on_message_complete(self) -> None:
        self.now.is_whole = True


def parse(data: bytes) -> ParsedStream:
    """Parse ``data`` up to an upgrade or to where it is malformed."""
    recorder = _Recorder()
    stream = recorder.stream
    framing = 0
    for at in range(len(data)):
        count, had_head = len(stream.requests), bool(stream.requests) and recorder.now.has_head
        body = recorder.now.body_size if count else 0
        try:
            recorder.parser.feed_data(data[at : at + 1])
        except httptools.HttpParserUpgrade:
            recorder.now.head_size += 1
            # httptools reports the request as complete, which is true only without a body.
            recorder.now.is_whole = recorder.now.length == 0
            stream.rest = data[at + 1 :]
            break
        except httptools.HttpParserError:
            stream.is_malformed = True
            break
        if not stream.requests:
            continue
        if len(stream.requests) == count and had_head:
            framing += 1 if recorder.now.body_size == body else -8
            recorder.now.framing = max(framing, recorder.now.framing)
        else:
            framing = 0
            recorder.now.head_size += 1
            if not recorder.now.line.endswith(b"\n"):
                recorder.now.line += data[at : at + 1]
    return stream


@dataclass(frozen=True)
class Answer:
    status: int
    fields: tuple[Field, ...]
    body: bytes

    def field(self, name: bytes) -> bytes | None:
        """Return the value of the field with this name, given in lower case."""
        return dict(self.fields).get(name)

    @property
    def index(self) -> int | None:
        """The index, from the ETag."""
        tag = self.field(b"etag")
        return None if tag is None else index_of(tag.decode())


START: Final = b"HTTP/1.1 "
"""No body begins with this."""


def answer_at(sent: bytes, at: int, *, has_body: bool) -> tuple[Answer, int] | None:
    """Return the answer at ``at`` and its end; None if it is incomplete.

    Args:
        has_body: False for the answer to a HEAD request.
    """
    end = sent.find(b"\r\n\r\n", at)
    if end < 0:
        return None
    assert sent.startswith(START, at), sent[at:]
    line, *lines = sent[at:end].split(b"\r\n")
    fields = tuple((name, value) for name, _, value in (each.partition(b": ") for each in lines))
    at = end + 4
    size = int(dict(fields).get(b"content-length", 0)) if has_body else 0
    if at + size > len(sent):
        return None
    return Answer(int(line.split()[1]), fields, sent[at : at + size]), at + size


def answers_in(sent: bytes) -> list[Answer]:
    """Split the bytes of complete answers, and nothing else, into answers."""
    answers = []
    at = 0
    while at < len(sent):
        head_end = sent.find(b"\r\n\r\n", at) + 4
        # The answer to a HEAD request has none.
        has_body = head_end < len(sent) and not sent.startswith(START, head_end)
        found = answer_at(sent, at, has_body=has_body)
        assert found is not None, sent[at:]
        answer, at = found
        answers.append(answer)
    return answers
