"""Replays one seed, or searches many for a violation.

python -m tests.simulation 4711                          replay a seed and print its trace
python -m tests.simulation 4711 --faults 0 --clients 2   ... with only these faults and clients
python -m tests.simulation --seeds 100000 --first 1      search seeds for a violation
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
from functools import partial
from typing import Final, NamedTuple

from tests.simulation.plan import STORES, Plan, plan_of
from tests.simulation.run import Outcome, run
from tests.simulation.sabotages import NONE, SABOTAGES, Sabotage

CHUNK_SEEDS: Final = 50
"""Seeds that a worker process tries per report."""

CHUNKS: Final = 20
"""Chunks per worker process: objects that some runs never free slow it down in the end."""

PROGRESS_SECONDS: Final = 20.0
"""Interval of progress lines."""


class Tally(NamedTuple):
    """Totals over some seeds."""

    seeds: int
    seconds: float
    """Simulated."""
    steps: int
    failed: tuple[tuple[int, str], ...]
    """Seeds with a violation, and its message."""


class Choice(NamedTuple):
    """The options that, with a seed, determine a plan."""

    stores: tuple[str, ...] = STORES
    name: str | None = None
    """Of the sabotage, which has its own plans."""

    @property
    def sabotage(self) -> Sabotage:
        return NONE if self.name is None else SABOTAGES[self.name]

    def plan_of(self, seed: int) -> Plan:
        return plan_of(seed, self.stores) if self.name is None else self.sabotage.plan_of(seed)

    def run(self, plan: Plan, *, tracing: bool = False) -> Outcome:
        return run(plan, self.sabotage, tracing=tracing)


def try_seeds(seeds: range, choice: Choice) -> Tally:
    """Run seeds in this process."""
    seconds, steps, failed = 0.0, 0, []
    for seed in seeds:
        outcome = choice.run(choice.plan_of(seed))
        seconds += outcome.seconds
        steps += outcome.steps
        if outcome.violation is not None:
            failed.append((seed, str(outcome.violation)))
    gc.collect()
    return Tally(len(seeds), seconds, steps, tuple(failed))


def shrunk(plan: Plan, choice: Choice) -> Plan:
    """Remove faults and clients as long as the plan still fails."""
    while True:
        smaller = next((each for each in _smaller(plan) if choice.run(each).violation), None)
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


def command_of(plan: Plan, whole: Plan, choice: Choice) -> str:
    """Return the command that replays a plan."""
    words = [f"python -m tests.simulation {plan.seed}"]
    for name in ("faults", "clients"):
        some, every = getattr(plan, name), getattr(whole, name)
        if some != every:
            words.append(f"--{name} {','.join(str(every.index(each)) for each in some) or 'none'}")
    if choice.name is not None:
        words.append(f"--sabotage {choice.name}")
    elif choice.stores != STORES:
        words.append(f"--stores {','.join(choice.stores)}")
    return " ".join(words)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = parsed(arguments)
    choice = Choice(tuple(options.stores.split(",")), options.sabotage)
    gc.disable()
    if options.seed is not None:
        return replay(options, choice)
    gc.freeze()
    return search(options, choice)


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("seed", nargs="?", type=int, help="replay this seed")
    parser.add_argument("--faults", help="use only these of its faults, for example 0,2 or none")
    parser.add_argument("--clients", help="use only these of its clients")
    parser.add_argument("--seeds", type=int, default=10_000, help="number of seeds to search")
    parser.add_argument("--first", type=int, help="first seed (default: random)")
    parser.add_argument("--seconds", type=float, help="stop the search after this time")
    parser.add_argument(
        "--jobs", type=int, default=len(os.sched_getaffinity(0)), help="number of processes"
    )
    parser.add_argument("--stores", default=",".join(STORES), help="default: %(default)s")
    parser.add_argument(
        "--sabotage", choices=SABOTAGES, metavar="NAME", help="with this one of ``sabotages``"
    )
    return parser.parse_args(arguments)


def parse_numbers(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    return () if text == "none" else tuple(map(int, text.split(",")))


def replay(options: argparse.Namespace, choice: Choice) -> int:
    """Run one seed and print its trace."""
    whole = choice.plan_of(options.seed)
    plan = whole.subset(parse_numbers(options.faults), parse_numbers(options.clients))
    logging.disable()
    outcome = choice.run(plan, tracing=True)
    print_run(outcome)
    return outcome.violation is not None


def print_run(outcome: Outcome) -> None:
    plan = outcome.plan
    print(f"seed {plan.seed}: {plan.nodes} x {plan.store}")
    for number, client in enumerate(plan.clients):
        print(f"  client {number}: {client}")
    for number, fault in enumerate(plan.faults):
        print(f"  fault {number}: {fault}")
    print(*outcome.trace, sep="\n")
    print(f"{outcome.seconds:.0f} simulated seconds, {outcome.steps} answered steps")
    if outcome.violation is None:
        print("No violation.")
    else:
        cause = outcome.violation.__cause__
        if cause is not None:
            traceback.print_exception(cause)
        print(f"Violation: {outcome.violation}")


def search(options: argparse.Namespace, choice: Choice) -> int:
    """Search many seeds, and print progress."""
    first = random.SystemRandom().randrange(10**9) if options.first is None else options.first
    print(f"seeds {first} to {first + options.seeds - 1}", flush=True)
    logging.disable()
    batches = [
        range(at, min(at + CHUNK_SEEDS, first + options.seeds))
        for at in range(first, first + options.seeds, CHUNK_SEEDS)
    ]
    began, reported = time.monotonic(), 0.0
    total = Tally(0, 0.0, 0, ())
    processes = multiprocessing.get_context("fork")
    with processes.Pool(options.jobs, maxtasksperchild=CHUNKS) as pool:
        for count in pool.imap_unordered(partial(try_seeds, choice=choice), batches):
            total = Tally(
                total.seeds + count.seeds,
                total.seconds + count.seconds,
                total.steps + count.steps,
                total.failed + count.failed,
            )
            for seed, what in count.failed:
                report(seed, what, choice)
            elapsed = time.monotonic() - began
            if elapsed - reported > PROGRESS_SECONDS:
                reported = elapsed
                print(summary(total, elapsed), flush=True)
            if options.seconds is not None and elapsed > options.seconds:
                pool.terminate()
                break
    print(summary(total, time.monotonic() - began), flush=True)
    return bool(total.failed)


def summary(count: Tally, elapsed: float) -> str:
    return (
        f"{count.seeds} seeds, {len(count.failed)} failed; {count.seeds / elapsed:.0f} a second; "
        f"{count.seconds / 3600:.1f} simulated hours; {count.steps} answered steps"
    )


def report(seed: int, what: str, choice: Choice) -> None:
    """Print a violation and the command that replays it with the fewest faults and clients."""
    whole = choice.plan_of(seed)
    command = command_of(shrunk(whole, choice), whole, choice)
    print(f"\n{what}\n  {command}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
