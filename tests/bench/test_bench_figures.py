"""The figures that the benchmark derives from recorded runs."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as bench_main
from bench import machine
from bench.__main__ import arguments, is_complete, report
from bench.load import generator, loads
from bench.load.loads import Run
from bench.report import figures, scale, targets
from bench.sections import stores
from bench.suite import FULL, QUICK, Effort, Suite
from tests.bench.conftest import record, run


class TestFigures:
    def test_a_ratio_is_taken_within_each_round(self) -> None:
        # The machine is half as fast in the second round, and stutters in the third.
        ours = [run("fibcore", 200, 0), run("fibcore", 100, 1), run("fibcore", 10, 2)]
        theirs = [run("nginx constant", 100, 0), run("nginx constant", 50, 1)]
        theirs.append(run("nginx constant", 100, 2))
        assert figures.paired(ours, theirs, figures.throughput) == 2
        assert figures.paired(ours, [], figures.throughput) is None
        around = [run("stock", 100, 0), run("stock", 300, 0)]
        assert figures.paired(ours[:1], around, figures.throughput) == 1

    def test_few_disturbed_runs_are_named_and_many_make_figures_unreliable(self) -> None:
        quiet = [run("fibcore", 100, number) for number in range(19)]
        assert figures.disturbance(quiet) == ""
        first = run("stock", 100, 2, others_busy=0.5)
        second = run("nginx constant", 100, 0, others_busy=0.26, client="curl", nominal_index=7)
        note = figures.disturbance([*quiet, first, second])
        assert note.startswith("During 2 of 21 runs other programs used more than 25% of a core")
        assert "not reliable" not in note
        assert note.endswith(
            "these are less reliable: small, stock /current, 100 connections, round 3; "
            "small, nginx constant /current at n = 7, 100 connections, curl, round 1."
        )
        note = figures.disturbance([*quiet[:5], first, second])
        assert note.endswith("the figures are not reliable. Measure on a quiet machine.")

    def test_an_aim_is_met_missed_or_not_measured(self) -> None:
        def verdict(reached: float | None, most: bool) -> str:
            return figures.Figure("x", "y", 2, reached, most=most).verdict

        assert [verdict(reached, most=False) for reached in (1.9, 2, 2.1)] == [
            "MISSED",
            "met",
            "met",
        ]
        assert [verdict(reached, most=True) for reached in (1.9, 2, 2.1)] == [
            "met",
            "met",
            "MISSED",
        ]
        assert verdict(None, most=True) == "not measured"

    def test_a_benchmark_that_measured_nothing_claims_nothing(self) -> None:
        found = targets.targets(Suite(QUICK, Path()))
        assert {figure.verdict for figure in found} == {"not measured"}

    def test_runs_survive_json(self) -> None:
        made = run("fibcore", 1.5, problems=["a"], latency={"99": 2.0})
        assert Run(**json.loads(json.dumps(made.as_json()))) == made

    @pytest.mark.parametrize("may_fall_behind", [True, False])
    def test_a_peer_may_fall_behind_a_rate_but_the_server_may_not(
        self, may_fall_behind: bool
    ) -> None:
        answers = [record(0, done=9_000), record(0, done=0, status=0)]
        recorded = generator.Recorded({"lost": 1, "unsent": 3}, answers, ("next",))
        made = run("stock", 0)
        loads.summarize(made, recorded, may_fall_behind=may_fall_behind)
        assert (made.requests, made.unanswered) == (1, 4)
        assert bool(made.problems) is not may_fall_behind
        # An error is still a problem.
        recorded.records.append(record(0, done=9_000, status=500))
        made.problems.clear()
        loads.summarize(made, recorded, may_fall_behind=may_fall_behind)
        assert made.problems

    def test_the_worst_client_determines_the_figure(self) -> None:
        """Clients below the target are named."""
        runs = [
            run("fibcore", per_second, section="heads", client=client, asked="current")
            for client, per_second in (("wrk", 100), ("jdk", 50), ("go", 90), ("ab", 5))
        ]
        found = targets.targets(Suite(QUICK, Path(), runs=runs))
        (figure,) = (f for f in found if f.what == "/current, heads of real clients")
        assert (figure.reached, figure.verdict) == (0.5, "MISSED")
        assert figure.conditions == "lowest of 3 clients; missed: jdk 0.50"  # ab closes each time


def of_store(store: str, per_second: float, turn: int, **fields: Any) -> Run:
    made = Run("stores", store, "next", 100, "wrk", "uint64", "full", round=turn)
    made.per_second, made.server_busy = per_second, 0.5
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def test_a_store_is_compared_with_the_embedded_one() -> None:
    """It is compared with the same round, and with one node."""
    runs = [of_store("sqlite", 1000, 0), of_store("sqlite", 100, 1)]
    runs += [of_store("postgresql", 900, 0), of_store("postgresql", 90, 1)]
    runs += [of_store("postgresql", 5, 0, nodes=2), of_store("postgresql", 5, 0, connections=1)]
    runs += [of_store("redis", 500, 0), of_store(stores.AWAITED, 100, 0)]
    found = {(each.what, each.against): each for each in targets._stores(runs)}
    assert found["/next, postgresql", "sqlite"].reached == pytest.approx(0.9)
    assert found["/next, redis", stores.AWAITED].reached == pytest.approx(5)
    assert found["/next, etcd", "sqlite"].met is None


def test_the_model_of_many_nodes_follows_from_the_cost_of_one() -> None:
    """A node takes 5 us for an answer and 100 for a round trip, the store 200; that makes 400."""

    def runs(nodes: int, connections: int) -> Run:
        shared = connections / nodes
        made = of_store("redis", 1000, 0, nodes=nodes, connections=connections, seconds=1.0)
        made.requests, made.messages = 1000, round(1000 / shared)
        made.server_busy = (5 + 100 / shared) * 1e-3
        made.store_busy = 200 / shared * 1e-3
        made.latency = {"50": 400.0}
        return made

    measured = [runs(1, 1), runs(1, 100), runs(2, 100), runs(4, 100)]
    model = scale.Model.of(measured[:1], measured[1:2])
    assert model is not None
    assert (model.answer, model.turn, model.store) == pytest.approx((5, 100, 200))
    assert model.node_us(4) == pytest.approx(5 + 100 / 25)
    assert model.store_us(4) == pytest.approx(8)
    # One node is limited by its processor, a hundred by the sequence.
    assert model.rate(1, 100) == pytest.approx(1e6 * 100 / 600)
    assert model.rate(100, 100) == model.rate(1000, 100) == pytest.approx(1e6 * 100 / 400)
    assert model.period(1000, 100) == pytest.approx(400_000)
    assert scale.predictions_table(measured).count("redis") == 3
    assert "1000" in scale.scale_table(measured)
    assert scale.predictions_table([]) == scale.scale_table([]) == ""
    assert scale.Model.of([], measured) is None


class TestPage:
    @pytest.mark.parametrize(
        ("given", "effort", "lacking", "written"),
        [
            ([], FULL, "", True),
            (["--quick"], QUICK, "", False),
            (["--only", "small"], FULL, "", False),
            (["--clients", "jdk"], FULL, "", False),
            ([], FULL, "stores was not finished", False),
            (["--quick", "--only", "small", "--page"], QUICK, "", True),
        ],
    )
    def test_only_a_full_run_replaces_the_page_of_figures(
        self,
        given: list[str],
        effort: Effort,
        lacking: str,
        written: bool,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        page = tmp_path / "docs.md"
        page.write_text("the last full run")
        monkeypatch.setattr(bench_main, "FIGURES", page)
        monkeypatch.setattr(machine, "RESULTS", tmp_path)
        suite = Suite(effort, tmp_path)
        if lacking:
            suite.incomplete(lacking)
        options = arguments(given)
        report(suite, {}, options.only, page=options.page or is_complete(suite, options))
        assert page.read_text().startswith("# Figures") is written
        assert (tmp_path / "figures.md").read_text().startswith("# Figures")

    def test_the_page_omits_figures_of_servers_started_elsewhere(self) -> None:
        with pytest.raises(SystemExit):
            arguments(["--only", "locust", "--url", "http://x", "--page"])
