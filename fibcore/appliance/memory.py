"""Whether an error means that memory has run out, as under a limit on it (``ulimit -v``)."""

from typing import Final

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
