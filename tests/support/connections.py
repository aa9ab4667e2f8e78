"""Connections without sockets, on an event loop with simulated time.

No test here waits for a guessed time: ``Loop.settle`` runs until nothing more can happen, and time
passes only when the test makes it.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NoReturn, Self

from tests.support.waiting import PATIENCE

TURN: Final = 0.5
"""Step of simulated time, seconds: the interval at which deadlines are checked."""


class Loop(asyncio.SelectorEventLoop):
    """An event loop with simulated time, which detects that nothing is left to do."""

    def __init__(self) -> None:
        self.now = 0.0
        self.awaits: list[Callable[[], bool]] = []
        """Functions that return whether a thread is about to notify the loop."""
        self.stirred = threading.Event()
        """Set by a thread that has made progress."""
        super().__init__()

    def time(self) -> float:
        return self.now

    def call_soon_threadsafe(self, *args: Any, **named: Any) -> asyncio.Handle:  # type: ignore[override]
        handle = super().call_soon_threadsafe(*args, **named)
        self.stirred.set()
        return handle

    def settle(self) -> None:
        """Run until nothing is ready and no thread is working."""
        limit = time.monotonic() + PATIENCE
        while True:
            self.stirred.clear()
            # One iteration without waiting; see the documentation of ``loop.run_forever``.
            self.call_soon(self.stop)
            self.run_forever()
            if self._ready:  # type: ignore[attr-defined]
                assert time.monotonic() < limit, "the loop does not settle"
            elif not any(each() for each in self.awaits):
                return
            else:
                assert self.stirred.wait(limit - time.monotonic()), "a thread makes no progress"

    def pass_time(self, seconds: float) -> None:
        """Advance time, and run everything due meanwhile."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + TURN, end)
            self.settle()


class Failures(list[BaseException]):
    """Errors that would have ended the process; the failing thread stops there."""

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self._loop = loop

    def fail_stop(self, error: BaseException) -> NoReturn:
        if error not in self:  # A process ends once: no caller sees what this raises.
            self.append(error)
        self._loop.stirred.set()
        if threading.current_thread() is not threading.main_thread():
            threading.Event().wait()
        raise error


class Connection(asyncio.Transport):
    """A connection with both ends: the client's methods, and the transport of the protocol.

    Args:
        loop: the protocol's loop.
        room: bytes that the client reads before it stops; None: unlimited.
    """

    def __init__(self, loop: Loop, room: int | None = None) -> None:
        super().__init__()
        self._loop = loop
        self.protocol: asyncio.Protocol
        self.sent = b""
        """Everything the protocol has written, whether the client has read it or not."""
        self.unsent = 0
        """How many of these bytes the client has not read."""
        self.pieces: list[bytes] = []
        """The writes since the client had last read everything."""
        self.room = room
        self.closed = False
        """Whether the client has received the end of the stream."""
        self.lost = False
        """Whether ``connection_lost`` was scheduled."""
        self.is_gone = False
        """Whether the client left, or was disconnected before it had read everything."""
        self._arriving: deque[bytes | None] = deque()
        self._delivering = False
        self._reading = True
        self._closing = False
        self._reset = False
        self._blocked = False
        self._high = 65_536

    def open(self, protocol: asyncio.Protocol) -> Self:
        self.protocol = protocol
        protocol.connection_made(self)
        return self

    # The client's end.

    def send(self, *pieces: bytes) -> None:
        """Send pieces, which arrive one by one."""
        self._arriving.extend(filter(None, pieces))
        self._deliver_soon()

    def end(self) -> None:
        """Close the sending half."""
        self._arriving.append(None)
        self._deliver_soon()

    def reset(self) -> None:
        """Reset the connection; the protocol notices when it reads or writes."""
        self._reset = self.is_gone = True
        self.room = 0
        if self._reading or self.unsent:
            self._lose(ConnectionResetError())

    def take(self, size: int | None = None) -> None:
        """Read ``size`` more bytes, or everything from now on."""
        self.room = None if size is None or self.room is None else self.room + size
        self._loop.call_soon(self._flush)

    @property
    def taken(self) -> bytes:
        """Everything the client has read."""
        return self.sent[: len(self.sent) - self.unsent]

    def _deliver_soon(self) -> None:
        if self._arriving and self._reading and not self._delivering:
            self._delivering = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        """Deliver one piece to the protocol, one per iteration of the loop."""
        self._delivering = False
        if not self._reading or self._closing or self.lost or not self._arriving:
            return
        piece = self._arriving.popleft()
        if piece is not None:
            self.protocol.data_received(piece)
        elif not self.protocol.eof_received():
            self.close()
        self._deliver_soon()

    @property
    def arriving(self) -> int:
        """Bytes that the protocol has not received yet."""
        return sum(len(piece) for piece in self._arriving if piece is not None)

    # The transport; behaves like those of asyncio and uvloop.

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if self.lost:
            # Like uvloop with a closed socket.
            raise ValueError("negative file descriptor")
        return {"peername": ("192.0.2.1", 4711), "sockname": ("192.0.2.2", 80)}.get(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        assert low is None
        self._high = high

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self._closing or self.lost

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        if self._reset:
            self._lose(ConnectionResetError())
        self._deliver_soon()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writelines((bytes(data),))

    def writelines(self, pieces: Iterable[bytes | bytearray | memoryview]) -> None:
        if self.lost or (self._closing and not self.unsent):
            return
        if self._reset:
            self._lose(ConnectionResetError())
            return
        assert not self.closed, "write after the end"
        if not self.unsent:
            self.pieces = []
        self.pieces += map(bytes, pieces)
        data = b"".join(pieces)
        self.sent += data
        self.unsent += len(data)
        self._send_what_fits()
        if self.unsent > self._high and not self._blocked:
            self._blocked = True
            self.protocol.pause_writing()

    def _send_what_fits(self) -> None:
        size = self.unsent if self.room is None else min(self.unsent, self.room)
        self.unsent -= size
        if self.room is not None:
            self.room -= size

    def _flush(self) -> None:
        """Send what the client reads now."""
        if self.lost:
            return
        self._send_what_fits()
        if self._blocked and self.unsent <= self._high // 4:
            self._blocked = False
            self.protocol.resume_writing()
        if self._closing and not self.unsent:
            self._lose(None)

    def write_eof(self) -> None:
        self.closed = True

    def close(self) -> None:
        if not self._closing:
            self._closing = self.closed = True
            if not self.unsent:
                self._lose(None)

    def abort(self) -> None:
        self._closing = self.closed = True
        self.is_gone = self.is_gone or self.unsent > 0
        self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        if not self.lost:
            self.lost = self.closed = True
            self._loop.call_soon(self.protocol.connection_lost, error)
