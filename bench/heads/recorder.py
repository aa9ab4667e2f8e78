"""A server that records the bytes of every request, and answers it as fibcore might.

It parses only as much as it needs to find the end of a request.
"""

import re
import socket
import threading
from contextlib import suppress
from typing import Final

from bench.heads import HOST, Request, parse

BODY: Final = b'{"current": 5}'
_IDS: Final = re.compile(rb"(?im)^(x-request-id: )[0-9a-f]{32}(?=\r$)")


class Recorder:
    """Listens on a free port of the loopback address until it is closed."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._kept: list[bytes] = []
        self._served = [self.port]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._listener.close()

    def mask(self, *ports: int) -> None:
        """Mask these ports as well, which are those of proxies."""
        self._served += ports

    def take(self) -> list[bytes]:
        """The distinct requests since the last call, masked, in order of arrival."""
        with self._lock:
            taken, self._kept = self._kept, []
        return list(dict.fromkeys(map(self._masked, taken)))

    def _masked(self, raw: bytes) -> bytes:
        """The request without the parts that differ between recordings."""
        for port in self._served:
            raw = raw.replace(b"127.0.0.1:%d" % port, HOST)
        return _IDS.sub(rb"\g<1>0123456789abcdef0123456789abcdef", raw)

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        data = b""
        with connection, suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while part := connection.recv(65_536):
                data += part
                if data.endswith(b"\r\n\r\n") and b"\r\nExpect: 100-continue\r\n" in data:
                    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                with suppress(ValueError):  # incomplete
                    whole = list(parse("recorder", data))
                    data = b""
                    for request in whole:
                        with self._lock:
                            self._kept.append(request.raw)
                        connection.sendall(_answer(request))
                    if whole[-1].closes:
                        return


def _answer(request: Request) -> bytes:
    """An answer with fibcore's ETag and Cache-Control, to which clients may react."""
    cache = b"no-store" if request.path == "/next" else b"no-cache"
    kept = b"close" if request.closes else b"keep-alive"
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
        b'ETag: "5"\r\nCache-Control: %b\r\nConnection: %b\r\n\r\n%b'
        % (len(BODY), cache, kept, BODY)
    )
