"""Requests in bytes."""

from typing import Final

HOST: Final = b"Host: x\r\n"
STEP: Final = b"GET /next HTTP/1.1\r\n" + HOST + b"\r\n"
READ: Final = b"GET /current HTTP/1.1\r\n" + HOST + b"\r\n"
HALF: Final = STEP[:-2]
