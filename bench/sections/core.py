"""The core without a server: the cost of a step, compared with int, gmpy2 and memory.

    python -m bench.sections.core 100 30000 1000000

Each contender computes the decimal digits of the next number, which an answer needs. The pass reads
the digits of two numbers and writes those of a third to new memory with one vectorized operation:
that is the cost of the memory alone.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median

import gmpy2
import numpy as np

import fibcore
from fibcore.appliance.process import keep_freed_memory
from tests.support.checker import Residues, WrongAnswer

Step = Callable[[], bytes]
INDEXES = (30_000, 100_000, 1_000_000, 10_000_000)
MIN_SECONDS = 0.05  # of one timing, at least
CHECKED_STEPS = 3


def _core(n: int) -> Step:
    sequence = fibcore.Sequence(n)
    return lambda: sequence.advance().current


def _int(n: int) -> Step:
    before, here = (int(number) for number in reversed(gmpy2.fib2(n)))

    def step() -> bytes:
        nonlocal before, here
        before, here = here, before + here
        return b"%d" % here

    return step


def _gmpy2(n: int) -> Step:
    here, before = gmpy2.fib2(n)

    def step() -> bytes:
        nonlocal before, here
        before, here = here, before + here
        return bytes(gmpy2.digits(here), "ascii")

    return step


def _pass(n: int) -> Step:
    words = -(-gmpy2.num_digits(gmpy2.fib(n)) // 8)
    before = np.full(words, 0x3031323334353637, dtype=np.uint64)
    here = before + 1

    def step() -> bytes:
        np.add(before, here)
        return b""

    return step


CONTENDERS: dict[str, Callable[[int], Step]] = {
    "fibcore": _core,
    "gmpy2": _gmpy2,
    "Python int": _int,
    "pass": _pass,
}
# Past it, the quadratic conversion of a Python int takes minutes.
LIMITS = {"Python int": 1_000_000}


def check(n: int, make: Callable[[int], Step]) -> int:
    """Check the first steps from `n`; return their count. Raises WrongAnswer."""
    step, residues = make(n), Residues("exact", n)
    for i in range(1, CHECKED_STEPS + 1):
        digits = step()
        if digits and gmpy2.mpz(digits) % residues.modulus != residues.at(n + i):
            raise WrongAnswer(f"the core bench: a wrong number at {n + i}")
    return CHECKED_STEPS


def time_step(make: Callable[[int], Step], n: int) -> float:
    """Nanoseconds per step from `n`, over enough steps for MIN_SECONDS.

    It starts again at `n` after at most `n / 20` steps, so that the numbers hardly grow.
    """
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


def measure(indexes: Sequence[int], rounds: int) -> list[dict[str, object]]:
    """Rows of {contender, index, nanoseconds (median over the rounds, which alternate)}."""
    rows: list[dict[str, object]] = []
    for n in indexes:
        contenders = {name: make for name, make in CONTENDERS.items() if n <= LIMITS.get(name, n)}
        for make in contenders.values():
            check(n, make)
        taken: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, make in contenders.items():
                taken[name].append(time_step(make, n))
        medians = {name: median(values) for name, values in taken.items()}
        rows += [
            {"contender": name, "index": n, "nanoseconds": each} for name, each in medians.items()
        ]
        line = "  ".join(f"{name} {each:,.0f}" for name, each in medians.items())
        print(f"n = {n:>10,}: {line} ns", file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Measure, and print the rows as JSON."""
    sys.set_int_max_str_digits(0)
    keep_freed_memory()  # as in the server, for all contenders
    rounds = int(os.environ.get("BENCH_ROUNDS", "5"))
    indexes = [int(argument) for argument in sys.argv[1:]] or INDEXES
    print(json.dumps(measure(indexes, rounds)))


if __name__ == "__main__":
    main()
