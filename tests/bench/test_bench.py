"""The benchmark: its heads, its arithmetic, and one short section against a real server."""

from pathlib import Path

import pytest

from bench import figures, heads, load
from bench.__main__ import measure
from bench.figures import Figure
from bench.load import NONE, OK, Record, Run, history
from bench.sections import SECTIONS, Bench
from tests.support import requires
from tests.support.checker import WrongAnswer, check


def test_other_requests_are_derived_from_the_recorded_head() -> None:
    go = heads.request("go").raw
    step = heads.request("go", "POST", "/next").raw
    assert step == go.replace(b"GET /current", b"POST /next")[:-2] + b"Content-Length: 0\r\n\r\n"
    for client in heads.clients():
        for request in heads.requests(client):
            assert request.raw.endswith(b"\r\n\r\n")
            assert request.raw.lower().count(b"\r\nhost: 127.0.0.1:8080\r\n") == 1


def test_a_ratio_is_taken_within_each_round() -> None:
    def runs(*rates: float) -> list[Run]:
        return [Run(rate, 10, 20, 1e6 / rate) for rate in rates]

    # The machine is half as fast in the second round, and stutters in the third.
    ours, theirs = runs(200, 100, 10), runs(100, 50, 10)
    rounds = {figures.OURS: ours, figures.BESIDE: theirs, "nginx": runs(100, 50, 100)}
    made = figures.ratio("reads", "/current", rounds, "nginx", 2.5)
    assert (made.reached, made.verdict) == (2, "**missed**")
    assert "| 2.000 | 0.500 |" in figures.table([made])


@pytest.mark.parametrize(("status", "may_step"), [(0, True), (500, True), (503, False)])
def test_a_request_without_an_answer_may_have_stepped(status: int, may_step: bool) -> None:
    records = [Record(0, 0, 1, NONE, NONE, 0, status), Record(0, 0, 1, 12, NONE, 0, OK)]
    answers = history(records, ["next"])
    if may_step:
        check(answers, first=10, last=12)
    else:
        with pytest.raises(WrongAnswer, match="answered to nobody"):
            check(answers, first=10, last=12)


@pytest.mark.processes
def test_a_section_measures_a_real_server_beside_another(tmp_path: Path) -> None:
    """Here the other one is of this checkout, too."""
    requires.program("nginx")
    root = Path(__file__).parents[2]
    found, failed = measure(Bench(tmp_path, beside=root, rounds=1), ["reads", "next"])
    assert failed == 0
    assert [each.what for each in found] == ["/current", "/previous", "/next"]
    assert all(each.reached > 0 and len(each.runs) == len(each.beside) == 1 for each in found)
    assert figures.table(found).count("\n") == 4


@pytest.mark.processes
def test_a_load_with_a_wrong_answer_yields_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rejected(bench: Bench) -> list[Figure]:
        with bench.fibcore("uint64") as ours:
            request = heads.request("curl", path="/next").with_field("If-Match", b'"7"')
            for server in ours.values():
                load.run(bench.folder, server, "next", request, seconds=0.1)
        return []

    monkeypatch.setitem(SECTIONS, "next", rejected)
    assert measure(Bench(tmp_path), ["next"]) == ([], 1)
