"""The records of the load generator: latencies, gaps, and the history to check.

Times are in nanoseconds of CLOCK_MONOTONIC.
"""

from array import array
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, inf
from pathlib import Path
from typing import cast

from tests.support.checker import Endpoint, Integers, Operation, Residues, WrongAnswer

NONE = 2**64 - 1  # no ETag, or a residue that was not computed
OK = 200
FIELDS = 6  # of 64 bits each, as `struct record` in load.c lays them out


def percentile(ordered: Seq[int], percent: float) -> int:
    """The nearest-rank percentile of values in ascending order.

    It is the smallest value that at least `percent` of them do not exceed.
    """
    if not ordered:
        raise ValueError("no values to take a percentile of")
    return ordered[max(ceil(len(ordered) * percent / 100) - 1, 0)]


@dataclass(frozen=True, slots=True)
class Record:
    """One request: `stream` is the number of the load's path, from 0; status 0: no answer."""

    due: int
    sent: int
    done: int
    index: int
    residue: int
    stream: int
    status: int


def read(path: Path) -> list[Record]:
    """All records in a file from load.c, in the order of the answers."""
    words = array("Q")
    words.frombytes(path.read_bytes())
    columns = (words[i::FIELDS] for i in range(FIELDS))
    return [
        Record(due, sent, done, index, residue, last & 0xFFFFFFFF, last >> 32)
        for due, sent, done, index, residue, last in zip(*columns, strict=True)
    ]


def latencies(records: Seq[Record]) -> list[int]:
    """Times from when each answered request was due to its answer, in ascending order."""
    return sorted(r.done - r.due for r in records if r.status >= 100)


def longest_gap(records: Seq[Record], begin: int, end: int) -> int:
    """The longest time between two answers that overlaps the span from `begin` to `end`."""
    times = sorted(r.done for r in records if r.status == OK)
    return max((b - a for a, b in pairwise(times) if b > begin and a < end), default=end - begin)


def history(
    records: Seq[Record], streams: Seq[str], first: int, integers: Integers
) -> list[Operation]:
    """The history for the checker, of a load that began at the index `first`.

    For a server without ETags, each index is found from the number, and the order is not checked.
    Raises WrongAnswer for a number past the reach of the load.
    """
    tagged = not any(r.status == OK and r.index == NONE for r in records)
    known = {} if tagged else _indexes(first, len(records), integers)
    found = []
    for r in records:
        endpoint = cast(Endpoint, streams[r.stream])
        if r.status != OK:
            if r.status < 100 or r.status == 500:  # it may have stepped
                found.append(Operation(endpoint, r.sent if tagged else -inf))
        elif tagged:
            number = None if r.residue == NONE else r.residue
            found.append(Operation(endpoint, r.sent, r.done, r.index, number))
        elif r.residue in known:
            index = known[r.residue]
            if index is not None:
                index += endpoint == "previous"
            found.append(Operation(endpoint, -inf, inf, index))
        else:
            raise WrongAnswer(f"/{endpoint}: a number that no step of this load reaches")
    return found


def _indexes(first: int, steps: int, integers: Integers) -> dict[int, int | None]:
    """The index of each residue, from index `first - 1` on; None if it is ambiguous."""
    residues = Residues(integers, first)
    found: dict[int, int | None] = {
        residues.at(index): index for index in range(max(first - 1, 0), first + steps + 1)
    }
    # F(1) = F(2), and F(0) is also what /previous answers at 0.
    return found | dict.fromkeys((0, 1, NONE))
