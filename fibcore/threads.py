"""What the operating system is told of a thread."""

import contextlib
import threading
from pathlib import Path

__all__ = ["name_thread"]


def name_thread() -> None:
    """Have ``top -H`` and ``ps -L`` show the calling thread by the name that Python has for it.

    Python does so itself from 3.14 on. Of the name 15 characters count: see prctl(2),
    PR_SET_NAME.
    """
    with contextlib.suppress(OSError):
        comm = Path(f"/proc/self/task/{threading.get_native_id()}/comm")
        comm.write_text(threading.current_thread().name)
