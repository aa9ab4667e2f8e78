"""The number at any index, computed from scratch while other threads run.

gmpy2's own ``fib2`` and ``digits`` hold the GIL until they are done: at index 300,000,000 for half
a minute, in which no other thread runs, the event loop included. Its multiplications and divisions
can release the GIL. So the number is computed by doubling, with multiplications, and divided into
pieces whose digits take a millisecond each.
"""

from typing import Final

import gmpy2

AT_ONCE: Final = 16
"""Bits of an index whose number ``fib2`` computes in 0.1 ms."""

PIECE: Final = 2**14
"""Digits made at a time."""


def pair(index: int) -> tuple[bytes, bytes]:
    """The digits of F(``index``) and of F(``index`` - 1), for an index from 1.

    Other threads run meanwhile: up to index 20,000,000 the GIL is never held for more than about
    ten milliseconds.
    """
    if index < 2**AT_ONCE:
        current, previous = gmpy2.fib2(index)
        return current.digits().encode("ascii"), previous.digits().encode("ascii")
    with gmpy2.context(gmpy2.get_context(), allow_release_gil=True):
        current, previous = _numbers(index)
        powers = [gmpy2.mpz(10) ** PIECE]
        while powers[-1] * powers[-1] <= current:
            powers.append(powers[-1] * powers[-1])
        return _digits(current, powers), _digits(previous, powers)


def _numbers(index: int) -> tuple[gmpy2.mpz, gmpy2.mpz]:
    """F(``index``) and F(``index`` - 1), by doubling the first bits of the index."""
    shift = max(0, index.bit_length() - AT_ONCE)
    at = index >> shift
    current, previous = gmpy2.fib2(at)
    while shift:
        shift -= 1
        square, square_before = current * current, previous * previous
        before = square + square_before
        behind = 4 * square - square_before + (-2 if at % 2 else 2)
        at = index >> shift
        # F(2k - 1) and F(2k + 1) are known, and with them F(2k).
        current, previous = (behind, behind - before) if at % 2 else (behind - before, before)
    return current, previous


def _digits(number: gmpy2.mpz, powers: list[gmpy2.mpz]) -> bytes:
    """The digits of ``number``, which is less than the square of the last of the ``powers``."""
    pieces = [number]
    for power in reversed(powers):
        pieces = [part for piece in pieces for part in divmod(piece, power)]
    return b"".join(_filled(piece) for piece in pieces).lstrip(b"0") or b"0"


def _filled(piece: gmpy2.mpz) -> bytes:
    text: str = piece.digits()
    return text.zfill(PIECE).encode("ascii")
