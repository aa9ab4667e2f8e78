"""The end of the process: the one place where it is, the statuses and the words that say why."""

import logging
import os
from collections.abc import Callable
from typing import Final, NoReturn, TypeAlias

from fibcore.events import event
from fibcore.problems import (
    BatchUnknowableError,
    CommitFailedError,
    IndexRegressedError,
    explain,
    typed,
)

logger = logging.getLogger("fibcore")

End: TypeAlias = Callable[[int], NoReturn]
"""Ends the process with a status."""

EXIT_FAILED: Final = 1
EXIT_DATABASE_INVALID: Final = os.EX_DATAERR
"""What the store holds can't be served from. Starting again does not help: a person must look."""
EXIT_COMMIT_FAILED: Final = os.EX_IOERR
EXIT_SETTINGS_INVALID: Final = os.EX_CONFIG


START_SERVERS: Final = "supervisorctl start 'web:*'"


def how_to_start_again(status: int) -> str:
    """Say how a server that ends with ``status`` is started again, in the way that it was."""
    if "SUPERVISOR_ENABLED" not in os.environ:
        return "Then start it again."
    # systemd(1) names the process that it has started: here supervisord, whose settings we have.
    is_service = os.environ.get("SYSTEMD_EXEC_PID") == str(os.getppid())
    if status != EXIT_SETTINGS_INVALID:
        return f"Then: {typed(START_SERVERS)}."
    return "Then: sudo systemctl restart fibcore." if is_service else "Then: Ctrl-C, and make run."


def end_at_once(status: int) -> NoReturn:
    """End the process with ``status``: no answer leaves any more, and no handler runs.

    Not by way of Python's own end, which waits for threads: one may be in the middle of opening the
    store, or of a commit that nobody waits for. It ends here, and the writer's lock is let go by
    that and by nothing else.
    """
    logging.shutdown()
    os._exit(status)


def fail_stop(error: BaseException, end: End = end_at_once) -> NoReturn:
    """End the process: a step that may be committed can't be answered, for ``error``."""
    status = EXIT_COMMIT_FAILED
    if isinstance(error, (CommitFailedError, BatchUnknowableError)):
        logger.critical("%s", explain(error), extra=event("commit failed"))
    elif isinstance(error, IndexRegressedError):
        logger.critical("%s", explain(error), extra=event("fell back"))
        # The next process would answer steps a second time, so that a person is asked first.
        status = EXIT_DATABASE_INVALID
    else:
        logger.critical(
            "A step that may be committed can't be answered: %r. The process ends, so that the "
            "next one goes on from what is committed.",
            error,
            exc_info=error,
            extra=event("commit failed"),
        )
    end(status)


NOT_ENOUGH: Final = (
    "There is not enough memory to serve (%s). No answered step is lost. Free some, or raise the "
    "limit: ulimit -v, or MemoryMax of the systemd unit."
)

SIGNS: Final = (
    "failed to map segment",
    "can't start new thread",
    "Cannot allocate memory",
    "unknown encoding",
)
"""What the dynamic linker, Python and the system say then; an encoding is a module to import."""


def is_lack_of_memory(error: BaseException) -> bool:
    """Tell whether ``error`` came of a lack of memory."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in SIGNS)
