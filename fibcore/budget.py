"""The bound on the bytes of answers that have been made and not yet sent."""

from typing import Final

__all__ = ["UNCOUNTED_DIGITS", "Budget"]

UNCOUNTED_DIGITS: Final = 4096
"""A number of fewer digits isn't counted: the bound on connections bounds those."""


class Budget:
    """Counts the digits that answers hold, each number once however many answers share it.

    Not for several threads: it belongs to the event loop.

    Args:
        limit: bytes.
    """

    __slots__ = ("_holders", "limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        """Bytes held now."""
        # The digits stand in the value so that their id stays theirs while they are counted.
        self._holders: dict[int, tuple[bytes, int]] = {}

    def fits(self, size: int) -> bool:
        """Tell whether ``size`` more bytes stay within the limit."""
        return size < UNCOUNTED_DIGITS or self.used + size <= self.limit

    def fits_shared(self, digits: bytes) -> bool:
        """Tell whether one more answer with ``digits`` stays within the limit."""
        return id(digits) in self._holders or self.fits(len(digits))

    def hold(self, digits: bytes) -> None:
        """Count an answer that holds ``digits``. A caller that may refuse asks ``fits`` first."""
        if len(digits) < UNCOUNTED_DIGITS:
            return
        _, holders = self._holders.get(id(digits), (digits, 0))
        if not holders:
            self.used += len(digits)
        self._holders[id(digits)] = (digits, holders + 1)

    def release(self, digits: bytes) -> None:
        """Undo one ``hold`` of the same object."""
        if len(digits) < UNCOUNTED_DIGITS:
            return
        _, holders = self._holders[id(digits)]
        if holders > 1:
            self._holders[id(digits)] = (digits, holders - 1)
        else:
            del self._holders[id(digits)]
            self.used -= len(digits)
