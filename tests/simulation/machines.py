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

__all__ = ["main"]


def main() -> int:
    """Do what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.machines")
    parser.add_argument("seed", nargs="?", type=int)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=random.SystemRandom().randrange(10**9))
    options = parser.parse_args()
    logging.disable()
    gc.disable()
    with on_machines():
        if options.seed is not None:
            plan = plan_of(options.seed)
            outcome = run(plan, tracing=True)
            print(plan, *outcome.trace, outcome.violation or "", sep="\n")
            return outcome.violation is not None
        return search(options.first, options.seeds)


def search(first: int, seeds: int) -> int:
    """Try seeds; print those that find something, and how fast it went."""
    began, steps, failed = time.process_time(), 0, 0
    for seed in range(first, first + seeds):
        outcome = run(plan_of(seed))
        steps += outcome.steps
        if outcome.violation is not None:
            failed += 1
            print(f"{outcome.violation}\n  python -m tests.simulation.machines {seed}", flush=True)
        if seed % 100 == 99:
            gc.collect()
    rate = seeds / (time.process_time() - began)
    print(f"{seeds} seeds from {first}, {failed} failed; {rate:.0f} a second; {steps} steps")
    return failed > 0


if __name__ == "__main__":
    raise SystemExit(main())
