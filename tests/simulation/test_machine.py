"""A machine with the embedded store: no seed breaks a promise, and seeds find what is planted."""

import gc
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulation.machine_bugs import MACHINE_BUGS, planted
from tests.simulation.machine_install import on_machines
from tests.simulation.machine_plan import plan_of
from tests.simulation.machine_run import run

TOP = Path(__file__).parents[2]
PIECES = 4
SEEDS = 100
"""Those that are always tried; ``python -m tests.simulation.machines`` tries fresh ones."""

SEARCHED = 500
"""Among how many a defect that is planted is found."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable()
    gc.disable()
    with on_machines():
        yield
    gc.enable()
    gc.collect()
    logging.disable(logging.NOTSET)


@pytest.mark.proves(
    "2",
    "the embedded store on a simulated machine, in which one seed decides everything: server, "
    "standby and backup; kills and power cuts in the middle of any call, failing and full disks, "
    "stopped processes, other programs at the database, older copies (`python -m "
    "tests.simulation.machines`)",
)
@pytest.mark.parametrize("piece", range(PIECES))
def test_no_promise_is_broken_on_a_machine_with_any_seed(piece: int) -> None:
    seeds = range(piece * SEEDS // PIECES, (piece + 1) * SEEDS // PIECES)
    outcomes = {seed: run(plan_of(seed)).violation for seed in seeds}
    command = "python -m tests.simulation.machines"
    assert not [f"{found}: {command} {seed}" for seed, found in outcomes.items() if found]


def test_the_same_seed_is_the_same_run_on_a_machine() -> None:
    first, again = (run(plan_of(11), tracing=True).trace for _ in range(2))
    assert first == again != []
    assert run(plan_of(12), tracing=True).trace != first


@pytest.mark.proves("2", "one seed is one run of the simulated machine")
@pytest.mark.processes
def test_the_same_seed_is_the_same_run_on_a_machine_under_any_hash_seed() -> None:
    for seed in (3, 14):
        traces = {
            subprocess.run(
                [sys.executable, "-m", "tests.simulation.machines", str(seed)],
                env={**os.environ, "PYTHONHASHSEED": each},
                cwd=TOP,
                capture_output=True,
                check=True,
            ).stdout
            for each in ("1", "2", "3")
        }
        assert len(traces) == 1


@pytest.mark.proves("2", "the embedded store on a…", control="each of its planted defects is found")
@pytest.mark.parametrize("name", MACHINE_BUGS)
def test_a_seed_finds_a_defect_of_the_embedded_store(name: str) -> None:
    with planted(name) as faults:
        for seed in range(SEARCHED):
            if run(plan_of(seed, faults)).violation is not None:
                break
            if seed % 100 == 99:
                gc.collect()
        else:
            pytest.fail(f"no seed finds it of {SEARCHED}")
