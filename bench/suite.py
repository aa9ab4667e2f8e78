"""Shared by all sections: their effort, their results, and the progress output."""

import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.load.loads import Run


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured. Each peer is measured once in every round."""

    rounds: int
    wrk_seconds: int
    connections: tuple[int, ...]
    open_rounds: int
    open_seconds: float
    rates: tuple[int, ...]  # requests a second, of each of the three streams
    kills: int
    core_rounds: int
    locust_seconds: int
    head_rounds: int
    head_seconds: float
    large_kills: int


FULL = Effort(
    rounds=5,
    wrk_seconds=3,
    connections=(1, 100, 1_000),
    open_rounds=3,
    open_seconds=30,
    rates=(1_000, 3_000, 6_000, 9_000),
    kills=10,
    core_rounds=5,
    locust_seconds=30,
    head_rounds=2,
    head_seconds=0.7,
    large_kills=5,
)
QUICK = replace(
    FULL,
    rounds=3,
    wrk_seconds=1,
    open_rounds=1,
    open_seconds=5,
    rates=(1_000, 6_000),
    kills=4,
    core_rounds=2,
    locust_seconds=10,
    head_rounds=1,
    head_seconds=0.4,
    large_kills=2,
)


@dataclass(slots=True)
class Suite:
    """One run of the benchmark. `folder` has temporary files, on the disk that is measured."""

    effort: Effort
    folder: Path
    url: str | None = None  # of the server for locust; None: start one
    clients: list[str] = field(default_factory=list)  # whose heads to send; empty: all
    runs: list[Run] = field(default_factory=list)
    core: list[dict[str, Any]] = field(default_factory=list)
    takeover: dict[str, Any] = field(default_factory=dict)
    large_takeover: dict[str, Any] = field(default_factory=dict)
    flood: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    locust: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # problems that left something unmeasured
    begun: float = field(default_factory=time.monotonic)

    def log(self, text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self.begun), 60)
        print(f"[{minutes:3}:{seconds:02}] {text}", file=sys.stderr, flush=True)

    def add(self, run: Run) -> None:
        """Add a run, and print it in one line."""
        self.runs.append(run)
        where = " ".join(filter(None, (f"c={run.connections}", run.client, run.asked)))
        if run.rate is not None:
            where += f" {run.rate:,.0f}/s each"
        self.log(
            f"round {run.round + 1}  {run.peer:<15} /{run.endpoint:<9} {where:<18} "
            f"{run.per_second:>10,.0f}/s  p99 {run.latency.get('99', 0):>9,.0f} us  "
            f"{conditions(run)}  {busy(run)}"
        )
        for problem in run.problems:
            name = f"{run.section}: {run.peer} /{run.endpoint} {where}"
            self.problem(f"{name} round {run.round + 1}: {problem}")

    def problem(self, text: str) -> None:
        """Report a problem: the benchmark will exit with 1."""
        self.problems.append(text)
        self.log(f"PROBLEM: {text}")

    def incomplete(self, text: str) -> None:
        """Report a problem that left something unmeasured, which makes the run incomplete."""
        self.missing.append(text)
        self.problem(text)


def busy(run: Run) -> str:
    """The shares of the processor, or an empty string if they were not measured."""
    if not run.server_busy:
        return ""
    shares = {"server": run.server_busy, "load": run.load_busy, "others": run.others_busy}
    return "  ".join(f"{who} {share:.0%}" for who, share in shares.items())


def conditions(run: Run) -> str:
    """The durability, the kind of numbers, the index range and the count of checked values."""
    if run.integers is None:
        return "constant"
    span = "?" if run.first_index is None else f"{run.first_index:,}"
    if run.last_index not in (None, run.first_index):
        span += f"-{run.last_index:,}"
    return f"{run.synchronous} {run.integers} n={span} checked {run.checked:,}"
