# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=False
"""The sequence: exact numbers, locked transitions. Pure: no I/O, no clock, no callback.

A state is an immutable object: the index and the digits of the two neighbours. A step computes
the state that follows, without any lock, and then swaps it in under one mutex, if the sequence
still stands where the computation began; else it begins again. So nothing that could raise,
block or call back ever happens while the mutex is held, and a reader gets a whole state.

Up to F(93) a step is an addition of unsigned 64-bit integers. Past that it is an addition of
decimal text, eight digits to a machine word, so that no number is ever converted to decimal.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

import gmpy2

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    static inline uint64_t fib_load_be64(const unsigned char *from) {
        uint64_t word;
        memcpy(&word, from, sizeof word);
    #if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        word = __builtin_bswap64(word);
    #endif
        return word;
    }

    static inline void fib_store_be64(unsigned char *to, uint64_t word) {
    #if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        word = __builtin_bswap64(word);
    #endif
        memcpy(to, &word, sizeof word);
    }

    static inline int fib_add_overflows(uint64_t a, uint64_t b, uint64_t *sum) {
        return __builtin_add_overflow(a, b, sum);
    }
    """
    uint64_t load_be64 "fib_load_be64"(const unsigned char *source) noexcept nogil
    void store_be64 "fib_store_be64"(unsigned char *to, uint64_t word) noexcept nogil
    bint add_overflows "fib_add_overflows"(uint64_t a, uint64_t b, uint64_t *total) noexcept nogil


MAX_INDEX = 2**63 - 1
MAX_EXACT_INDEX = 10**9

cdef uint64_t LARGEST_INDEX = MAX_INDEX
cdef uint64_t LARGEST_EXACT_INDEX = MAX_EXACT_INDEX

# F(93) is the last number that fits in 64 bits.
cdef uint64_t LAST_WORD_INDEX = 93

# An addition shorter than this takes less time than letting go of the GIL and taking it again.
cdef Py_ssize_t RELEASE_GIL_DIGITS = 8192

# Up to so many steps at once are added one by one; past that the pair is computed anew.
cdef uint64_t STEPS_BY_ADDITION = 64


@cython.final
@cython.freelist(64)
cdef class State:
    cdef readonly uint64_t index
    cdef readonly bytes previous
    cdef readonly bytes current
    # The pair as machine words: F(n - 1) and F(n) while they fit, or modulo 2**64 for ever.
    cdef uint64_t _before, _word
    cdef bint _modular

    def __init__(self):
        raise TypeError("a State comes from a Sequence: use Sequence(index).state")

    def __repr__(self):
        return f"<State at index {self.index}, {len(self.current)} digits>"


@cython.final
cdef class Sequence:
    cdef cython.pymutex _lock
    cdef State _state
    cdef uint64_t _retries
    cdef bint _modular

    def __init__(self, index=0, *, integers="exact"):
        if integers not in ("exact", "uint64"):
            raise ValueError(f"integers must be 'exact' or 'uint64', not {integers!r}")
        if not isinstance(index, int) or isinstance(index, bool):
            raise TypeError(f"index must be an int, not {type(index).__name__}")
        self._modular = integers == "uint64"
        self._check_bounds(index)
        self._state = state_at(index, self._modular)

    cdef _check_bounds(self, index):
        largest = MAX_INDEX if self._modular else MAX_EXACT_INDEX
        if not 0 <= index <= largest:
            raise ValueError(f"index must be from 0 to {largest}, not {index}")

    @property
    def integers(self):
        return "uint64" if self._modular else "exact"

    @property
    def retries(self):
        cdef uint64_t retries
        with self._lock:
            retries = self._retries
        return retries

    @property
    def state(self):
        return self._snapshot()

    @property
    def index(self):
        return self._snapshot().index

    @property
    def current(self):
        return self._snapshot().current

    @property
    def previous(self):
        return self._snapshot().previous

    def advance(self, steps=1):
        cdef State old, new
        cdef uint64_t count
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(f"steps must be an int of at least 1, not {steps!r}")
        while True:
            old = self._snapshot()
            self._check_bounds(old.index + steps)
            count = steps
            new = state_after(old, count)
            if self._swap(old, new):
                return new

    def __repr__(self):
        return f"<Sequence at index {self.index}, {self.integers}>"

    cdef State _snapshot(self):
        cdef State state
        with self._lock:
            state = self._state
        return state

    cdef bint _swap(self, State old, State new) noexcept:
        # The caller still holds `old`, so dropping the sequence's own reference to it frees
        # nothing here.
        cdef bint swapped
        with self._lock:
            swapped = self._state is old
            if swapped:
                self._state = new
            else:
                self._retries += 1
        return swapped


cdef State new_state(uint64_t index, bytes previous, bytes current,
                     uint64_t before, uint64_t word, bint modular):
    cdef State state = State.__new__(State)
    state.index = index
    state.previous = previous
    state.current = current
    state._before = before
    state._word = word
    state._modular = modular
    return state


cdef State state_at(uint64_t index, bint modular):
    """The state at any index, from nothing: gmpy2's fast doubling, or doubling modulo 2**64."""
    cdef uint64_t before, word
    if modular or index <= LAST_WORD_INDEX:
        pair_modulo(index, &before, &word)
        # F(-1) is 1, which the next addition needs; what is served below 0 is 0.
        previous = b"0" if index == 0 else word_digits(before)
        return new_state(index, previous, word_digits(word), before, word, modular)
    current, previous = gmpy2.fib2(index)
    return new_state(
        index, previous.digits().encode("ascii"), current.digits().encode("ascii"), 0, 0, False)


cdef State state_after(State state, uint64_t steps):
    cdef uint64_t step
    if steps > STEPS_BY_ADDITION:
        return state_at(state.index + steps, state._modular)
    for step in range(steps):
        state = following(state)
    return state


cdef State following(State state):
    """The state one step on."""
    cdef uint64_t total
    if state._modular or state.index < LAST_WORD_INDEX:
        if add_overflows(state._before, state._word, &total) and not state._modular:
            raise AssertionError("unreachable: F(93) fits in 64 bits")
        return new_state(state.index + 1, state.current, word_digits(total),
                         state._word, total, state._modular)
    return new_state(state.index + 1, state.current, text_sum(state.current, state.previous),
                     0, 0, False)


cdef void pair_modulo(uint64_t index, uint64_t *before, uint64_t *word) noexcept nogil:
    """F(index - 1) and F(index) modulo 2**64, by doubling: 64 rounds at the most.

    F(2k) = F(k) (2 F(k - 1) + F(k)) and F(2k - 1) = F(k)^2 + F(k - 1)^2.
    """
    cdef uint64_t a = 1, b = 0, even, odd
    cdef int bit
    for bit in range(63, -1, -1):
        even = b * (2 * a + b)
        odd = b * b + a * a
        a, b = odd, even
        if (index >> bit) & 1:
            a, b = b, a + b
    before[0] = a
    word[0] = b


cdef bytes word_digits(uint64_t word):
    cdef char text[20]
    cdef int at = 20
    while True:
        at -= 1
        text[at] = <char> (48 + word % 10)
        word //= 10
        if word == 0:
            return PyBytes_FromStringAndSize(text + at, 20 - at)


cdef bytes text_sum(bytes larger, bytes smaller):
    """The digits of the sum of two numbers given as digits, `larger` no shorter than `smaller`.

    Each digit is read once and written once, except where the sum is one digit longer.
    """
    cdef Py_ssize_t size = PyBytes_GET_SIZE(larger)
    cdef Py_ssize_t smaller_size = PyBytes_GET_SIZE(smaller)
    cdef bytes total = PyBytes_FromStringAndSize(NULL, size)
    cdef bytes longer
    cdef unsigned char *to = <unsigned char *> PyBytes_AS_STRING(total)
    cdef const unsigned char *a = <const unsigned char *> PyBytes_AS_STRING(larger)
    cdef const unsigned char *b = <const unsigned char *> PyBytes_AS_STRING(smaller)
    cdef bint carry
    if size < RELEASE_GIL_DIGITS:
        carry = add_text(to, a, size, b, smaller_size)
    else:
        with nogil:
            carry = add_text(to, a, size, b, smaller_size)
    if not carry:
        return total
    longer = PyBytes_FromStringAndSize(NULL, size + 1)
    PyBytes_AS_STRING(longer)[0] = b"1"
    memcpy(PyBytes_AS_STRING(longer) + 1, to, size)
    return longer


cdef bint add_text(unsigned char *to, const unsigned char *a, Py_ssize_t a_size,
                   const unsigned char *b, Py_ssize_t b_size) noexcept nogil:
    """Adds decimal text from its last digit on; writes a_size digits and returns the carry.

    In a word of eight digits each byte of the one addend is raised by 0x96, so that two digits
    and a carry that make ten or more make 0x100 or more: the binary carry is the decimal carry.
    A byte that did not carry is then 0xF6 to 0xFF, its digit the low nibble less 6; a byte that
    did is 0 to 9. See D. E. Knuth, The Art of Computer Programming 4A, 7.1.3, on working with
    several small numbers in one word.
    """
    cdef uint64_t x, total, kept, carry = 0
    cdef int digit
    while b_size >= 8:
        a_size -= 8
        b_size -= 8
        x = load_be64(a + a_size)
        total = x + (load_be64(b + b_size) + <uint64_t> 0x9696969696969696)
        kept = total
        total += carry
        carry = (kept < x) | (total < kept)
        kept = (total >> 7) & <uint64_t> 0x0101010101010101
        total = (total & <uint64_t> 0x0F0F0F0F0F0F0F0F) - kept * 6
        store_be64(to + a_size, total | <uint64_t> 0x3030303030303030)
    while a_size > 0:
        a_size -= 1
        b_size -= 1
        digit = a[a_size] + <int> carry
        if b_size >= 0:
            digit += b[b_size] - 48
        carry = digit > 57
        if carry:
            digit -= 10
        to[a_size] = <unsigned char> digit
    return carry
