"""Checks the answers of a load, each one and all together, for the tests and the benchmark.

A history is what clients know of a run: for each request, when it was sent, when its answer had
arrived, and the answer. All times are from one machine's clock, so that "answered before the other
was sent" is well defined.

A history is right if there is an order of its requests in which one correct sequence, serving one
request at a time, would have given the same answers, and in which no request precedes another that
was answered before it was sent (linearizability: M. Herlihy and J. Wing, 1990). For a sequence no
search for that order is needed, since an answer's index gives its position. These rules suffice; a
brute-force search over all orders, in tests/bench/test_checker.py, agrees with them:

1. No index is answered to two steps.
2. Nothing goes back: a step has a higher index than every answer received before it was sent, and
   a read has no lower one. (A read ahead of the commits is therefore detected by the step that gets
   the same index later.)
3. Each index without an answer was taken by a step without an answer that was sent before a later
   index was answered.
4. The final index is not lower than any answered one.
5. Every number is that of its index.
6. A step with a condition was made from the index that the condition names.

Rule 3 is equivalent to "no step is lost or made twice" when answers can be lost.

Numbers are compared by their residues, with a table that grows by one addition per index: modulo
the prime 2^61 - 1 if numbers are exact, and modulo 2^64 with uint64. The table does not depend on
the server under test.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, Literal, NamedTuple

import gmpy2

Integers = Literal["exact", "uint64"]
Endpoint = Literal["current", "next", "previous"]
ENDPOINTS: Final[tuple[Endpoint, ...]] = ("current", "next", "previous")
# A wrong exact number passes once in 2^61. Modulo 2^64, only its last 64 digits would count.
MODULUS: Final[dict[Integers, int]] = {"exact": 2**61 - 1, "uint64": 2**64}
# Far more steps than any load makes: an index past it is wrong, and must not fill the memory.
MAX_SPAN: Final = 10_000_000


class WrongAnswer(AssertionError):  # noqa: N818 - not an error of the program
    """An answer, or the answers together, violate the contract; the text says how."""


def index_of(etag: str | None) -> int:
    """The index in an ETag of any representation. Raises WrongAnswer if there is none."""
    match = re.fullmatch(r'"(\d+)(?:-uint64)?(?:-text)?"', etag or "", re.ASCII)
    if match is None:
        raise WrongAnswer(f"ETag {etag!r} is not an index in quotes")
    return int(match[1])


def residue_of(endpoint: str, body: bytes, integers: Integers = "exact") -> int:
    """The number of a body, modulo MODULUS. Raises WrongAnswer if a byte is wrong."""
    head, digits = b'{"%b": ' % endpoint.encode(), body[len(endpoint) + 5 : -1]
    if not (body.startswith(head) and body.endswith(b"}") and digits.isdigit()):
        raise WrongAnswer(f"/{endpoint}: body {body[:60]!r} is not a number under its name")
    if digits.startswith(b"0") and digits != b"0":
        raise WrongAnswer(f"/{endpoint}: {digits[:20]!r} has a leading zero")
    return int(gmpy2.mpz(digits) % MODULUS[integers])


class Residues:
    """F(i) modulo the modulus, for every index i from `start - 1` (at least 0)."""

    def __init__(self, integers: Integers, start: int) -> None:
        self.modulus = MODULUS[integers]
        self.start = start
        self._first = max(start - 1, 0)
        above, here = gmpy2.fib2(self._first + 1)
        self._table = [int(here % self.modulus), int(above % self.modulus)]

    def at(self, index: int) -> int:
        """F(index) modulo the modulus. Raises WrongAnswer before the start or far past it."""
        place = index - self._first
        if not 0 <= place < MAX_SPAN:
            raise WrongAnswer(f"index {index} when the sequence started at {self.start}")
        table, modulus = self._table, self.modulus
        while place >= len(table):
            table.append((table[-2] + table[-1]) % modulus)
        return table[place]

    def expected(self, endpoint: str, index: int) -> int:
        """The residue of the answer of `endpoint` if the index after the request is `index`."""
        if endpoint == "previous":
            return 0 if index == 0 else self.at(index - 1)
        return self.at(index)

    def find(self, residue: int) -> int:
        """The first index from the start on with this residue. Raises WrongAnswer if none."""
        for index in range(self.start, self.start + MAX_SPAN):
            if self.at(index) == residue:
                return index
        raise WrongAnswer(f"not the number of any index from {self.start} on")


@dataclass(frozen=True, slots=True)
class Operation:
    """One request. Requests answered with an error have not stepped, and are left out."""

    endpoint: Endpoint
    start: float
    """When it was about to be sent, by a monotonic clock."""
    end: float = math.inf
    """When its answer had arrived."""
    index: int | None = None
    """The index after it, from the ETag of its answer; None without an answer."""
    number: int | None = None
    """The answered number modulo MODULUS; None if it did not arrive completely."""
    expected: int | None = None
    """For a step, the only index that it may be made from."""


class Summary(NamedTuple):
    """The counts of a right history."""

    steps: int
    """Answered steps."""
    reads: int
    unanswered: int
    """Steps without an answer."""
    taken: int
    """How many of these were made."""


def check(
    history: Iterable[Operation], *, first: int, last: int, integers: Integers = "exact"
) -> Summary:
    """Check a history of m requests against the promises, in O(m log m).

    Args:
        history: every step that may have arrived at the server, and any reads, in any order.
        first: the index before.
        last: the index after everything, including faults and restarts.
        integers: the kind of numbers.

    Raises:
        WrongAnswer: a promise is broken.
    """
    if last < first:
        raise WrongAnswer(f"lost: the sequence started at {first} and is at {last}")
    operations = [operation for operation in history if _counts(operation)]
    by_index: dict[int, Operation] = {}
    for operation in operations:
        if operation.index is None:
            continue
        low = first + (operation.endpoint == "next")
        if operation.index < low:
            raise WrongAnswer(f"the sequence started at {first}, and then: {operation}")
        if operation.index > last:
            raise WrongAnswer(f"lost: the sequence is at {last}, after {operation}")
        if operation.endpoint == "next":
            twin = by_index.setdefault(operation.index, operation)
            if twin is not operation:
                raise WrongAnswer(f"one index, two steps: {twin} and {operation}")
            if operation.expected not in (None, operation.index - 1):
                raise WrongAnswer(f"made from another index than its condition names: {operation}")

    _check_numbers(operations, Residues(integers, first))
    floors = _check_order(operations, first)
    missing = [index for index in range(first + 1, last + 1) if index not in by_index]
    _check_missing(missing, floors)
    return Summary(
        steps=len(by_index),
        reads=sum(operation.endpoint != "next" for operation in operations),
        unanswered=len(floors),
        taken=len(missing),
    )


def _counts(operation: Operation) -> bool:
    # A read without an answer proves nothing; a step without one may have been made.
    return operation.endpoint == "next" or operation.index is not None


def _check_numbers(operations: list[Operation], residues: Residues) -> None:
    for operation in operations:
        if operation.index is None or operation.number is None:
            continue
        expected = residues.expected(operation.endpoint, operation.index)
        if operation.number != expected:
            raise WrongAnswer(
                f"not the number of its index, {expected} mod {residues.modulus}: {operation}"
            )


def _check_order(operations: list[Operation], first: int) -> list[int]:
    """Rule 2. Return, for each step without an answer, the index that it must be above."""
    floors = []
    ended = iter(sorted(operations, key=attrgetter("end")))
    next_to_end = next(ended, None)
    highest: Operation | None = None
    floor = first
    for operation in sorted(operations, key=attrgetter("start")):
        while next_to_end is not None and next_to_end.end < operation.start:
            if next_to_end.index is not None and next_to_end.index > floor:
                highest, floor = next_to_end, next_to_end.index
            next_to_end = next(ended, None)
        if operation.index is None:
            floors.append(floor)
        elif operation.index < floor + (operation.endpoint == "next"):
            raise WrongAnswer(f"it went back: {highest}, and after that was answered: {operation}")
    return floors


def _check_missing(missing: list[int], floors: list[int]) -> None:
    """Rule 3: assign to each missing index, from the lowest, a step that may have taken it.

    A step may take any index above its floor, so a step that can take a low index can take a high
    one: the k lowest can all be assigned if and only if k floors are below the k-th of them.
    """
    for taken, (index, floor) in enumerate(zip(missing, sorted(floors), strict=False)):
        if floor >= index:
            raise WrongAnswer(
                f"index {index} was answered to nobody, and of the steps that got no answer "
                f"only {taken}, which took others, were sent before a later index was answered"
            )
    if len(missing) > len(floors):
        raise WrongAnswer(
            f"{len(missing)} indexes were answered to nobody (the last is {missing[-1]}), "
            f"and {len(floors)} steps got no answer"
        )
