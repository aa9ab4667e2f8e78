"""The end of the process: where it is, and the statuses that say why."""

import logging
import os
from collections.abc import Callable
from typing import Final, NoReturn, TypeAlias

End: TypeAlias = Callable[[int], NoReturn]
"""Ends the process with a status."""

EXIT_FAILED: Final = 1
EXIT_DATABASE_INVALID: Final = os.EX_DATAERR
"""What the store holds can't be served from. Starting again does not help: a person must look."""
EXIT_COMMIT_FAILED: Final = os.EX_IOERR
EXIT_SETTINGS_INVALID: Final = os.EX_CONFIG


def end_at_once(status: int) -> NoReturn:
    """End the process with ``status``: no answer leaves any more, and no handler runs.

    Not by way of Python's own end, which waits for threads: one may be in the middle of opening the
    store, or of a commit that nobody waits for. It ends here, and the writer's lock is let go by
    that and by nothing else.
    """
    logging.shutdown()
    os._exit(status)
