"""GMP without the GIL: a number at any index as its digits, beside whatever else Python does.

gmpy2 keeps the GIL while it makes digits, which takes 0.3 s at ten million. The functions here are
those of the very GMP that gmpy2 has brought, called by ctypes, which lets go of the GIL for each.
See https://gmplib.org/manual/Number-Theoretic-Functions and .../Converting-Integers.
"""

import ctypes
from typing import Final

import gmpy2

__all__ = ["WORKING_MEMORY", "fibonacci_digits", "most_digits"]

WORKING_MEMORY: Final = 4
"""Bytes that are in use at most for each digit, while it is worked out: 3.64 at ten million."""

DIGITS_AN_INDEX: Final = 0.2089876402499787
"""The decimal logarithm of the golden ratio, rounded up."""


class _Integer(ctypes.Structure):
    """``mpz_t``."""

    _fields_ = (
        ("allocated", ctypes.c_int),
        ("size", ctypes.c_int),
        ("limbs", ctypes.c_void_p),
    )


_gmp = ctypes.CDLL(gmpy2.gmpy2.__file__)
_number = ctypes.POINTER(_Integer)
_init, _fib, _get_str, _clear = (
    _gmp[f"__gmpz_{name}"] for name in ("init", "fib_ui", "get_str", "clear")
)
_init.argtypes = _clear.argtypes = (_number,)
_fib.argtypes = (_number, ctypes.c_ulong)
_get_str.argtypes = (ctypes.c_void_p, ctypes.c_int, _number)
_init.restype = _fib.restype = _clear.restype = None
_get_str.restype = ctypes.c_void_p
_free = ctypes.CDLL(None).free
_free.argtypes = (ctypes.c_void_p,)
_free.restype = None


def most_digits(index: int) -> int:
    """How many digits F(``index``) has, or one more."""
    return int(index * DIGITS_AN_INDEX) + 1


def fibonacci_digits(index: int) -> bytes:
    """The digits of F(``index``), from 0, worked out from nothing.

    It takes up to ``WORKING_MEMORY`` bytes for each of ``most_digits``; GMP ends the process where
    there is less.
    """
    number = _Integer()
    _init(number)
    try:
        _fib(number, index)
        digits = _get_str(None, 10, number)
    finally:
        _clear(number)
    try:
        return ctypes.string_at(digits)
    finally:
        _free(digits)
