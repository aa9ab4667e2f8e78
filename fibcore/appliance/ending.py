"""The one place where a process exits: its statuses, and the messages with the reason.

**The exit depends on nothing that can fail**: without a log, a thread or memory it comes without a
message. Otherwise a process that can't go on would stay, hold the writer's lock, and look alive.
"""

import logging
import os
import signal
from collections.abc import Callable
from typing import Final, NoReturn, TypeAlias

from fibcore.events import event
from fibcore.problems import (
    BatchUnknowableError,
    CommitFailedError,
    IndexRegressedError,
    Problem,
    explain,
    typed,
)

logger = logging.getLogger("fibcore")

End: TypeAlias = Callable[[int], NoReturn]
"""Ends the process with a status."""

EXIT_FAILED: Final = 1
EXIT_DATABASE_INVALID: Final = os.EX_DATAERR
"""The content of the store can't be served. A restart does not help: a person must act."""
EXIT_COMMIT_FAILED: Final = os.EX_IOERR
EXIT_SETTINGS_INVALID: Final = os.EX_CONFIG

START_SERVERS: Final = "supervisorctl start 'web:*'"


def how_to_start_again(status: int) -> str:
    """How to start a server that exits with ``status`` again, in the way that it was started."""
    if "SUPERVISOR_ENABLED" not in os.environ:
        return "Then start it again."
    # systemd(1) sets the id of the process that it started: here supervisord, our parent.
    is_service = os.environ.get("SYSTEMD_EXEC_PID") == str(os.getppid())
    if status != EXIT_SETTINGS_INVALID:
        return f"Then: {typed(START_SERVERS)}."
    return "Then: sudo systemctl restart fibcore." if is_service else "Then: Ctrl-C, and make run."


def end_at_once(status: int) -> NoReturn:
    """Exit with ``status`` at once: no further answer is sent, and no handler runs.

    Python's own exit would wait for threads, and one may be opening the store, or making a commit
    that nobody waits for. Only the end of the process releases the writer's lock.
    """
    try:
        logging.shutdown()
    finally:
        os._exit(status)


def end_interrupted() -> None:
    """End the process by the interrupt that it has received: no traceback, and shells see it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.raise_signal(signal.SIGINT)


def end_invalid(error: Problem, end: End = end_at_once) -> NoReturn:
    """End the process because of a problem that needs an operator: settings, or the database."""
    status = EXIT_SETTINGS_INVALID if error.status == os.EX_CONFIG else EXIT_DATABASE_INVALID
    try:
        again = how_to_start_again(status)
        logger.critical("%s %s", explain(error), again, extra=event("invalid", status=status))
    finally:
        end(status)


def fail_stop(error: BaseException, end: End = end_at_once) -> NoReturn:
    """Exit because of ``error``: a step that may be committed can't be answered."""
    # The next process would hand out indexes a second time, so a person must decide.
    status = EXIT_DATABASE_INVALID if isinstance(error, IndexRegressedError) else EXIT_COMMIT_FAILED
    try:
        if isinstance(error, IndexRegressedError):
            logger.critical("%s", explain(error), extra=event("fell back"))
        elif isinstance(error, (CommitFailedError, BatchUnknowableError)):
            logger.critical("%s", explain(error), extra=event("commit failed"))
        else:
            logger.critical(
                "A step that may be committed can't be answered: %r. The process exits, so that "
                "the next one resumes at the committed index.",
                error,
                exc_info=error,
                extra=event("commit failed"),
            )
    finally:
        end(status)


NOT_ENOUGH: Final = (
    "Out of memory (%s): the server can't serve. No acknowledged step is lost. Free some memory, "
    "or raise the limit: ulimit -v, or MemoryMax of the systemd unit."
)

SIGNS: Final = (
    "failed to map segment",
    "can't start new thread",
    "Cannot allocate memory",
    "unknown encoding",
)
"""Texts of such errors from the dynamic linker, Python and the system; an encoding is a module."""


def is_lack_of_memory(error: BaseException) -> bool:
    """Tell whether ``error`` is due to a lack of memory."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in SIGNS)
