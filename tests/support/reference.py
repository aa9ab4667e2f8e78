"""The obvious models that the tests hold the real thing against."""

import itertools
import math
from collections.abc import Iterator

import gmpy2


def numbers() -> Iterator[int]:
    """F(0), F(1), F(2), … as the definition has it."""
    a, b = 0, 1
    while True:
        yield a
        a, b = b, a + b


def fibonacci(index: int) -> int:
    """F(index), from gmpy2; below 0 it is 0, as it is served."""
    return int(gmpy2.fib(max(index, 0)))


def digits_of(index: int) -> bytes:
    """The decimal digits of F(index), below 0 those of 0. Not bound to Python's 4,300 digits."""
    return bytes(gmpy2.fib(max(index, 0)).digits(), "ascii")


def fibonacci_modulo(index: int) -> int:
    """F(index) modulo 2**64 at any index: the Lucas sequence U(1, -1), from gmpy2."""
    return int(gmpy2.lucasu_mod(1, -1, index, 2**64)) if index > 0 else 0


def crossing(length: int) -> int:
    """The index of the first Fibonacci number of more than ``length`` digits."""
    golden = math.log10((1 + math.sqrt(5)) / 2)
    near = max(0, math.floor((length + math.log10(5) / 2) / golden) - 2)
    return next(n for n in itertools.count(near) if len(digits_of(n)) > length)
