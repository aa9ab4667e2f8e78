"""The checker of answers, of the tests' loads and of the benchmark's: each answer, and them all.

A history is what clients know of a run: for each request, when it was sent, when its answer had
arrived, and what the answer said. Clocks of one machine, so that "answered before the other was
sent" means what it says.

A history is right when there is an order of its requests that one correct sequence, serving one
request at a time, would have answered just so, and in which no request comes before another that
was answered before it was sent (linearizability: M. Herlihy and J. Wing, 1990). For a sequence
that order is nothing that has to be searched for: an answer's index says where it belongs. So
these few rules are the whole of it, and a brute-force search over all orders, in
tests/bench/test_checker.py, agrees with them:

1. No index is answered to two steps.
2. Nothing goes back: a step has a higher index than all that was answered before it was sent, and
   a read no lower one. (So a read that is ahead of what is committed is found out by the step
   that is given the same index later.)
3. Each index that no answer has was taken by a step that got no answer, and that was sent before
   anybody was answered with a later index.
4. The sequence stands, in the end, no lower than anybody was told.
5. Every number is the one of its index.
6. A step that was to be made from one index alone was made from there.

Rule 3 is what "no step is lost or made twice" comes down to when answers can be lost.

A number is compared by its residue, against a table that one addition an index extends: modulo
the prime 2^61 - 1 where numbers are exact, and modulo 2^64 where the service counts so. The digits
of the service under test play no part in the table.
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
# A wrong exact number passes once in 2^61. A modulus of 2^64 would see its last 64 digits alone.
MODULUS: Final[dict[Integers, int]] = {"exact": 2**61 - 1, "uint64": 2**64}
# Far more steps than any load makes: an index past it is nonsense, not a reason to fill the memory.
MAX_SPAN: Final = 10_000_000


class WrongAnswer(AssertionError):  # noqa: N818 - it is a finding, not an error of the program
    """An answer, or all of them together, break the contract; the text says how."""


def index_of(etag: str | None) -> int:
    """The index that an ETag names, of whichever representation; raises WrongAnswer if none."""
    match = re.fullmatch(r'"(\d+)(?:-uint64)?(?:-text)?"', etag or "", re.ASCII)
    if match is None:
        raise WrongAnswer(f"ETag {etag!r} is not an index in quotes")
    return int(match[1])


def residue_of(endpoint: str, body: bytes, integers: Integers = "exact") -> int:
    """The number of a body, modulo MODULUS; raises WrongAnswer unless it is right to the byte."""
    head, digits = b'{"%b": ' % endpoint.encode(), body[len(endpoint) + 5 : -1]
    if not (body.startswith(head) and body.endswith(b"}") and digits.isdigit()):
        raise WrongAnswer(f"/{endpoint}: body {body[:60]!r} is not its one number")
    if digits.startswith(b"0") and digits != b"0":
        raise WrongAnswer(f"/{endpoint}: {digits[:20]!r} has a leading zero")
    return int(gmpy2.mpz(digits) % MODULUS[integers])


class Residues:
    """F(i) modulo the modulus, for every index i from `start - 1` (0 at the least)."""

    def __init__(self, integers: Integers, start: int) -> None:
        self.modulus = MODULUS[integers]
        self.start = start
        self._first = max(start - 1, 0)
        above, here = gmpy2.fib2(self._first + 1)
        self._table = [int(here % self.modulus), int(above % self.modulus)]

    def at(self, index: int) -> int:
        """F(index) modulo the modulus; raises WrongAnswer before the start or far past it."""
        place = index - self._first
        if not 0 <= place < MAX_SPAN:
            raise WrongAnswer(f"index {index} when the sequence started at {self.start}")
        table, modulus = self._table, self.modulus
        while place >= len(table):
            table.append((table[-2] + table[-1]) % modulus)
        return table[place]

    def expected(self, endpoint: str, index: int) -> int:
        """The residue that `endpoint` answers when the index after the request is `index`."""
        if endpoint == "previous":
            return 0 if index == 0 else self.at(index - 1)
        return self.at(index)

    def find(self, residue: int) -> int:
        """The first index from the start on whose number has this residue; raises WrongAnswer."""
        for index in range(self.start, self.start + MAX_SPAN):
            if self.at(index) == residue:
                return index
        raise WrongAnswer(f"a number of no index from {self.start} on")


@dataclass(frozen=True, slots=True)
class Operation:
    """One request. One that was answered with an error has not stepped and is none."""

    endpoint: Endpoint
    start: float
    """When it was about to be sent, by a clock that no one sets."""
    end: float = math.inf
    """When its answer had arrived."""
    index: int | None = None
    """Where the sequence stood after it, as the answer's ETag says; None if there was no answer."""
    number: int | None = None
    """The answered number modulo MODULUS; None if it did not arrive, or not whole."""
    expected: int | None = None
    """Of a step, the only index that it may be made from."""


class Summary(NamedTuple):
    """What a history that is right holds."""

    steps: int
    """Steps that were answered."""
    reads: int
    unanswered: int
    """Steps without an answer."""
    taken: int
    """Those of them that were made nevertheless."""


def check(
    history: Iterable[Operation], *, first: int, last: int, integers: Integers = "exact"
) -> Summary:
    """Hold a history of m requests against the promises, in O(m log m).

    Args:
        history: every step that was sent and may have arrived, and any reads, in any order.
        first: where the sequence stood before.
        last: where it stands after everything, faults and restarts included.
        integers: how the service counts.

    Raises:
        WrongAnswer: a promise was broken.
    """
    if last < first:
        raise WrongAnswer(f"lost: the sequence started at {first} and stands at {last}")
    operations = [operation for operation in history if _counts(operation)]
    by_index: dict[int, Operation] = {}
    for operation in operations:
        if operation.index is None:
            continue
        low = first + (operation.endpoint == "next")
        if operation.index < low:
            raise WrongAnswer(f"the sequence started at {first}, and then: {operation}")
        if operation.index > last:
            raise WrongAnswer(f"lost: the sequence stands at {last}, after it said: {operation}")
        if operation.endpoint == "next":
            twin = by_index.setdefault(operation.index, operation)
            if twin is not operation:
                raise WrongAnswer(f"one index, two steps: {twin} and {operation}")
            if operation.expected not in (None, operation.index - 1):
                raise WrongAnswer(f"made from another index than it was to be: {operation}")

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
    # A read without an answer says nothing; a step without one may have been made.
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
    """Rule 2; return, for each step without an answer, what it must come after."""
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
    """Rule 3: give each missing index, from the lowest, a step that may have taken it.

    A step may take any index above its floor, so whatever can take a low one can take a high one
    too: the k lowest can all be given away if and only if k floors lie under the k-th of them.
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
