"""Replays a seed of a simulated machine with the embedded store, or tries many.

python -m tests.simulation.machines 4711            what happened, for a person to read
python -m tests.simulation.machines --seeds 10000   whether there is a seed that finds something
"""

import argparse
import gc
import logging
import random
import time

from tests.simulation.machine_install import on_machines
from tests.simulation.machine_plan import plan_of
from tests.simulation.machine_run import run


def main() -> int:
    """Do what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.machines")
    parser.add_argument("seed", nargs="?", type=int)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no longer than this")
    options = parser.parse_args()
    logging.disable()
    gc.disable()
    with on_machines():
        if options.seed is not None:
            plan = plan_of(options.seed)
            outcome = run(plan, tracing=True)
            print(plan, *outcome.trace, outcome.violation or "", sep="\n")
            return outcome.violation is not None
        return search(options.first, options.seeds, options.seconds)


def search(first: int, seeds: int, seconds: float = float("inf")) -> int:
    """Try seeds; print those that find something, and how fast it went."""
    began, steps, tried, failed = time.process_time(), 0, 0, 0
    ends = time.monotonic() + seconds
    for seed in range(first, first + seeds):
        if time.monotonic() > ends:
            break
        outcome = run(plan_of(seed))
        tried += 1
        steps += outcome.steps
        if outcome.violation is not None:
            failed += 1
            print(f"{outcome.violation}\n  python -m tests.simulation.machines {seed}", flush=True)
        if seed % 100 == 99:
            gc.collect()
    rate = tried / (time.process_time() - began)
    print(f"{tried} seeds from {first}, {failed} failed; {rate:.0f} a second; {steps} steps")
    return failed > 0


if __name__ == "__main__":
    raise SystemExit(main())
