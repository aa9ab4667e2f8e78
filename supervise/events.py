"""The protocol of supervisord's event listeners, spoken over standard input and output.

See https://supervisord.org/events.html#event-listener-notification-protocol.
"""

import sys
from collections.abc import Iterator
from typing import TextIO

from web import logs

__all__ = ["events", "own_stdout"]


def events(stdin: TextIO, stdout: TextIO) -> Iterator[str]:
    """Yield the name of each event, such as ``TICK_5``, until supervisord is gone.

    An event is acknowledged when the next one is asked for. A listener that ends before that is
    given the same event again after its restart.
    """
    while True:
        stdout.write("READY\n")
        stdout.flush()
        header = dict(field.split(":", 1) for field in stdin.readline().split())
        if not header:
            return
        stdin.read(int(header["len"]))
        yield header["eventname"]
        stdout.write("RESULT 2\nOK")
        stdout.flush()


def own_stdout() -> TextIO:
    """Return standard output for the protocol alone: logs and stray prints go to standard error.

    supervisord sends no more events, without a word to us, to a listener that writes anything
    else to it.
    """
    protocol, sys.stdout = sys.stdout, sys.stderr
    logs.set_up("%(asctime)s %(levelname)s %(message)s")
    return protocol
