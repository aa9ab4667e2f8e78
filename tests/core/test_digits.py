"""The addition of decimal text: the portable variant, and those for vector units.

Its source is compiled as a library whose functions are called with unaligned addresses, and must
not change the bytes around the result.
"""

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path

import gmpy2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support import requires

SOURCE = """
#include "_digits.h"

unsigned for_this_processor(unsigned char *to, const unsigned char *a, ptrdiff_t a_size,
                            const unsigned char *b, ptrdiff_t b_size) {
    return fib_add_text(to, a, a_size, b, b_size);
}

unsigned portable(unsigned char *to, const unsigned char *a, ptrdiff_t a_size,
                  const unsigned char *b, ptrdiff_t b_size) {
    return fib_add_words(to, a, a_size, b, b_size, 0);
}

#if defined(__x86_64__) && defined(__GNUC__)
unsigned avx2(unsigned char *to, const unsigned char *a, ptrdiff_t a_size,
              const unsigned char *b, ptrdiff_t b_size) {
    return fib_add_avx2(to, a, a_size, b, b_size);
}

int has_avx2(void) { return __builtin_cpu_supports("avx2"); }

unsigned avx512(unsigned char *to, const unsigned char *a, ptrdiff_t a_size,
                const unsigned char *b, ptrdiff_t b_size) {
    return fib_add_avx512(to, a, a_size, b, b_size);
}

int has_avx512(void) { return fib_has_avx512(); }
#endif
"""

HEADERS = Path(__file__).parents[2] / "fibcore"
GUARD = b"\xa5" * 64

Add = Callable[[bytes, bytes, int], bytes]


@pytest.fixture(scope="module")
def library(processes: None, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:  # noqa: ARG001
    folder = tmp_path_factory.mktemp("digits")
    compiler = requires.program("gcc")
    source, target = folder / "digits.c", folder / "digits.so"
    source.write_text(SOURCE)
    flags = ["-O3", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{HEADERS}"]
    subprocess.run([compiler, *flags, source, "-o", target], check=True)
    return ctypes.CDLL(str(target))


@pytest.fixture(scope="module", params=["for_this_processor", "portable", "avx2", "avx512"])
def add(request: pytest.FixtureRequest, library: ctypes.CDLL) -> Add:
    form: str = request.param
    if "avx" in form and not (hasattr(library, f"has_{form}") and library[f"has_{form}"]()):
        pytest.skip(f"this processor has no {form}")
    function = library[form]
    function.restype = ctypes.c_uint
    function.argtypes = [
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_ssize_t,
        ctypes.c_char_p,
        ctypes.c_ssize_t,
    ]

    def call(a: bytes, b: bytes, offset: int) -> bytes:
        room = ctypes.create_string_buffer(GUARD + bytes(offset + len(a)) + GUARD)
        start = ctypes.addressof(room) + len(GUARD) + offset
        carry: int = function(start, a, len(a), b, len(b))
        assert carry in (0, 1)
        written = room.raw[len(GUARD) + offset :]
        assert room.raw[: len(GUARD) + offset] == GUARD + bytes(offset)
        assert written[len(a) :] == GUARD + b"\0"
        return b"1" * carry + written[: len(a)]

    return call


def runs_of_digits(least: int, most: int) -> st.SearchStrategy[bytes]:
    """Long runs of one digit, most often nines, with random digits between them."""
    run = st.tuples(st.sampled_from("99990158"), st.integers(1, 70)).map(lambda of: of[0] * of[1])
    pieces = st.lists(run | st.from_regex(r"[0-9]{1,9}", fullmatch=True), min_size=1, max_size=9)
    lengths = st.integers(least, most) | st.sampled_from(
        [n + d for n in (8, 16, 32, 64, 96, 128, 256) for d in (-1, 0, 1) if n + d <= most]
    )
    return st.tuples(pieces, lengths).map(lambda of: ("".join(of[0]) * of[1])[: of[1]].encode())


NUMBERS = runs_of_digits(1, 400)


@given(NUMBERS, NUMBERS, st.integers(0, 33))
@example(b"9", b"1", 0)
@example(b"9" * 31, b"1", 1)
@example(b"9" * 32, b"1", 0)
@example(b"9" * 33, b"1", 0)
@example(b"9" * 400, b"0" * 399 + b"1", 0)
@example(b"9" * 400, b"9" * 400, 7)
@example(b"0" * 64, b"0" * 64, 0)
@example(b"4" * 64, b"5" * 63 + b"6", 0)
def test_the_sum_agrees_with_gmpy2(add: Add, a: bytes, b: bytes, offset: int) -> None:
    larger, smaller = (a, b) if len(a) >= len(b) else (b, a)
    total = gmpy2.mpz(a.decode()) + gmpy2.mpz(b.decode())
    expected = total.digits().rjust(len(larger), "0").encode()
    assert add(larger, smaller, offset) == expected


def test_a_carry_propagates_through_nines_from_any_place(add: Add) -> None:
    for length in range(1, 130):
        nines = b"9" * length
        for place in range(length):
            one = b"1" + b"0" * place
            total = gmpy2.mpz(nines.decode()) + gmpy2.mpz(one.decode())
            assert add(nines, one, 0) == total.digits().encode()


def test_every_pair_of_digits_is_correct_at_every_place(add: Add) -> None:
    """With and without a carry."""
    for place in range(65):
        for carry in (False, True):
            below = b"9" * place if carry else b"0" * place
            one = b"0" * (place - 1) + b"1" if carry and place else b"0" * place
            for digit in b"0123456789":
                for other in b"0123456789":
                    a, b = bytes([digit]) + below, bytes([other]) + one
                    expected = str(int(a) + int(b)).rjust(len(a), "0").encode()
                    assert add(a, b, 0) == expected
