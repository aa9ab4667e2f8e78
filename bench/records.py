"""What the load generator recorded: latencies, gaps, and whether every answer is right.

Times are in nanoseconds of CLOCK_MONOTONIC.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import ceil
from pathlib import Path

from bench.values import Residues, WrongValue

NONE = 2**64 - 1  # no ETag, or a residue that was not computed
OK = 200
FIELDS = 6  # of 64 bits each, as `struct record` in load.c lays them out


def percentile(ordered: Seq[int], percent: float) -> int:
    """The nearest-rank percentile of values in ascending order.

    It is the least value that at least `percent` of them do not exceed.
    """
    if not ordered:
        raise ValueError("no values to take a percentile of")
    return ordered[max(ceil(len(ordered) * percent / 100) - 1, 0)]


@dataclass(frozen=True, slots=True)
class Record:
    """One request: `stream` counts the load's paths from 0; status 0 says that no answer came."""

    due: int
    sent: int
    done: int
    index: int
    residue: int
    stream: int
    status: int


def read(path: Path) -> list[Record]:
    """All records of a file that load.c wrote, in the order in which the answers came."""
    words = array("Q")
    words.frombytes(path.read_bytes())
    columns = (words[i::FIELDS] for i in range(FIELDS))
    return [
        Record(due, sent, done, index, residue, last & 0xFFFFFFFF, last >> 32)
        for due, sent, done, index, residue, last in zip(*columns, strict=True)
    ]


def latencies(records: Seq[Record]) -> list[int]:
    """From when each answered request was due to its answer, in ascending order."""
    return sorted(r.done - r.due for r in records if r.status >= 100)


def longest_gap(records: Seq[Record], begin: int, end: int) -> int:
    """The longest time without an answer of those that overlap the span from `begin` to `end`."""
    times = sorted(r.done for r in records if r.status == OK)
    return max((b - a for a, b in pairwise(times) if b > begin and a < end), default=end - begin)


def verify(records: Seq[Record], endpoints: Seq[str], residues: Residues) -> int:
    """Check every answer against the sequence and time; return how many values were checked.

    Raises WrongValue for a wrong number, an index answered twice, or an answer behind a step that
    had been answered before its request was sent. A server that gives no ETag is taken at its word
    for the order alone: the index is found from the number.
    """
    answered = [r for r in records if r.status == OK]
    if any(r.index == NONE for r in answered):
        return _verify_numbers(answered, endpoints, residues, reach=len(records))
    checked = 0
    stepped: set[int] = set()
    steps = sorted((r.done, r.index) for r in answered if endpoints[r.stream] == "next")
    times = [done for done, _ in steps]
    floors = list(accumulate((index for _, index in steps), max, initial=residues.start))
    for r in answered:
        endpoint = endpoints[r.stream]
        floor = floors[bisect_left(times, r.sent)]
        if r.index < floor + (endpoint == "next"):
            raise WrongValue(f"/{endpoint}: index {r.index} when {floor} had been answered before")
        if endpoint == "next":
            if r.index in stepped:
                raise WrongValue(f"/next: index {r.index} answered twice")
            stepped.add(r.index)
        if r.residue != NONE:
            checked += 1
            if r.residue != residues.expected(endpoint, r.index):
                raise WrongValue(f"/{endpoint}: not the number of index {r.index}")
    return checked


def _verify_numbers(
    answered: Seq[Record], endpoints: Seq[str], residues: Residues, reach: int
) -> int:
    """Every number is one of the sequence within reach, and no step's number comes twice."""
    known = {residues.at(residues.start + i): residues.start + i for i in range(reach + 1)}
    known[residues.expected("previous", residues.start)] = residues.start - 1
    stepped: set[int] = set()
    checked = 0
    for r in answered:
        if r.residue == NONE:
            continue
        checked += 1
        if r.residue not in known:
            raise WrongValue(f"/{endpoints[r.stream]}: a number that no step of this load reaches")
        if endpoints[r.stream] == "next":
            if r.residue in stepped and r.residue != 1:  # F(1) = F(2)
                raise WrongValue(f"/next: the number of index {known[r.residue]} answered twice")
            stepped.add(r.residue)
    return checked
