"""Replays a seed, or tries many.

python -m tests.simulation 4711                        what happened, for a person to read
python -m tests.simulation 4711 --faults 0 --clients 2   with some of its faults and clients alone
python -m tests.simulation --seeds 100000 --first 1    whether there is a seed that finds something
"""

import argparse
import gc
import logging
import multiprocessing
import os
import random
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Final, NamedTuple

from tests.simulation.bugs import BUGS, planted
from tests.simulation.install import installed
from tests.simulation.plan import STORES, Plan, plan_of
from tests.simulation.run import Outcome, run

BATCH_SEEDS: Final = 50
"""Seeds that a process tries before it tells."""

PROGRESS_SECONDS: Final = 60.0
"""How often it is said how far it is, where nobody looks at a terminal."""


class Tally(NamedTuple):
    """What came of some seeds."""

    seeds: int
    seconds: float
    """Simulated."""
    steps: int
    failed: tuple[tuple[int, str], ...]
    """The seeds that found something, and what."""


class Choice(NamedTuple):
    """Which plans are meant by seeds."""

    stores: tuple[str, ...] = STORES
    bug: str | None = None
    """The defect that is planted: it has plans of its own."""

    def plan_of(self, seed: int) -> Plan:
        """That of a seed."""
        return plan_of(seed, self.stores) if self.bug is None else BUGS[self.bug].plan_of(seed)


def try_seeds(seeds: range, choice: Choice) -> Tally:
    """Try seeds in this process."""
    seconds, steps, failed = 0.0, 0, []
    with installed():
        for seed in seeds:
            outcome = run(choice.plan_of(seed))
            seconds += outcome.seconds
            steps += outcome.steps
            if outcome.violation is not None:
                failed.append((seed, str(outcome.violation)))
    gc.collect()
    return Tally(len(seeds), seconds, steps, tuple(failed))


def shrunk(plan: Plan) -> Plan:
    """The same with the fewest faults and clients that still find something."""
    while True:
        smaller = next(filter(_fails, _smaller(plan)), None)
        if smaller is None:
            return plan
        plan = smaller


def _smaller(plan: Plan) -> Iterator[Plan]:
    for number in range(len(plan.faults)):
        yield plan.subset(_without(len(plan.faults), number), None)
    for number in range(len(plan.clients)):
        yield plan.subset(None, _without(len(plan.clients), number))


def _without(count: int, number: int) -> tuple[int, ...]:
    return tuple(each for each in range(count) if each != number)


def _fails(plan: Plan) -> bool:
    return run(plan).violation is not None


def command_of(plan: Plan, whole: Plan, choice: Choice) -> str:
    """What a person types to see it."""
    words = [f"python -m tests.simulation {plan.seed}"]
    for name in ("faults", "clients"):
        some, every = getattr(plan, name), getattr(whole, name)
        if some != every:
            words.append(f"--{name} {','.join(str(every.index(each)) for each in some) or 'none'}")
    if choice.bug is not None:
        words.append(f"--bug {choice.bug}")
    elif choice.stores != STORES:
        words.append(f"--stores {','.join(choice.stores)}")
    return " ".join(words)


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks for; return the exit status."""
    options = parsed(arguments)
    choice = Choice(tuple(options.stores.split(",")), options.bug)
    gc.disable()
    with planted(options.bug):
        if options.seed is not None:
            return replay(options, choice)
        gc.freeze()
        return search(options, choice)


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("seed", nargs="?", type=int)
    parser.add_argument("--faults", help="which of its faults: 0,2 or none")
    parser.add_argument("--clients", help="which of its clients")
    parser.add_argument("--seeds", type=int, default=10_000, help="how many are tried")
    parser.add_argument("--first", type=int, help="the first of them; a random one if not given")
    parser.add_argument("--seconds", type=float, help="for so long at the most")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--stores", default=",".join(STORES))
    parser.add_argument("--bug", choices=sorted(BUGS), help="with this defect planted")
    return parser.parse_args(arguments)


def parse_numbers(text: str | None) -> tuple[int, ...] | None:
    """Those of an option."""
    if text is None:
        return None
    return () if text == "none" else tuple(map(int, text.split(",")))


def replay(options: argparse.Namespace, choice: Choice) -> int:
    """Show what happens with a seed."""
    whole = choice.plan_of(options.seed)
    plan = whole.subset(parse_numbers(options.faults), parse_numbers(options.clients))
    logging.disable()
    with installed():
        outcome = run(plan, tracing=True)
    print_run(outcome)
    return outcome.violation is not None


def print_run(outcome: Outcome) -> None:
    """Print a run."""
    plan = outcome.plan
    print(f"seed {plan.seed}: {plan.nodes} x {plan.store}")
    for number, client in enumerate(plan.clients):
        print(f"  client {number}: {client}")
    for number, fault in enumerate(plan.faults):
        print(f"  fault {number}: {fault}")
    print(*outcome.trace, sep="\n")
    print(f"{outcome.seconds:.0f} simulated seconds, {outcome.steps} answered steps")
    if outcome.violation is None:
        print("No promise was broken.")
    else:
        cause = outcome.violation.__cause__
        if cause is not None:
            traceback.print_exception(cause)
        print(f"Broken: {outcome.violation}")


def search(options: argparse.Namespace, choice: Choice) -> int:
    """Try many seeds, and say how it goes."""
    first = random.SystemRandom().randrange(10**9) if options.first is None else options.first
    print(f"seeds {first} to {first + options.seeds - 1}", flush=True)
    logging.disable()
    batches = [
        range(at, min(at + BATCH_SEEDS, first + options.seeds))
        for at in range(first, first + options.seeds, BATCH_SEEDS)
    ]
    began, reported = time.monotonic(), 0.0
    total = Tally(0, 0.0, 0, ())
    with multiprocessing.get_context("fork").Pool(options.jobs) as pool:
        for count in pool.imap_unordered(_Trial(choice), batches):
            total = Tally(
                total.seeds + count.seeds,
                total.seconds + count.seconds,
                total.steps + count.steps,
                total.failed + count.failed,
            )
            for seed, what in count.failed:
                report(seed, what, choice)
            elapsed = time.monotonic() - began
            if sys.stderr.isatty():
                print(f"\r{summary(total, elapsed)}", end="", file=sys.stderr, flush=True)
            elif elapsed - reported > PROGRESS_SECONDS:
                reported = elapsed
                print(summary(total, elapsed), flush=True)
            if options.seconds is not None and elapsed > options.seconds:
                pool.terminate()
                break
    print(summary(total, time.monotonic() - began), flush=True)
    return bool(total.failed)


class _Trial:
    """``try_seeds``, for another process."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice

    def __call__(self, seeds: range) -> Tally:
        return try_seeds(seeds, self._choice)


def summary(count: Tally, elapsed: float) -> str:
    """How it goes."""
    return (
        f"{count.seeds} seeds, {len(count.failed)} failed; {count.seeds / elapsed:.0f} a second; "
        f"{count.seconds / 3600:.1f} simulated hours; "
        f"{count.steps} answered steps"
    )


def report(seed: int, what: str, choice: Choice) -> None:
    """Say what a seed has found, and how to see it with less."""
    whole = choice.plan_of(seed)
    with installed():
        command = command_of(shrunk(whole), whole, choice)
    print(f"\n{what}\n  {command}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
