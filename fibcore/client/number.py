"""What a client gets: a number with its index."""

from dataclasses import dataclass, field

import gmpy2


@dataclass(frozen=True, slots=True)
class Number:
    """The Fibonacci number at an index, exact at any length.

    ``int(number)`` takes time little more than in proportion to the digits. It does not depend on
    ``sys.set_int_max_str_digits``, which ``int(number.digits)`` does past 4,300 digits.
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
