"""A server that speaks Redis's protocol and keeps what it is told only when the test says so.

It is there for ``WAITAOF``, which Debian's Redis does not have. It knows the commands that the
store uses, and the one script of it that moves the index.
"""

import hashlib
import socketserver
import threading
from collections.abc import Mapping
from io import BufferedIOBase
from types import TracebackType
from typing import Final, Self, TypeAlias

from fibcore.stores.redis import COMMIT

Reply: TypeAlias = "str | int | bytes | list[Reply] | ReplyError"


class ReplyError(Exception):
    """An error that the server replies with."""


ALIKE: Final[Mapping[bytes, Reply]] = {b"CLIENT": "OK", b"HDEL": 1, b"ROLE": [b"master", 0, []]}
"""What is always answered alike."""


class FakeRedis(socketserver.ThreadingTCPServer):
    """One sequence, at 0, from ``__enter__`` to ``__exit__``.

    Args:
        version: the one that it says it is.
        settings: what it is asked for with ``CONFIG GET``.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, version: str, settings: Mapping[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.url = f"redis://127.0.0.1:{self.server_address[1]}"
        self.index = 0
        self.syncs = True
        """Whether what was written is on its disk by the time that it is asked for."""
        self.demoted = threading.Event()
        """It has become a replica, for as long as it takes to say so to whoever waits."""
        self.asked = threading.Semaphore(0)
        """Released each time that it has answered that it is not."""
        self._version = version.encode()
        self._info = f"redis_version:{version}\r\nconnected_slaves:0\r\n".encode()
        self._settings = settings
        self._scripts: dict[bytes, bytes] = {}
        self._batches: dict[bytes, tuple[bytes, int]] = {}
        self._alone = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def answer(self, command: bytes, *arguments: bytes) -> Reply:
        with self._alone:
            match command:
                case b"CONFIG":
                    prefix = arguments[1].decode().rstrip("*")
                    found = [pair for pair in self._settings.items() if pair[0].startswith(prefix)]
                    return [text.encode() for pair in found for text in pair]
                case b"INFO":
                    return self._info
                case b"HELLO":
                    return [b"server", b"redis", b"version", self._version]
                case b"HSCAN":
                    return [b"0", []]
                case b"HGET":
                    return b"%d" % self.index
                case b"SCRIPT":
                    name = hashlib.sha1(arguments[1], usedforsecurity=False).hexdigest().encode()
                    self._scripts[name] = arguments[1]
                    return name
                case b"EVALSHA":
                    return self._run(self._scripts[arguments[0]], *arguments[3:])
                case b"WAITAOF" if self.demoted.is_set():
                    self.demoted.clear()
                    return ReplyError("UNBLOCKED force unblock from blocking operation")
                case b"WAITAOF":
                    if not self.syncs:
                        self.asked.release()
                    return [int(self.syncs), 0]
                case _:
                    return ALIKE[command]

    def _run(self, script: bytes, *arguments: bytes) -> Reply:
        index = self.index
        if script == COMMIT.encode():
            node, number, steps, *_ = arguments
            last, reached = self._batches.get(node, (b"0", 0))
            if last != number:
                self.index = reached = self.index + int(steps)
                self._batches[node] = number, reached
            index = reached
        return [b"done", b"%d" % index]


class _Connection(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        reply: Reply
        queued: list[list[bytes]] | None = None
        while command := _read(self.rfile):
            match command[0].upper():
                case b"MULTI":
                    queued, reply = [], "OK"
                case b"EXEC":
                    reply = [self._answer(each) for each in queued or ()]
                    queued = None
                case _ if queued is not None:
                    queued.append(command)
                    reply = "QUEUED"
                case _:
                    reply = self._answer(command)
            self.wfile.write(_encoded(reply))

    def _answer(self, command: list[bytes]) -> Reply:
        assert isinstance(self.server, FakeRedis)
        return self.server.answer(command[0].upper(), *command[1:])


def _read(file: BufferedIOBase) -> list[bytes]:
    """The next command; empty at the end."""
    words = []
    for _ in range(int(file.readline()[1:] or 0)):
        words.append(file.read(int(file.readline()[1:])))
        file.readline()
    return words


def _encoded(reply: Reply) -> bytes:
    match reply:
        case str():
            return b"+%b\r\n" % reply.encode()
        case int():
            return b":%d\r\n" % reply
        case ReplyError():
            return b"-%b\r\n" % str(reply).encode()
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case _:
            return b"*%d\r\n" % len(reply) + b"".join(map(_encoded, reply))
