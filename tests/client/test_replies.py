"""Parsing of answers, however the bytes are split."""

import pytest

from fibcore.client.replies import BrokenReplyError, Reply, ReplyReader

WHOLE = b'HTTP/1.1 200 OK\r\nETag: "7-text"\r\nContent-Length: 2\r\n\r\n13'


def read(*pieces: bytes) -> Reply | None:
    reader = ReplyReader()
    for piece in pieces:
        reader.feed(piece)
    return reader.reply


def test_an_answer_is_complete_with_its_last_byte() -> None:
    for end in range(len(WHOLE)):
        assert read(WHOLE[:end]) is None
    assert read(WHOLE) == read(*(bytes([each]) for each in WHOLE))
    reply = read(WHOLE)
    assert reply is not None
    assert (reply.status, reply.fields["etag"], reply.body) == (200, '"7-text"', b"13")
    assert reply.reusable


def test_a_chunked_answer_is_complete_with_its_last_chunk() -> None:
    """Fields after the last chunk are trailers."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n1\r\n3\r\n"
    assert read(chunked) is None
    reply = read(chunked, b'0\r\nETag: "8"\r\n\r\n')
    assert reply is not None
    assert (reply.body, reply.fields) == (b"13", {"transfer-encoding": "chunked"})


def test_an_answer_of_unknown_length_is_never_complete() -> None:
    assert read(b"HTTP/1.1 200 OK\r\n\r\n1", b"3") is None


def test_an_interim_answer_is_not_the_answer() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    assert read(early) is None
    assert read(early + WHOLE) == read(WHOLE)


def test_a_connection_marked_close_is_not_reused() -> None:
    reply = read(WHOLE.replace(b"ETag", b"Connection: close\r\nETag"))
    assert reply is not None
    assert not reply.reusable


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        WHOLE + WHOLE,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n13",
    ],
    ids=["another protocol", "an upgrade", "two answers", "a long head", "two lengths"],
)
def test_bytes_that_are_not_http_are_a_broken_reply(data: bytes) -> None:
    with pytest.raises(BrokenReplyError):
        read(data)


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        (b'{"detail": "So it is."}', "application/problem+json", "So it is."),
        (b'{"detail": "So it is."}', "application/json", "503 Service Unavailable"),
        (b"[1]", "application/problem+json", "503 Service Unavailable"),
        (b"{", "application/problem+json", "503 Service Unavailable"),
        (b"[" * 100_000, "application/problem+json", "503 Service Unavailable"),
        (b'{"detail": 1}', "application/problem+json", "503 Service Unavailable"),
    ],
)
def test_the_reason_is_the_problems_detail_if_there_is_one(
    body: bytes, kind: str, reason: str
) -> None:
    assert Reply(503, {"content-type": kind}, body, True).reason == reason
