"""What the benchmark makes of the runs that it has recorded."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as bench_main
from bench import machine
from bench.__main__ import arguments, is_complete, report
from bench.checker import Integers
from bench.load import generator, loads
from bench.load.loads import Run
from bench.report import aims, figures, ratios, scale, tables
from bench.report.page import figures_page
from bench.sections import flood, stores
from bench.servers import Server
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

    def test_a_few_disturbed_runs_are_named_and_many_make_figures_unreliable(self) -> None:
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

    def test_a_figure_is_met_short_or_not_measured(self) -> None:
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
        found = aims.aims(Suite(QUICK, Path()))
        assert {figure.verdict for figure in found} == {"not measured"}

    def test_the_table_shows_each_figure_with_its_conditions(self) -> None:
        runs = [run("fibcore", 150), run("nginx constant", 100), run("Go uint64", 100)]
        measured = [f for f in aims.aims(Suite(QUICK, Path(), runs=runs)) if f.reached is not None]
        lines = tables.figures_table(measured).splitlines()
        assert len(lines) == 4
        assert "nginx constant" in lines[2]
        assert ">= 1x" in lines[2]
        assert "1.5x" in lines[2]
        assert lines[2].endswith("met     full, exact, n = 90, 24 values checked, server 95% busy")
        assert "MISSED" in lines[3]

    def test_runs_of_a_kind_share_a_line_with_their_median(self) -> None:
        runs = [run("fibcore", value, number) for number, value in enumerate((100, 300, 200))]
        (line,) = tables.runs_table(runs).splitlines()[2:]
        assert "200" in line
        assert "72 values checked" in line

    def test_runs_survive_the_way_through_json(self) -> None:
        made = run("fibcore", 1.5, problems=["a"], latency={"99": 2.0})
        assert Run(**json.loads(json.dumps(made.as_json()))) == made

    def test_a_head_is_compared_with_the_plainest_and_the_peers(self) -> None:
        def of(peer: str, client: str, per_second: float) -> Run:
            return run(peer, per_second, section="heads", client=client, asked="current")

        runs = [of("fibcore", "wrk", 100), of("fibcore", "jdk", 85), of("Go uint64", "jdk", 170)]
        assert ratios.against_plainest(runs, "jdk", "current") == 0.85
        assert ratios.against_peer(runs, "jdk", "current", "Go uint64") == 0.5
        assert ratios.against_plainest(runs, "jdk", "next") is None
        line = next(x for x in ratios.heads_table(runs).splitlines() if x.startswith("jdk"))
        assert line.split() == ["jdk", "0.85", "(0.85)", *"----", "0.5", *"---"]

    @pytest.mark.parametrize("may_fall_behind", [True, False])
    def test_a_peer_may_fall_behind_a_rate_and_the_server_may_not(
        self, may_fall_behind: bool
    ) -> None:
        answers = [record(0, done=9_000), record(0, done=0, status=0)]
        recorded = generator.Recorded({"lost": 1, "unsent": 3}, answers, ("next",))
        made = run("stock", 0)
        loads.summarize(made, recorded, may_fall_behind=may_fall_behind)
        assert (made.requests, made.unanswered) == (1, 4)
        assert bool(made.problems) is not may_fall_behind
        # An error is a problem all the same.
        recorded.records.append(record(0, done=9_000, status=500))
        made.problems.clear()
        loads.summarize(made, recorded, may_fall_behind=may_fall_behind)
        assert made.problems

    def test_reads_and_steps_of_an_open_loop_are_told_apart(self) -> None:
        recorded = generator.Recorded(
            {"lost": 0, "unsent": 0},
            [record(0, done=9_000), record(1, done=2_000), record(1, done=4_000)],
            ("next", "current"),
        )
        runs = [run("fibcore", 0, number, section="open loop", rate=1_000) for number in (0, 1)]
        for each in runs:
            loads.summarize(each, recorded)
            assert each.latency["steps 99"] == 9
            assert (each.latency["reads 50"], each.latency["reads 99"]) == (2, 4)
        (line,) = tables.latency_table(runs).splitlines()[2:]
        assert line.startswith("3 x 1,000/s  fibcore, exact")
        assert tables.latency_table([]) == ""

    def test_the_least_that_a_client_gets_is_the_figure(self) -> None:
        """Who is short is named."""
        runs = [
            run("fibcore", per_second, section="heads", client=client, asked="current")
            for client, per_second in (("wrk", 100), ("jdk", 50), ("go", 90), ("ab", 5))
        ]
        found = aims.aims(Suite(QUICK, Path(), runs=runs))
        (figure,) = (f for f in found if f.what == "/current, heads of real clients")
        assert (figure.reached, figure.verdict) == (0.5, "MISSED")
        assert figure.beside == "lowest of 3 clients; missed: jdk 0.50"  # ab closes each time

    def test_the_memory_figure_names_what_its_box_was_charged_with(self) -> None:
        memory = {"durability": "full", "processes": 5, "first index": 1, "last index": 2}
        memory |= {"peak MB": 100.0, "cgroup peak MB": 140.4}
        for peak, named in ((140.4, True), (None, False)):
            figure = aims.aims(Suite(QUICK, Path(), memory={**memory, "cgroup peak MB": peak}))[-1]
            assert ("cgroup peak 140 MB" in figure.beside) is named


def of_store(store: str, per_second: float, turn: int, **fields: Any) -> Run:
    made = Run("stores", store, "next", 100, "wrk", "uint64", "full", round=turn)
    made.per_second, made.server_busy = per_second, 0.5
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def test_a_store_is_compared_with_the_embedded_one() -> None:
    """It is that of the same round, and of one node."""
    runs = [of_store("sqlite", 1000, 0), of_store("sqlite", 100, 1)]
    runs += [of_store("postgresql", 900, 0), of_store("postgresql", 90, 1)]
    runs += [of_store("postgresql", 5, 0, nodes=2), of_store("postgresql", 5, 0, connections=1)]
    runs += [of_store("redis", 500, 0), of_store(stores.AWAITED, 100, 0)]
    found = {(each.what, each.against): each for each in stores.figures(runs)}
    assert found["/next, postgresql", "sqlite"].reached == pytest.approx(0.9)
    assert found["/next, redis", stores.AWAITED].reached == pytest.approx(5)
    assert found["/next, etcd", "sqlite"].met is None


def test_the_cost_of_a_store_is_per_answer_and_per_message() -> None:
    counted = {"requests": 3000, "seconds": 3.0, "messages": 60, "batches": 50}
    run = of_store("postgresql", 1000, 0, **counted, store_busy=0.01)
    found = stores.costs([run])
    assert found["answers per message"] == 50
    assert found["steps per batch"] == 60
    assert found["node us per answer"] == pytest.approx(500)
    assert found["store us per answer"] == pytest.approx(10)
    assert found["store us per message"] == pytest.approx(500)
    assert "/next" in stores.stores_table([run])
    assert stores.stores_table([]) == ""


def test_the_model_of_many_nodes_is_that_of_what_one_costs() -> None:
    """A node takes 5 us for an answer and 100 for a round trip, the store 200; that takes 400."""

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
    # Of one node, its processor bounds; of a hundred, the sequence.
    assert model.rate(1, 100) == pytest.approx(1e6 * 100 / 600)
    assert model.rate(100, 100) == model.rate(1000, 100) == pytest.approx(1e6 * 100 / 400)
    assert model.period(1000, 100) == pytest.approx(400_000)
    assert scale.predictions_table(measured).count("redis") == 3
    assert "1000" in scale.scale_table(measured)
    assert scale.predictions_table([]) == scale.scale_table([]) == ""
    assert scale.Model.of([], measured) is None


def test_steps_beside_a_flood_are_those_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run is on a server of its own, and one that has not made all of them is a problem."""
    began: list[Server] = []
    flooded: list[Server] = []

    @contextlib.contextmanager
    def start(_: Path, index: int, integers: Integers) -> Iterator[Server]:
        began.append(Server("fibcore", 1, os.getpid(), integers, "full", index))
        yield began[-1]

    def load(
        _: Path, made: Run, server: Server, streams: list[str], *, requests: int, **__: object
    ) -> None:
        assert streams == ["next"]
        made.first_index = server.index
        made.last_index = server.index + requests - (made.round == 1)

    @contextlib.contextmanager
    def flooding(server: Server, *_: object) -> Iterator[None]:
        flooded.append(server)
        yield

    monkeypatch.setattr("bench.servers.fibcore", start)
    monkeypatch.setattr("bench.load.loads.recorded_load", load)
    monkeypatch.setattr(flood, "flooded", flooding)
    suite = Suite(QUICK, tmp_path)
    flood.flood(suite)
    assert len({id(server) for server in began}) == len(suite.runs) == 2 * QUICK.rounds
    assert flooded == began[1::2]
    assert {made.first_index for made in suite.runs} == {flood.FIRST}
    assert [len(made.problems) for made in suite.runs] == [0, 0, 1, 1, 0, 0]


class TestPage:
    def test_the_page_of_figures_says_what_was_measured_and_how(self) -> None:
        page = figures_page(
            {"commit": "v1-3-gabc"}, "quick", ["small"], [("Targets", "what  reached")], ["noisy"]
        )
        assert "| run | quick, only the section small |\n| date | 20" in page
        assert "| commit | v1-3-gabc |\n" in page
        assert page.endswith("\n- noisy\n\n## Targets\n\n```text\nwhat  reached\n```\n")
        assert "| run | full, all sections |" in figures_page({}, "full", [], [], [])

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
    def test_only_a_full_run_or_page_replaces_the_page_of_figures(
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
            suite.lacks(lacking)
        options = arguments(given)
        report(suite, {}, options.only, page=options.page or is_complete(suite, options))
        assert page.read_text().startswith("# Figures") is written
        assert (tmp_path / "figures.md").read_text().startswith("# Figures")

    def test_the_page_has_no_figures_of_a_server_that_was_not_started_here(self) -> None:
        with pytest.raises(SystemExit):
            arguments(["--only", "locust", "--url", "http://x", "--page"])
