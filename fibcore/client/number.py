"""What a client returns: a number with its index."""

from dataclasses import dataclass, field

import gmpy2


@dataclass(frozen=True, slots=True)
class Number:
    """The Fibonacci number at an index, exact at any length.

    ``int(number)`` takes little more than linear time. Unlike ``int(number.digits)``, it is not
    subject to ``sys.set_int_max_str_digits``, 4,300 by default.
    """

    index: int
    """The number is F(index)."""
    digits: str = field(repr=False)
    """In decimal."""
    exact: bool = True
    """False past F(93) from a server with ``FIB_INTEGERS=uint64``: modulo 2^64."""

    def __int__(self) -> int:
        return int(gmpy2.mpz(self.digits))

    def __str__(self) -> str:
        return self.digits
