"""Where the index lives: the interface, its errors, and the stores that implement it.

``sqlite`` is the embedded default; ``statefile`` knows its file format, which the maintenance
programs share; ``lock`` makes one process the only writer.
"""

from typing import Protocol

__all__ = [
    "CommitFailedError",
    "ForeignStateError",
    "StateRefusedError",
    "Store",
    "StoreUnavailableError",
]


class StateRefusedError(Exception):
    """The state can't be trusted, so it is not served. The file has not been changed.

    Trying again doesn't help: a person must look. The message names the file and the way out.
    """


class ForeignStateError(StateRefusedError):
    """The file is whole, and another program's or a later version's: it is never replaced."""


class StoreUnavailableError(Exception):
    """The store can't be used now (the disk is full, a device fails, another holds it).

    Nothing has been lost or changed; trying again later may help.
    """


class CommitFailedError(Exception):
    """A commit failed, so what the disk holds is unknown until it is read anew.

    The process that got this must end without answering (fail-stop): after a failed sync a
    second one that succeeds proves nothing. See A. Rebello et al., Can Applications Recover
    from fsync Failures?, USENIX ATC 2020.
    """


class Store(Protocol):
    """Keeps one index durably. One thread at a time may use it."""

    def read(self) -> int:
        """Return the committed index."""

    def commit(self, index: int) -> None:
        """Make ``index`` the committed one; when this returns, it is durable.

        Raises:
            CommitFailedError: it may or may not be durable; end the process.
        """

    def close(self) -> None:
        """Let go of the store; nothing is lost. Closing twice is allowed."""
