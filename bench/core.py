"""The core without a server: a step, as a multiple of one pass over its digits.

    python -m bench.core 30000 1000000

A step must read the digits of two numbers and write those of a third. The pass does no more than
that, with one vectorized operation of GMP: it is the cost of the memory alone. Prints the
nanoseconds of both as JSON, by index.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import gmpy2

import fibcore
from tests.support.checker import Residues

Step = Callable[[], Any]
MIN_SECONDS = 0.05  # of one timing, at least
ROUNDS = 5


def step_from(n: int) -> Step:
    """The core's step."""
    sequence = fibcore.Sequence(n)
    return lambda: sequence.advance().current


def check(n: int) -> None:
    """Check the first steps from ``n``."""
    step, residues = step_from(n), Residues("exact", n)
    for index in range(n + 1, n + 4):
        assert gmpy2.mpz(step()) % residues.modulus == residues.at(index), index


def pass_over(n: int) -> Step:
    """One pass over as many bytes as F(n) has digits."""
    size = len(fibcore.Sequence(n).advance().current)
    one, other = (gmpy2.mpz(int.from_bytes(byte * size, "big")) for byte in (b"1", b"\x7e"))
    return lambda: one ^ other


def nanoseconds(make: Callable[[int], Step], n: int) -> float:
    """The time of a step from ``n``; it starts again there, so that numbers hardly grow."""
    clock, total, count, batch = time.perf_counter_ns, 0, 0, 1
    while total < MIN_SECONDS * 1e9:
        step = make(n)
        step()
        begin = clock()
        for _ in range(batch):
            step()
        total += clock() - begin
        count += batch
        batch = min(batch * 2, max(n // 20, 20))
    return total / count


def measure(indexes: Sequence[int]) -> dict[int, tuple[float, float]]:
    """By index, the medians of the step and of the pass, which alternate."""
    found = {}
    for n in indexes:
        check(n)
        rounds = [(nanoseconds(step_from, n), nanoseconds(pass_over, n)) for _ in range(ROUNDS)]
        steps, passes = zip(*rounds, strict=True)
        found[n] = median(steps), median(passes)
    return found


if __name__ == "__main__":
    print(json.dumps(measure([int(argument) for argument in sys.argv[1:]])))
