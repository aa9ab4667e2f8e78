"""Heads that differ in each request: with a request ID, a trace or a session.

A template is a complete request in which a NUL byte, which HTTP does not use, is the placeholder
of a random hex digit. The load generator fills templates itself, as ``fill`` does.
"""

import hashlib
from typing import Final

from bench.heads import Request

DIGIT: Final = b"\0"
FIELDS: Final = {
    "X-Request-Id": DIGIT * 32,  # nginx's $request_id
    "traceparent": b"00-" + DIGIT * 32 + b"-" + DIGIT * 16 + b"-01",  # W3C Trace Context, 3.2
    "Cookie": b"theme=dark; session=" + DIGIT * 32 + b"; seen=1",
}
"""The fields that a proxy, a tracer and a browser add."""


def template(request: Request, *names: str) -> bytes:
    """The request with these of FIELDS, which replace its own."""
    for name in names:
        request = request.without_field(name.lower()).with_field(name, FIELDS[name])
    return request.raw


def fill(template: bytes, number: int) -> bytes:
    """The template, filled for the request of that number: always the same bytes."""
    pieces = template.split(DIGIT)
    digits = ""
    while len(digits) < len(pieces) - 1:
        digits += hashlib.sha256(f"{number} {len(digits)}".encode()).hexdigest()
    return b"".join(
        piece + digit.encode()
        for piece, digit in zip(pieces, [*digits[: len(pieces) - 1], ""], strict=True)
    )
