"""Searches seeds: none breaks a promise, and every planted defect is found."""

import gc
import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.simulation import judge
from tests.simulation.__main__ import Choice, command_of, main, parsed, shrunk, try_seeds
from tests.simulation.bugs import BUGS, planted
from tests.simulation.install import installed
from tests.simulation.plan import STORES, plan_of
from tests.simulation.run import run

PIECES = 8
SEEDS = 300
"""Always the same seeds; ``make simulate`` tries fresh ones."""

SEARCHED = 500
"""A planted defect must be found within this many seeds."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Run as ``python -m tests.simulation`` does, without logs."""
    logging.disable()
    gc.disable()
    with installed():
        yield
    gc.enable()
    gc.collect()
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("piece", range(PIECES))
def test_no_promise_is_broken_with_any_seed(piece: int) -> None:
    found = []
    for seed in range(piece * SEEDS // PIECES, (piece + 1) * SEEDS // PIECES):
        outcome = run(plan_of(seed))
        if outcome.violation is not None:
            found.append(f"{outcome.violation}: python -m tests.simulation {seed}")
    assert not found


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
            for each in ("1", "2", "3")
        }
        assert len(traces) == 1


@pytest.mark.long
@pytest.mark.parametrize("name", BUGS)
def test_a_seed_finds_a_planted_defect(name: str) -> None:
    bug = BUGS[name]
    with planted(name):
        for seed in range(SEARCHED):
            if run(bug.plan_of(seed)).violation is not None:
                print(f"python -m tests.simulation {seed} --bug {name}")
                break
            if seed % 100 == 99:
                gc.collect()
        else:
            pytest.fail(f"none of {SEARCHED} seeds finds it")


@pytest.mark.parametrize("name", BUGS)
def test_a_defect_can_be_planted(name: str) -> None:
    """The source still contains the text that the defect replaces."""
    with planted(name):
        pass


def test_a_failing_seed_is_shrunk_while_it_still_fails(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a_lost_reply_counts_as_undone"
    with planted(name):
        plans = map(BUGS[name].plan_of, range(SEARCHED))
        found = (plan for plan in plans if run(plan).violation)
        pairs = ((each, shrunk(each)) for each in found)
        # Some plans can't be shrunk.
        whole, plan = next(pair for pair in pairs if pair[0] != pair[1])
        assert (len(plan.faults), len(plan.clients)) < (len(whole.faults), len(whole.clients))
        command = command_of(plan, whole, Choice(bug=name))
    program = "python -m tests.simulation "
    assert command.startswith(program)
    assert parsed(command.removeprefix(program).split()).seed == plan.seed
    assert main(command.removeprefix(program).split()) == 1
    output = capsys.readouterr().out
    assert "Violation: " in output
    assert "begins" in output


def test_an_error_of_the_simulation_itself_is_reported_with_its_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: object) -> int:
        raise KeyError("gone")

    monkeypatch.setattr(judge, "judge", fail)
    ((seed, what),) = try_seeds(range(7, 8), Choice()).failed
    assert (seed, what) == (7, "the simulation itself failed: KeyError('gone')")
