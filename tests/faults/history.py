"""The history checker: can one sequence explain all that its clients saw?

A history is what clients know of a run: for each request, when it was sent, when its answer had
arrived, and what the answer said. Clocks of one machine, in monotonic seconds, so that "answered
before the other was sent" means what it says.

A history is right when there is an order of its requests that one correct sequence, serving one
request at a time, would have answered just so, and in which no request comes before another that
was answered before it was sent (linearizability: M. Herlihy and J. Wing, 1990). For a sequence
that order is nothing that has to be searched for: an answer's index says where it belongs. So
these few rules are the whole of it, and a brute-force search over all orders, in test_history.py,
agrees with them:

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
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from bench.values import MODULUS, Residues

__all__ = ["PRIME", "HistoryError", "Operation", "Summary", "check"]

PRIME = MODULUS["exact"]
"""Numbers are compared modulo this prime, 2^61 - 1: a wrong one passes once in 2^61."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One request. One that was answered with an error has not stepped and is none."""

    path: Literal["next", "current", "previous"]
    start: float
    """When it was about to be sent."""
    end: float = math.inf
    """When its answer had arrived."""
    index: int | None = None
    """Where the sequence stood after it, as the answer's ETag says; None if there was no answer."""
    number: int | None = None
    """The answered number modulo ``PRIME``; None if it did not arrive, or not whole."""
    expected: int | None = None
    """Of a step, the only index that it may be made from."""


class HistoryError(AssertionError):
    """No sequence that keeps its promises can have answered so; the message shows why."""


class Summary(NamedTuple):
    """What a history that is right holds."""

    steps: int
    """Steps that were answered."""
    reads: int
    unanswered: int
    """Steps without an answer."""
    taken: int
    """Those of them that were made nevertheless."""


def check(history: Iterable[Operation], *, first: int, last: int) -> Summary:
    """Hold a history of m requests against the promises, in O(m log m).

    Args:
        history: every step that was sent and may have arrived, and any reads, in any order.
        first: where the sequence stood before.
        last: where it stands after everything, faults and restarts included.

    Raises:
        HistoryError: a promise was broken.
    """
    if last < first:
        raise HistoryError(f"lost: the sequence started at {first} and stands at {last}")
    operations = [operation for operation in history if _counts(operation)]
    by_index: dict[int, Operation] = {}
    for operation in operations:
        if operation.index is None:
            continue
        low = first + (operation.path == "next")
        if operation.index < low:
            raise HistoryError(f"the sequence started at {first}, and then: {operation}")
        if operation.index > last:
            raise HistoryError(f"lost: the sequence stands at {last}, after it said: {operation}")
        if operation.path == "next":
            twin = by_index.setdefault(operation.index, operation)
            if twin is not operation:
                raise HistoryError(f"one index, two steps: {twin} and {operation}")
            if operation.expected not in (None, operation.index - 1):
                raise HistoryError(f"made from another index than it was to be: {operation}")

    _check_numbers(operations, first)
    floors = _check_order(operations, first)
    missing = [index for index in range(first + 1, last + 1) if index not in by_index]
    _check_missing(missing, floors)
    return Summary(
        steps=len(by_index),
        reads=sum(operation.path != "next" for operation in operations),
        unanswered=len(floors),
        taken=len(missing),
    )


def _counts(operation: Operation) -> bool:
    # A read without an answer says nothing; a step without one may have been made.
    return operation.path == "next" or operation.index is not None


def _check_numbers(operations: list[Operation], first: int) -> None:
    residues = Residues("exact", first)
    for operation in operations:
        if operation.index is None or operation.number is None:
            continue
        expected = residues.expected(operation.path, operation.index)
        if operation.number != expected:
            raise HistoryError(f"not the number of its index, {expected} mod 2^61-1: {operation}")


def _check_order(operations: list[Operation], first: int) -> list[int]:
    """Rule 2; return, for each step without an answer, what it must come after."""
    floors = []
    by_end = sorted(operations, key=lambda operation: operation.end)
    ended = iter(by_end)
    next_to_end = next(ended, None)
    highest: Operation | None = None
    floor = first
    for operation in sorted(operations, key=lambda operation: operation.start):
        while next_to_end is not None and next_to_end.end < operation.start:
            if next_to_end.index is not None and next_to_end.index > floor:
                highest, floor = next_to_end, next_to_end.index
            next_to_end = next(ended, None)
        if operation.index is None:
            floors.append(floor)
        elif operation.index < floor + (operation.path == "next"):
            raise HistoryError(f"it went back: {highest}, and after that was answered: {operation}")
    return floors


def _check_missing(missing: list[int], floors: list[int]) -> None:
    """Rule 3: give each missing index, from the lowest, a step that may have taken it.

    A step may take any index above its floor, so whatever can take a low one can take a high one
    too: the k lowest can all be given away if and only if k floors lie under the k-th of them.
    """
    for taken, (index, floor) in enumerate(zip(missing, sorted(floors), strict=False)):
        if floor >= index:
            raise HistoryError(
                f"index {index} was answered to nobody, and of the steps that got no answer "
                f"only {taken}, which took others, were sent before a later index was answered"
            )
    if len(missing) > len(floors):
        raise HistoryError(
            f"{len(missing)} indexes were answered to nobody (the last is {missing[-1]}), "
            f"and {len(floors)} steps got no answer"
        )
