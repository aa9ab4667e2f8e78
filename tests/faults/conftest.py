"""How long the fault tests run, and what they observed.

    pytest tests                             the short forms: seconds; needs ss
    FAULTS_SECONDS=600 pytest tests/faults   all of them; needs root, strace, loop devices, …

A test uses the fixture ``fault`` for its number of tries and its observations. A table at the
end of the run has a row for each.
"""

import os
import resource
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Final

import pytest

from tests.support.load import Load

SECONDS: Final = float(os.environ.get("FAULTS_SECONDS", "0"))
"""Budget for the tries of all faults together, without their set-up; 0: the short form, without
the tests marked ``long``."""

_ROWS: Final[list["Fault"]] = []
"""The faults of all tests, in the process that reports them."""


@dataclass
class Fault:
    """One fault: its tries, and the observations."""

    name: str
    tried: int = 0
    lost: int | None = None
    """Acknowledged steps that were lost."""
    gap: float | None = None
    """The longest time without an answer, in seconds."""
    notes: list[str] = field(default_factory=list)

    def tries(self, short: int, long: int, share: float) -> Iterator[int]:
        """Yield the number of each try: ``short`` of them, or in the long form up to ``long``.

        Args:
            share: of ``SECONDS``; once it is used up there are no tries past ``short``.
        """
        end = time.monotonic() + share * SECONDS
        while self.tried < short or (self.tried < long and time.monotonic() < end):
            yield self.tried
            self.tried += 1

    def saw(self, *, lost: int | None = None, gap: float | None = None, note: str = "") -> None:
        """Record an observation."""
        if lost is not None:
            self.lost = (self.lost or 0) + lost
        if gap is not None:
            self.gap = max(self.gap or 0.0, gap)
        if note:
            self.notes.append(note)

    def check(self, load: Load, *, last: int) -> None:
        """Record the observations of a load; fail if any answer was wrong.

        Args:
            load: has ended; started at index 0.
            last: the present index of the sequence.
        """
        self.saw(lost=load.lost(last), gap=load.longest_gap)
        load.check(first=0, last=last)


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Iterator[Fault]:
    """The fault of this test."""
    fault = Fault(request.node.name.removeprefix("test_").replace("_", " "))
    yield fault
    request.node.user_properties.append(("fault", asdict(fault)))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown":
        found = (value for name, value in report.user_properties if name == "fault")
        _ROWS.extend(Fault(**value) for value in found)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def descriptors() -> Iterator[None]:
    """Enough descriptors for a few thousand connections, also in child processes."""
    wanted = 4096
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.fail(f"this test needs {wanted} descriptors, and may have {hard}: see ulimit -n")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _ROWS:
        return
    terminalreporter.section("faults")
    terminalreporter.write_line(f"{'tries':>5}  {'lost':>6}  {'longest gap':>11}  fault")
    for row in _ROWS:
        lost = "" if row.lost is None else row.lost
        gap = "" if row.gap is None else f"{row.gap * 1000:.0f} ms"
        terminalreporter.write_line(f"{row.tried:>5}  {lost:>6}  {gap:>11}  {row.name}")
        for note in row.notes:
            terminalreporter.write_line(f"{'':28}- {note}")
