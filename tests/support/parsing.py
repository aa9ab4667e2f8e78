"""What bytes say, and what answers say: parsed by the tests, with httptools and without ``web``.

A stream is fed to httptools one byte at a time, so that it is known where each thing ends.
"""

from dataclasses import dataclass, field
from typing import Final

import httptools

from bench.checker import index_of

Field = tuple[bytes, bytes]


@dataclass
class ParsedRequest:
    """A request, as far as it has arrived."""

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
    """Bytes of the head, or those of it that are there."""
    body_size: int = 0
    """Bytes of the body, without its framing."""
    framing: int = 0
    """Bytes of what stands around the chunks of the body, trailers included, less eight for each
    of the body's bytes: how much that was at the most."""
    has_head: bool = False
    is_whole: bool = False

    def values(self, name: bytes) -> list[bytes]:
        """What the fields of that name say, which is given in lower case."""
        return [value.strip(b" \t") for found, value in self.fields if found == name]

    @property
    def length(self) -> int | None:
        """Of the body, as it is announced; None where it is chunked."""
        if self.values(b"transfer-encoding"):
            return None
        (length,) = self.values(b"content-length") or [b""]
        return int(length.lstrip(b"0") or 0)

    @property
    def path(self) -> bytes | None:
        """The path of the target as it stands there, if it has one."""
        try:
            return httptools.parse_url(self.target).path
        except httptools.HttpParserInvalidURLError:
            return None


@dataclass
class ParsedStream:
    """All that httptools can say of a stream."""

    requests: list[ParsedRequest] = field(default_factory=list)
    is_malformed: bool = False
    rest: bytes = b""
    """What follows an upgrade, of which httptools says nothing."""


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
    """Parse what ``data`` holds, up to an upgrade or to where it is malformed."""
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
            # It says that the request is whole, which it is only if it has no body.
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
    """An answer as it was sent."""

    status: int
    fields: tuple[Field, ...]
    body: bytes

    def field(self, name: bytes) -> bytes | None:
        """The value of the field of that name, which is given in lower case."""
        return dict(self.fields).get(name)

    @property
    def index(self) -> int | None:
        """Where the sequence stands, from the ETag."""
        tag = self.field(b"etag")
        return None if tag is None else index_of(tag.decode())


START: Final = b"HTTP/1.1 "
"""With which no body of ours begins."""


def answer_at(sent: bytes, at: int, *, has_body: bool) -> tuple[Answer, int] | None:
    """The answer that begins at ``at`` and where it ends; None if it is not all there.

    Args:
        has_body: whether it has the body that it announces, as none to a HEAD has.
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
    """Take apart what a server has sent: whole answers, one after the other, and nothing else."""
    answers = []
    at = 0
    while at < len(sent):
        head_end = sent.find(b"\r\n\r\n", at) + 4
        # To a HEAD there is none.
        has_body = head_end < len(sent) and not sent.startswith(START, head_end)
        found = answer_at(sent, at, has_body=has_body)
        assert found is not None, sent[at:]
        answer, at = found
        answers.append(answer)
    return answers
