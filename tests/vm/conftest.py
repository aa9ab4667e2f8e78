"""The VM, started once for all tests, and the figures that they print at the end."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.vm.machine import Machine

# The folder created by tests/vm/run, with the box and a copy of the project. Without it there is no
# VM, and `make test` collects nothing here.
LAB: Final = os.environ.get("VM_TEST_LAB")
collect_ignore_glob = [] if LAB else ["test_*.py"]

FIGURES: Final = pytest.StashKey[list[str]]()

Figure = Callable[[str], None]
"""Prints a line at the end."""


@pytest.fixture(scope="session")
def machine() -> Machine:
    """The VM, after ``vagrant up``."""
    assert LAB is not None
    machine = Machine(Path(LAB))
    machine.up()
    return machine


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Call it with a line to print when all tests have passed."""
    lines = request.config.stash.setdefault(FIGURES, [])
    return lines.append


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if lines := config.stash.get(FIGURES, []):
        terminalreporter.section("figures, under software emulation")
        for line in lines:
            terminalreporter.write_line(line)
