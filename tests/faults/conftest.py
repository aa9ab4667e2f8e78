"""How long the faults go on, and what they did.

    pytest tests                                 the short forms: seconds; of tools, ss
    FAULTS_SECONDS=600 pytest tests/faults       all of them: root, strace, loop devices, …

A test takes the fixture ``fault``, tries as often as it is told to, and says what it saw; a table
at the end has a row for each.
"""

import os
import resource
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Final

import pytest

from tests.faults.load import Load

SECONDS: Final = float(os.environ.get("FAULTS_SECONDS", "0"))
"""For all tries of all faults together, without what they need to begin and end; 0 for the
short form, in which the tests that are marked ``long`` are left out."""

_ROWS: Final[list["Fault"]] = []
"""Those of all tests, where they are reported: of several processes the first."""


@dataclass
class Fault:
    """One fault: how often it was tried, and what it did."""

    name: str
    tried: int = 0
    lost: int | None = None
    """Acknowledged steps that were gone afterwards."""
    gap: float | None = None
    """The longest time without an answer, in seconds."""
    notes: list[str] = field(default_factory=list)

    def tries(self, short: int, long: int, share: float) -> Iterator[int]:
        """Count the tries: ``short``, or in the long form up to ``long``.

        Args:
            share: of the seconds there are; when these are over there are no tries past ``short``.
        """
        end = time.monotonic() + share * SECONDS
        while self.tried < short or (self.tried < long and time.monotonic() < end):
            yield self.tried
            self.tried += 1

    def saw(self, *, lost: int | None = None, gap: float | None = None, note: str = "") -> None:
        """Add to what was seen."""
        if lost is not None:
            self.lost = (self.lost or 0) + lost
        if gap is not None:
            self.gap = max(self.gap or 0.0, gap)
        if note:
            self.notes.append(note)

    def check(self, load: Load, *, last: int) -> None:
        """Add what the load saw, and fail unless all that it was answered was right.

        Args:
            load: it has begun at index 0, and has ended.
            last: the index at which the sequence stands now.
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
    """Enough of them, here and in what is started, for a few thousand connections."""
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
