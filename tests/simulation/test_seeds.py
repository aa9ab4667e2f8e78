"""Searches seeds: none breaks a promise, and every sabotage is found."""

import gc
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.simulation.__main__ import Choice, command_of, main, parsed, shrunk, try_seeds
from tests.simulation.plan import STORES, plan_of
from tests.simulation.run import run
from tests.simulation.sabotages import SABOTAGES

PIECES = 4
SEEDS = 200
"""Always the same seeds; ``make simulate`` tries fresh ones."""

SEARCHED = 200
"""A sabotage must be found within this many seeds."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Run as ``python -m tests.simulation`` does, without logs."""
    logging.disable()
    gc.disable()
    yield
    gc.enable()
    gc.collect()
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("piece", range(PIECES))
def test_no_promise_is_broken_with_any_seed(piece: int) -> None:
    seeds = range(piece * SEEDS // PIECES, (piece + 1) * SEEDS // PIECES)
    assert try_seeds(seeds, Choice()).failed == ()


@pytest.mark.parametrize("store", STORES)
def test_the_same_seed_is_the_same_run(store: str) -> None:
    plan = plan_of(11, (store,))
    first, again = run(plan, tracing=True), run(plan, tracing=True)
    assert first.trace == again.trace != []
    assert run(plan_of(12, (store,)), tracing=True).trace != first.trace


@pytest.mark.processes
def test_the_same_seed_is_the_same_run_under_any_hash_seed() -> None:
    for seed in (3, 14):
        traces = {
            subprocess.run(
                [sys.executable, "-m", "tests.simulation", str(seed)],
                env={**os.environ, "PYTHONHASHSEED": each},
                capture_output=True,
                check=True,
            ).stdout
            for each in ("1", "2")
        }
        assert len(traces) == 1


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_seed_finds_a_sabotage(name: str) -> None:
    sabotage = SABOTAGES[name]
    assert any(run(sabotage.plan_of(seed), sabotage).violation for seed in range(SEARCHED))


def test_a_failing_seed_is_shrunk_while_it_still_fails(capsys: pytest.CaptureFixture[str]) -> None:
    choice = Choice(name="TakesLostForUndone")
    plans = map(choice.plan_of, range(SEARCHED))
    found = (plan for plan in plans if choice.run(plan).violation)
    pairs = ((each, shrunk(each, choice)) for each in found)
    # Some plans can't be shrunk.
    whole, plan = next(pair for pair in pairs if pair[0] != pair[1])
    assert (len(plan.faults), len(plan.clients)) < (len(whole.faults), len(whole.clients))
    command = command_of(plan, whole, choice)
    program = "python -m tests.simulation "
    assert command.startswith(program)
    assert parsed(command.removeprefix(program).split()).seed == plan.seed
    assert main(command.removeprefix(program).split()) == 1
    output = capsys.readouterr().out
    assert "Violation: " in output
    assert "begins" in output


def test_an_error_of_the_simulation_itself_is_reported() -> None:
    outcome = run(replace(plan_of(7, ("engine",)), nodes=0))
    assert str(outcome.violation).startswith("the simulation itself failed: ")
