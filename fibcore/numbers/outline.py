"""A number at any index, without a server: its outline at once, its digits piece by piece."""

import resource
from collections.abc import Callable, Iterator
from typing import Final, Literal, NamedTuple

import gmpy2

from fibcore._sequence import Sequence

SHOWN: Final = 20
"""Digits at either end of an outline."""

PIECE: Final = 2**20
"""Digits."""

BYTES_PER_DIGIT: Final = 4
"""Peak bytes of memory per digit, rounded up."""

COMPUTED: Final = 1000
"""Past this index an outline comes from logarithms and remainders, not from the number."""


class Outline(NamedTuple):
    """The shape of a long number."""

    digits: int
    """Their count."""
    first: str
    last: str


def outline(index: int, integers: Literal["exact", "uint64"] = "exact") -> Outline:
    """Return the outline of the number at ``index``, at once whatever the index."""
    if integers == "uint64" or index <= COMPUTED:
        text = Sequence(index, integers=integers).current.decode()
        return Outline(len(text), text[:SHOWN], text[-SHOWN:])
    # F(n) is phi**n / sqrt(5) to more digits than are shown; 256 bits keep 40 of them right.
    with gmpy2.context(precision=256):
        root = gmpy2.sqrt(gmpy2.mpfr(5))
        logarithm = index * gmpy2.log10((1 + root) / 2) - gmpy2.log10(root)
        whole = int(gmpy2.floor(logarithm))
        first = int(gmpy2.floor(gmpy2.exp10(logarithm - whole + SHOWN - 1)))
    # U(1, -1) is the Lucas sequence that is Fibonacci's.
    last = int(gmpy2.lucasu_mod(1, -1, index, 10**SHOWN))
    return Outline(whole + 1, str(first), f"{last:0{SHOWN}}")


def digits(
    index: int,
    integers: Literal["exact", "uint64"] = "exact",
    report: Callable[[float], object] = lambda _: None,
) -> Iterator[str]:
    """Yield the digits of the number at ``index`` in pieces, from the first on.

    Args:
        index: from 0; 10**9 takes about a minute.
        integers: as for ``Sequence``.
        report: called with the completed share, from 0 to 1.

    Raises:
        MemoryError: a limit on the memory of this process leaves too little.
    """
    report(0)
    if integers == "uint64":
        yield Sequence(index, integers=integers).current.decode()
    else:
        total = outline(index).digits
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY and BYTES_PER_DIGIT * total > limit:
            # GMP would end the process with a cryptic message.
            raise MemoryError
        done = 0
        for piece in _pieces(gmpy2.fib(index), total):
            yield piece
            done += len(piece)
            report(done / total)


def _pieces(number: gmpy2.mpz, size: int) -> Iterator[str]:
    """The digits of ``number``, padded with zeros to ``size``."""
    if size <= PIECE:
        yield number.digits().zfill(size)
        return
    low = PIECE
    while 2 * low < size:
        low *= 2
    high, rest = gmpy2.f_divmod(number, gmpy2.mpz(10) ** low)
    yield from _pieces(high, size - low)
    yield from _pieces(rest, low)
