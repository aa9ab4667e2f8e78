# cython: language_level=3, boundscheck=False, wraparound=False
# cython: auto_pickle=False, autotestdict=False
"""The sequence: exact numbers, atomic transitions. Pure: no I/O, no clock, no callback.

A snapshot is an immutable object: the index n and the digits of F(n - 1) and F(n). A step computes
the next snapshot without any lock, then swaps it in under one mutex if the sequence has not moved
meanwhile; otherwise it starts over. Nothing that could raise, block or call back runs while the
mutex is held, and a reader always gets a complete snapshot.

Up to F(93) a step adds unsigned 64-bit integers. Past that it adds decimal text (``_digits.h``), so
that no number is ever converted to decimal.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from fibcore.doubling import pair

cdef extern from "_digits.h" nogil:
    bint add_overflows "__builtin_add_overflow"(
        uint64_t a, uint64_t b, uint64_t *total) noexcept
    bint add_text "fib_add_text"(unsigned char *to, const unsigned char *a, Py_ssize_t a_size,
                                 const unsigned char *b, Py_ssize_t b_size) noexcept


# In uint64 arithmetic: the largest integer that SQLite keeps.
MAX_INDEX = 2**63 - 1

# In exact arithmetic: a number of 209 MB.
MAX_EXACT_INDEX = 10**9

# F(93) is the last number that fits in 64 bits.
cdef uint64_t LAST_WORD_INDEX = 93

# An addition shorter than this takes less time than releasing the GIL and acquiring it again.
cdef Py_ssize_t RELEASE_GIL_DIGITS = 8192

# Up to this many steps at once are made by addition; past that the pair is computed from scratch.
cdef uint64_t STEPS_BY_ADDITION = 64


@cython.final
@cython.freelist(64)
cdef class Snapshot:
    """The index of a sequence and its two numbers at one moment: immutable, shared by any threads.

    ``Sequence.snapshot`` and ``Sequence.advance`` make it; it has no public constructor.

    Attributes:
        index: n, from 0.
        current: F(n) as ASCII decimal digits, without a leading zero; F(0) is ``b"0"``.
        previous: F(n - 1), the same; at n = 0 it is ``b"0"``.
    """

    cdef readonly uint64_t index
    cdef readonly bytes previous
    cdef readonly bytes current
    # The pair as machine words: F(n - 1) and F(n) while they fit, or always modulo 2**64.
    cdef uint64_t _before, _word
    cdef bint _modular

    def __init__(self, *args, **kwargs):
        raise TypeError("a Snapshot comes from a Sequence: use Sequence(index).snapshot")

    def __repr__(self):
        return f"<Snapshot at index {self.index}, {len(self.current)} digits>"


@cython.final
cdef class Sequence:
    """The Fibonacci sequence, F(0) = 0 and F(1) = 1, at an index from which it moves forward.

    Thread-safe: ``advance`` hands out every index exactly once.

    Numbers are ``bytes`` of decimal digits, the form in which a step makes them. To convert them
    use ``gmpy2.mpz(digits)``, or the slower ``int(digits)``, which past 4,300 digits needs
    ``sys.set_int_max_str_digits(0)`` first.

    A sequence is also an iterator: each turn of a ``for`` loop makes a step and gets its snapshot.

    Args:
        index: where to start, from 0 to ``MAX_EXACT_INDEX`` (``MAX_INDEX`` for ``uint64``). Exact
            numbers past F(93) come from ``fibcore.doubling``, and take 0.2 bytes per index each.
        integers: ``"exact"``, or ``"uint64"`` for arithmetic modulo 2**64, whose numbers past
            F(93) are not Fibonacci numbers.

    Raises:
        TypeError: ``index`` is not an ``int``.
        ValueError: ``index`` or ``integers`` is out of bounds.
        MemoryError: the two numbers do not fit in memory.
    """

    cdef cython.pymutex _lock
    cdef Snapshot _snapshot
    cdef uint64_t _retries
    cdef uint64_t _largest
    cdef bint _modular

    def __init__(self, index=0, *, integers="exact"):
        if integers not in ("exact", "uint64"):
            raise ValueError(f"integers must be 'exact' or 'uint64', not {integers!r}")
        if type(index) is not int:
            raise TypeError(f"index must be an int, not {type(index).__name__}")
        self._modular = integers == "uint64"
        self._largest = MAX_INDEX if self._modular else MAX_EXACT_INDEX
        if not 0 <= index <= self._largest:
            raise ValueError(f"index must be from 0 to {self._largest}, not {index}")
        self._snapshot = snapshot_at(index, self._modular)

    @property
    def integers(self):
        """The kind of arithmetic."""
        return "uint64" if self._modular else "exact"

    @property
    def retries(self):
        """How many transitions had to start over because another thread's came first."""
        cdef uint64_t retries
        with self._lock:
            retries = self._retries
        return retries

    @property
    def snapshot(self):
        """The index and both numbers at one moment."""
        return self._load()

    @property
    def index(self):
        """The index n."""
        return self._load().index

    @property
    def current(self):
        """The digits of F(n)."""
        return self._load().current

    @property
    def previous(self):
        """The digits of F(n - 1); at n = 0 ``b"0"``."""
        return self._load().previous

    def advance(self, steps=1):
        """Move forward by ``steps`` at once and return the new snapshot.

        One step takes one pass over the digits: time and memory in proportion to the index.
        The GIL is released for numbers of 8,192 digits or more.

        Raises:
            ValueError: ``steps`` is not an ``int`` of at least 1, or leads past the largest index
                (``MAX_EXACT_INDEX``; for ``uint64``, ``MAX_INDEX``). The sequence has not moved.
            MemoryError: the new number does not fit in memory. The sequence has not moved.
        """
        cdef Snapshot old, new
        cdef uint64_t count
        if type(steps) is not int or not 1 <= steps <= self._largest:
            raise ValueError(f"steps must be an int from 1 to {self._largest}, not {steps!r}")
        count = steps
        while True:
            old = self._load()
            if count > self._largest - old.index:
                raise ValueError(
                    f"{steps} steps from index {old.index} lead past the largest index, "
                    f"{self._largest}; the sequence has not moved")
            new = snapshot_after(old, count)
            if self._swap(old, new):
                return new

    def __iter__(self):
        """Return the sequence itself: a ``for`` loop steps it, up to the largest index."""
        return self

    def __next__(self):
        """Make one step, as ``advance`` does."""
        try:
            return self.advance()
        except ValueError:
            raise StopIteration from None

    def __repr__(self):
        return f"<Sequence at index {self.index}, {self.integers}>"

    cdef Snapshot _load(self):
        cdef Snapshot snapshot
        with self._lock:
            snapshot = self._snapshot
        return snapshot

    cdef bint _swap(self, Snapshot old, Snapshot new) noexcept:
        # The caller still holds `old`: dropping the sequence's reference frees nothing here.
        cdef bint swapped
        with self._lock:
            swapped = self._snapshot is old
            if swapped:
                self._snapshot = new
            else:
                self._retries += 1
        return swapped


cdef Snapshot new_snapshot(uint64_t index, bytes previous, bytes current,
                           uint64_t before, uint64_t word, bint modular):
    cdef Snapshot snapshot = Snapshot.__new__(Snapshot)
    snapshot.index = index
    snapshot.previous = previous
    snapshot.current = current
    snapshot._before = before
    snapshot._word = word
    snapshot._modular = modular
    return snapshot


cdef Snapshot snapshot_at(uint64_t index, bint modular):
    """The snapshot at any index, computed from scratch by doubling, exactly or modulo 2**64."""
    cdef uint64_t before, word
    if modular or index <= LAST_WORD_INDEX:
        pair_modulo(index, &before, &word)
        # F(-1) is 1, which the next addition needs; the number served below index 0 is 0.
        previous = b"0" if index == 0 else word_digits(before)
        return new_snapshot(index, previous, word_digits(word), before, word, modular)
    current, previous = pair(index)
    return new_snapshot(index, previous, current, 0, 0, False)


cdef Snapshot snapshot_after(Snapshot snapshot, uint64_t steps):
    cdef uint64_t _step
    if steps > STEPS_BY_ADDITION:
        return snapshot_at(snapshot.index + steps, snapshot._modular)
    for _step in range(steps):
        snapshot = following(snapshot)
    return snapshot


cdef Snapshot following(Snapshot snapshot):
    """The next snapshot."""
    cdef uint64_t total
    cdef bint overflows = add_overflows(snapshot._before, snapshot._word, &total)
    if snapshot._modular or (snapshot.index <= LAST_WORD_INDEX and not overflows):
        return new_snapshot(snapshot.index + 1, snapshot.current, word_digits(total),
                            snapshot._word, total, snapshot._modular)
    return new_snapshot(snapshot.index + 1, snapshot.current,
                        text_sum(snapshot.current, snapshot.previous), 0, 0, False)


cdef void pair_modulo(uint64_t index, uint64_t *before, uint64_t *word) noexcept nogil:
    """F(index - 1) and F(index) modulo 2**64, by doubling, in 64 rounds.

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


def _text_sum(larger, smaller):
    """``text_sum`` for the tests."""
    return text_sum(larger, smaller)


cdef bytes text_sum(bytes larger, bytes smaller):
    """The digits of the sum of two numbers given as digits, ``larger`` no shorter than ``smaller``.

    Each digit is read and written once, unless the sum is one digit longer.
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
