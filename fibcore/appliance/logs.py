"""The log, on standard error: one line per event; writing it never blocks the process.

With ``FIB_LOG_FORMAT=json`` a line is an object: ``time`` (UTC), ``level``, ``pid``, ``event``,
``message``, and the fields of that event.

If the reader stops reading (supervisord was stopped, for example), a write blocks. So one thread
writes what the others log. Its queue is bounded in bytes, as clients control the length of some
lines; past the bound, records are dropped and counted. Warnings and errors from one place in the
code are rate-limited and counted, as clients can cause some of them at will.
"""

import contextlib
import json
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from typing import Final

from fibcore.events import event

MAX_QUEUED: Final = 8 * 2**20
"""Bytes of the queued records; the last one may exceed it."""

RECORD_BYTES: Final = 1024
"""Bytes of a record, in addition to its text."""

MOST_ALIKE: Final = 10
"""Warnings or errors from one place in the code that are written in a window."""

WINDOW_SECONDS: Final = 10.0

FLUSH_SECONDS: Final = 1.0
"""How long an exiting process waits for the queue to be written."""


def set_up(form: str, *, as_json: bool = False) -> None:
    """Set up the log of the process; do nothing if there is one already.

    Args:
        form: the format of a line, for ``logging.Formatter``.
        as_json: write a JSON object per line instead.
    """
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(Log(JsonFormatter() if as_json else logging.Formatter(form)))
        root.setLevel(logging.INFO)


def iso(moment: float) -> str:
    """A moment in seconds since 1970, to the millisecond, in UTC."""
    return datetime.fromtimestamp(moment, UTC).isoformat("T", "milliseconds")[:-6] + "Z"


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; its fields depend on the event."""
        return json.dumps(
            {
                "time": iso(record.created),
                "level": record.levelname.lower(),
                "pid": record.process,
                "event": getattr(record, "event", record.name),
                "message": record.getMessage(),
                **getattr(record, "fields", {}),
            },
            default=str,
        )


class Lines:
    """A record's message that stands for several lines, which ``str`` returns.

    Args:
        count: the number of lines.
        size: the bytes that it occupies.
    """

    def __init__(self, count: int, size: int) -> None:
        self.count = count
        self.size = size


@dataclass
class _Window:
    """The records of one kind in one window."""

    end: float
    passed: int = 0
    suppressed: int = 0
    last: logging.LogRecord | None = None
    """The last of the suppressed records."""


class RateLimit(logging.Filter):
    """Passes a limited number of warnings of one kind in a window; counts the rest, like printk.

    A kind is one logger at one place in the code.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, str, int], _Window] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to write the record. Thread-safe."""
        if not logging.WARNING <= record.levelno < logging.CRITICAL:
            return True
        with self._lock:
            place = (record.name, record.pathname, record.lineno)
            window = self._windows.setdefault(place, _Window(end=self._clock() + WINDOW_SECONDS))
            if window.passed < MOST_ALIKE:
                window.passed += 1
                return True
            window.suppressed += 1
            window.last = record
            return False

    def seconds_left(self) -> float | None:
        """Seconds until the next window closes; None if none is open."""
        with self._lock:
            ends = [window.end for window in self._windows.values()]
        return max(0.0, min(ends) - self._clock()) if ends else None

    def summaries(self) -> list[logging.LogRecord]:
        """Close expired windows; return a record for each that suppressed some."""
        now = self._clock()
        with self._lock:
            over = {place: each for place, each in self._windows.items() if each.end <= now}
            for place in over:
                del self._windows[place]
        return [
            _record(
                last.name,
                last.levelno,
                "%d more suppressed in %.0f s: %s",
                (window.suppressed, WINDOW_SECONDS, last.getMessage()),
                event(
                    getattr(last, "event", last.name),
                    **{**getattr(last, "fields", {}), "suppressed": window.suppressed},
                ),
            )
            for window in over.values()
            if (last := window.last) is not None
        ]


class _Queue(queue.Queue[logging.LogRecord]):
    """A queue whose size and bound are in bytes."""

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self._size = 0

    def _qsize(self) -> int:
        return self._size

    def _put(self, item: logging.LogRecord) -> None:
        super()._put(item)
        self._size += _size(item)

    def _get(self) -> logging.LogRecord:
        item = super()._get()
        self._size -= _size(item)
        return item


def _size(record: logging.LogRecord) -> int:
    """Bytes that a queued record occupies."""
    text = record.msg
    return RECORD_BYTES + (text.size if isinstance(text, Lines) else sys.getsizeof(text))


class Log(QueueHandler):
    """Takes records from any thread without blocking, and queues them for writing.

    A critical record is waited for, at most ``FLUSH_SECONDS``, as the process exits after it.

    Args:
        formatter: formats a line.
        fd: the file descriptor to write to.
        clock: monotonic seconds.
    """

    queue: "queue.Queue[logging.LogRecord]"

    def __init__(
        self, formatter: logging.Formatter, fd: int = 2, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(_Queue(MAX_QUEUED))
        self.limit = RateLimit(clock)
        self.addFilter(self.limit)
        self.dropped = 0
        """Dropped records since that was last logged."""
        self.writer = _WritingThread(self, formatter, fd)
        self.writer.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue it for writing."""
        if isinstance(record.msg, Lines):
            self.enqueue(record)  # The writer formats it.
        else:
            super().emit(record)
            if record.levelno >= logging.CRITICAL:
                self.flush()

    def enqueue(self, record: logging.LogRecord) -> None:
        """Queue it, or drop it if the queue is full."""
        try:
            if record.levelno >= logging.CRITICAL:
                self.queue.put(record, timeout=FLUSH_SECONDS)
            else:
                self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += record.msg.count if isinstance(record.msg, Lines) else 1

    def flush(self) -> None:
        """Wait until everything is written, at most ``FLUSH_SECONDS``, and as long for the lock.

        The handler of a signal that ends the process calls this. If the signal interrupts this
        thread while it queues a record, the thread holds the lock already.
        """
        done = self.queue.all_tasks_done
        if done.acquire(timeout=FLUSH_SECONDS):
            try:
                done.wait_for(lambda: not self.queue.unfinished_tasks, FLUSH_SECONDS)
            finally:
                done.release()


class _WritingThread(QueueListener):
    """Writes the queue of ``log`` to ``fd``, and summaries of what it suppressed.

    Unlike a handler, or ``sys.stderr``, it takes no lock: an exiting process would wait for it as
    long as a write takes.
    """

    def __init__(self, log: Log, formatter: logging.Formatter, fd: int) -> None:
        super().__init__(log.queue)
        self._log = log
        self.formatter = formatter
        self._fd = fd

    def handle(self, record: logging.LogRecord) -> None:
        is_text = isinstance(record.msg, Lines)
        text = str(record.msg) if is_text else f"{self.formatter.format(record)}\n"
        line = text.encode(errors="backslashreplace")
        with contextlib.suppress(OSError):  # Nobody reads the log any more.
            while line:
                line = line[os.write(self._fd, line) :]

    def dequeue(self, block: bool) -> logging.LogRecord:
        while True:
            for summary in self._log.limit.summaries():
                self._log.enqueue(summary)
            if self._log.dropped and self._log.queue.empty():
                dropped, self._log.dropped = self._log.dropped, 0
                self._log.enqueue(
                    _record(
                        "log",
                        logging.WARNING,
                        "%d records of this log were dropped, as nobody read it for a while. Only "
                        "the log is affected.",
                        (dropped,),
                        event("dropped", records=dropped),
                    )
                )
            with contextlib.suppress(queue.Empty):
                return self._log.queue.get(block, self._log.limit.seconds_left())


def _record(
    name: str, level: int, message: str, arguments: tuple[object, ...], extra: dict[str, object]
) -> logging.LogRecord:
    return logging.root.makeRecord(name, level, __file__, 0, message, arguments, None, extra=extra)
