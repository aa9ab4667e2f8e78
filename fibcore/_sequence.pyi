"""The sequence: exact numbers, locked transitions. Pure: no I/O, no clock, no callback."""

from typing import Final, Literal, Never, final

MAX_INDEX: Final[int]
"""The largest index in ``uint64`` arithmetic: 2**63 - 1, the largest integer that SQLite keeps."""

MAX_EXACT_INDEX: Final[int]
"""The largest index in exact arithmetic: 10**9, a number of 209 MB."""

@final
class Snapshot:
    """Where a sequence stood at one moment: immutable, so it may be shared between threads.

    It comes from ``Sequence.snapshot`` and ``Sequence.advance``.
    """

    def __init__(self, *args: Never, **kwargs: Never) -> None:
        """Raise ``TypeError``: a snapshot is not built by hand."""

    @property
    def index(self) -> int:
        """The index n, from 0."""

    @property
    def current(self) -> bytes:
        """F(n) as ASCII decimal digits, without a leading zero; F(0) is ``b"0"``."""

    @property
    def previous(self) -> bytes:
        """F(n - 1) as ASCII decimal digits; at n = 0 it is ``b"0"``."""

@final
class Sequence:
    """The Fibonacci sequence, F(0) = 0 and F(1) = 1, standing at an index and moving forward.

    It is safe to use from several threads: every index is handed out by ``advance`` exactly once.

    Numbers are ``bytes`` of decimal digits, because that is the form in which a step makes them:
    ``int(digits)`` converts (past 4,300 digits after ``sys.set_int_max_str_digits(0)``), and so
    does ``gmpy2.mpz(digits)``, faster.

    Args:
        index: where to start, from 0 to ``MAX_EXACT_INDEX`` (``MAX_INDEX`` for ``uint64``). Any
            start costs one ``gmpy2.fib2`` and the digits of two numbers, about 0.2 bytes an
            index each.
        integers: ``"exact"``, or ``"uint64"`` for arithmetic modulo 2**64, whose numbers past
            F(93) are not Fibonacci numbers.

    Raises:
        TypeError: ``index`` is not an ``int``.
        ValueError: ``index`` or ``integers`` is out of bounds.
        MemoryError: the two numbers do not fit in memory.
    """

    def __init__(
        self, index: int = 0, *, integers: Literal["exact", "uint64"] = "exact"
    ) -> None: ...
    @property
    def integers(self) -> Literal["exact", "uint64"]:
        """The kind of arithmetic."""

    @property
    def snapshot(self) -> Snapshot:
        """The index and both numbers, as they stood together at one moment."""

    @property
    def index(self) -> int:
        """The index n."""

    @property
    def current(self) -> bytes:
        """The digits of F(n)."""

    @property
    def previous(self) -> bytes:
        """The digits of F(n - 1); at n = 0 ``b"0"``."""

    @property
    def retries(self) -> int:
        """How often a transition had to begin again because another thread's came first."""

    def advance(self, steps: int = 1) -> Snapshot:
        """Move forward by ``steps`` at once and return the snapshot reached.

        One step costs one pass over the digits (time and memory in proportion to the index).
        The GIL is released for numbers of more than 8,192 digits.

        Raises:
            ValueError: ``steps`` is not an ``int`` of at least 1, or leads past the largest
                index, which is ``MAX_EXACT_INDEX`` or, for ``uint64``, ``MAX_INDEX``. The
                sequence has not moved.
            MemoryError: the new number does not fit in memory. The sequence has not moved.
        """

def _text_sum(larger: bytes, smaller: bytes) -> bytes:
    """The digits of a sum, for the tests: ``larger`` is no shorter than ``smaller``."""
