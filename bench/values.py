"""Which answers are right, told cheaply enough to look at every answer of a load.

A number is compared by its residue, against a table that one addition an index extends: modulo
the prime 2^61 - 1 where numbers are exact, and modulo 2^64 where the service counts so. The digits
of the service under test play no part in the table.
"""

import re
from typing import Literal

import gmpy2

Integers = Literal["exact", "uint64"]
ENDPOINTS = ("current", "next", "previous")
# A wrong exact number passes once in 2^61. A modulus of 2^64 would see its last 64 digits alone.
MODULUS: dict[Integers, int] = {"exact": 2**61 - 1, "uint64": 2**64}
# Far more steps than any load makes: an index past it is nonsense, not a reason to fill the memory.
MAX_SPAN = 10_000_000


class WrongValue(Exception):  # noqa: N818 - it is a finding, not an error of the program
    """An answer breaks the contract; the text says which answer and how."""


def index_of(etag: str | None) -> int:
    """The index that an ETag names, of whichever representation; raises WrongValue if none."""
    match = re.fullmatch(r'"(\d+)(?:-uint64)?(?:-text)?"', etag or "", re.ASCII)
    if match is None:
        raise WrongValue(f"ETag {etag!r} is not an index in quotes")
    return int(match[1])


class Residues:
    """F(i) modulo the modulus, for every index i from `start - 1` (0 at the least)."""

    def __init__(self, integers: Integers, start: int) -> None:
        self.modulus = MODULUS[integers]
        self.start = start
        self._first = max(start - 1, 0)
        above, here = gmpy2.fib2(self._first + 1)
        self._table = [int(here % self.modulus), int(above % self.modulus)]

    def at(self, index: int) -> int:
        """F(index) modulo the modulus; raises WrongValue before the start or far past it."""
        place = index - self._first
        if not 0 <= place < MAX_SPAN:
            raise WrongValue(f"index {index} when the sequence started at {self.start}")
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
        """The first index from the start on whose number has this residue; raises WrongValue."""
        for index in range(self.start, self.start + MAX_SPAN):
            if self.at(index) == residue:
                return index
        raise WrongValue(f"a number of no index from {self.start} on")


class Checker:
    """Judges the answers of one load that is the only one to step, from the index where it began.

    `begin` before a request is sent, `check` when it has been answered: an answer's index may not
    be behind a step that had been answered before the request was sent.
    """

    def __init__(self, integers: Integers, start: int) -> None:
        self.residues = Residues(integers, start)
        self.acknowledged = start
        self.stepped: set[int] = set()
        self._sent = 0

    def begin(self, endpoint: str) -> int:
        """Notes a request about to be sent and returns the floor that `check` wants back."""
        self._sent += endpoint == "next"
        return self.acknowledged

    def check(self, endpoint: str, floor: int, etag: str | None, body: bytes) -> None:
        """Raises WrongValue unless the answer is right, to the byte, for the index in its ETag."""
        index = index_of(etag)
        if index > self.residues.start + self._sent:
            raise WrongValue(f"/{endpoint}: index {index} after {self._sent} steps were asked for")
        if index < floor + (endpoint == "next"):
            raise WrongValue(f"/{endpoint}: index {index} when {floor} had been answered before")
        if endpoint == "next":
            if index in self.stepped:
                raise WrongValue(f"/next: index {index} answered twice")
            self.stepped.add(index)
            self.acknowledged = max(self.acknowledged, index)
        head, tail = b'{"%s": ' % endpoint.encode(), b"}"
        digits = body[len(head) : -1]
        if body[: len(head)] != head or body[-1:] != tail or not digits.isdigit():
            raise WrongValue(f"/{endpoint}: body {body[:60]!r} is not its one number")
        if digits[:1] == b"0" and digits != b"0":
            raise WrongValue(f"/{endpoint}: {digits[:20]!r} has a leading zero")
        if gmpy2.mpz(digits) % self.residues.modulus != self.residues.expected(endpoint, index):
            raise WrongValue(f"/{endpoint}: {len(digits)} digits, not those of index {index}")
