"""The servers that are beside the usual one to tell what it costs to count, and to log."""

import json
from pathlib import Path

import pytest

from bench import machine, servers
from bench.load import loads, workloads
from bench.load.loads import Run
from bench.peers import uncounted
from bench.report.aims import aims
from bench.sections.counting import COUNTED, LOGGED, UNCOUNTED
from bench.servers import Server
from bench.suite import QUICK, Suite
from fibcore.stepper import Stepper


def counts(server: Server) -> list[int]:
    """The index, and what the server has counted: steps, reads, commits."""
    assert server.get("/next")[0] == server.get("/current")[0] == 200
    now = json.loads(server.get("/status")[2])
    return [int(now["index"]), now["steps"], now["reads"], sum(now["commit_seconds"]["counts"])]


@pytest.mark.processes
def test_the_server_without_counting_steps_and_counts_nothing(tmp_path: Path) -> None:
    with servers.uncounted(tmp_path, 7, "exact") as server:
        assert counts(server) == [8, 0, 0, 0]
    with servers.fibcore(tmp_path, 7, "exact") as server:
        assert counts(server) == [8, 1, 1, 1]


@pytest.mark.processes
def test_the_server_with_an_access_log_writes_it(tmp_path: Path) -> None:
    def is_logged() -> bool:
        return '"GET /next HTTP/1.1" 200' in "".join(
            each.read_text() for each in tmp_path.glob("*.log")
        )

    with servers.logged(tmp_path, 7, "exact") as server:
        counts(server)
        machine.wait_until(is_logged, 30, "the request is logged")


def test_a_line_that_no_longer_counts_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uncounted, "COUNTING", {(Stepper, "_answer"): ["self.counted += 1"]})
    with pytest.raises(ValueError, match=r"Stepper\._answer has no line"):
        uncounted.take_out()


def test_the_cost_of_counting_is_told_by_processor_time(tmp_path: Path) -> None:
    """It is that of each round."""
    suite = Suite(QUICK, tmp_path)
    for section, peer, per_second in (
        ("counting", COUNTED, 96.0),
        ("counting", UNCOUNTED, 100.0),
        ("logged", COUNTED, 100.0),
        ("logged", LOGGED, 45.0),
    ):
        run = Run(section, peer, "next", 100, "wrk", "uint64", "full", per_second=per_second)
        run.server_busy = 0.5 if peer == LOGGED else 1.0
        suite.runs.append(run)
    found = {each.what: each for each in aims(suite) if each.reached is not None}
    counting = found["/next, counting, by processor time"]
    logged = found["/next, logged, by processor time"]
    assert (counting.reached, counting.verdict) == (0.96, "MISSED")
    assert (logged.reached, logged.verdict) == (0.9, "met")


def test_the_cost_of_a_key_is_told_by_processor_time(tmp_path: Path) -> None:
    suite = Suite(QUICK, tmp_path)
    for asked, per_second in (("next", 130.0), (workloads.keyed().what, 100.0)):
        run = Run("keyed", COUNTED, "next", 100, "load.c", "uint64", "full", asked=asked)
        run.per_second, run.server_busy = per_second, 1.0
        suite.runs.append(run)
    (found,) = (each for each in aims(suite) if each.reached is not None)
    assert (found.reached, found.verdict) == (1.3, "MISSED")


@pytest.mark.processes
def test_each_keyed_step_of_the_load_is_made_once(tmp_path: Path) -> None:
    keyed = workloads.keyed()
    with servers.fibcore(tmp_path, 7, "uint64") as server:
        run = Run("keyed", COUNTED, "next", 10, "load.c", "uint64", "full")
        for _ in range(2):
            loads.recorded_load(
                tmp_path,
                run,
                server,
                ["next"],
                seconds=30,
                requests=1000,
                request=keyed.request,
                expected=keyed.expected,
            )
            assert run.problems == []
