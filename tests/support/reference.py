"""Simple reference implementations, mostly from gmpy2, to compare results with."""

import itertools
import math
from collections.abc import Iterator

import gmpy2


def numbers() -> Iterator[int]:
    """Yield F(0), F(1), F(2), … from the definition."""
    a, b = 0, 1
    while True:
        yield a
        a, b = b, a + b


def fibonacci(index: int) -> int:
    """Return F(index); 0 below index 0, as ``/previous`` is served."""
    return int(gmpy2.fib(max(index, 0)))


def digits_of(index: int) -> bytes:
    """Return the digits of ``fibonacci(index)``, without Python's limit of 4,300 digits."""
    return bytes(gmpy2.fib(max(index, 0)).digits(), "ascii")


def fibonacci_modulo(index: int) -> int:
    """Return F(index) modulo 2**64, by the Lucas sequence U(1, -1)."""
    return int(gmpy2.lucasu_mod(1, -1, index, 2**64)) if index > 0 else 0


def crossing(length: int) -> int:
    """Return the index of the first Fibonacci number with more than ``length`` digits."""
    golden = math.log10((1 + math.sqrt(5)) / 2)
    near = max(0, math.floor((length + math.log10(5) / 2) / golden) - 2)
    return next(n for n in itertools.count(near) if len(digits_of(n)) > length)
