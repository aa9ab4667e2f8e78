"""The logic of the benchmark: what it accepts as correct, and the arithmetic of its figures."""

import socket

import pytest

from bench import machine
from bench.__main__ import arguments
from bench.load import loads, records
from bench.load.records import Record
from bench.sections import appliance
from tests.bench.conftest import record
from tests.support.checker import Integers, WrongAnswer, check


class TestRecords:
    def test_percentiles_are_nearest_rank(self) -> None:
        values = list(range(1, 101))
        assert [records.percentile(values, p) for p in (0, 1, 50, 99, 99.9, 100)] == [
            *(1, 1, 50, 99, 100, 100)
        ]
        assert records.percentile([7], 50) == 7
        with pytest.raises(ValueError, match="no values"):
            records.percentile([], 50)

    def test_latency_is_measured_from_when_a_request_was_due(self) -> None:
        assert records.latencies([record(due=10, sent=500, done=600)]) == [590]

    def test_a_request_without_an_answer_leaves_a_gap(self) -> None:
        """It has no latency."""
        answers = [record(done=t) for t in (10, 20, 90, 100)] + [record(done=50, status=0)]
        assert len(records.latencies(answers)) == 4
        assert records.longest_gap(answers, 25, 30) == 70
        assert records.longest_gap(answers, 0, 15) == 10

    @staticmethod
    def check(answers: list[Record], *, last: int, integers: Integers = "exact") -> None:
        """Check them against a sequence that was at index 10 before."""
        history = records.history(answers, ("next", "current", "previous"), 10, integers)
        check(history, first=10, last=last, integers=integers)

    def test_ordered_steps_and_reads_are_correct(self) -> None:
        answers = [
            record(0, sent=1, done=2, index=11, residue=89),
            record(0, sent=1, done=3, index=12, residue=144),
            record(1, sent=2, done=4, index=11, residue=89),  # sent as the first step was answered
            record(1, sent=4, done=5, index=12),
        ]
        self.check(answers, last=12)

    @pytest.mark.parametrize("status", [0, 1, 500])
    def test_a_step_that_may_have_been_made_is_counted(self, status: int) -> None:
        answers = [record(0, status=status), record(0, index=12, residue=144)]
        self.check(answers, last=12)
        self.check(answers[:1], last=10)

    @pytest.mark.parametrize("status", [304, 412, 503])
    def test_an_answer_with_another_status_is_not_a_step(self, status: int) -> None:
        answers = [record(0, status=status)]
        self.check(answers, last=10)
        with pytest.raises(WrongAnswer, match="answered to nobody"):
            self.check(answers, last=11)

    def test_a_server_without_etags_is_judged_by_its_numbers(self) -> None:
        right = [record(0, residue=89), record(0, residue=144), record(2, residue=34)]
        self.check(right, last=12, integers="uint64")
        for wrong, finding in (
            (record(0, residue=89), "one index, two steps"),
            (record(1, residue=90), "no step"),
        ):
            with pytest.raises(WrongAnswer, match=finding):
                self.check([*right, wrong], last=12, integers="uint64")
        with pytest.raises(WrongAnswer, match="answered to nobody"):
            self.check(right, last=13, integers="uint64")


WRK = """Running 3s test @ http://127.0.0.1:9181/next
  1 threads and 100 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.28ms    1.06ms  17.42ms   88.82%
    Req/Sec    68.19k     6.04k   80.10k    70.00%
  Latency Distribution
     50%    1.10ms
     75%    1.61ms
     90%  950.00us
     99%    1.20s
  203682 requests in 3.01s, 26.69MB read
{problems}Requests/sec:  67728.29
Transfer/sec:      8.87MB
"""


def test_the_output_of_wrk_is_parsed() -> None:
    requests, seconds, latency, problems = loads.parse_wrk(WRK.format(problems=""))
    assert (requests, seconds, problems) == (203_682, 3.01, [])
    assert latency == {"50": 1_100, "90": 950, "99": 1_200_000}


def test_an_error_in_wrk_is_a_problem_of_the_run() -> None:
    text = "  Socket errors: connect 0, read 3, write 0, timeout 0\n  Non-2xx or 3xx responses: 7\n"
    assert len(loads.parse_wrk(WRK.format(problems=text))[3]) == 2
    assert loads.parse_wrk("unable to connect")[3]


class TestTools:
    def test_all_missing_packages_are_named_before_the_first_section(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(machine, "_which", lambda name: None if name == "wrk" else name)
        monkeypatch.setattr(machine, "SERVER_CORE", machine.LOAD_CORE - 1)
        with pytest.raises(machine.MissingError, match=r"install wrk$"):
            machine.check_tools(["small"])
        machine.check_tools(["locust"])


class TestCommand:
    def test_only_locust_accepts_a_url(self, capsys: pytest.CaptureFixture[str]) -> None:
        options = arguments(["--only", "locust", "--url", "http://127.0.0.1:8080/"])
        assert options.url == "http://127.0.0.1:8080"
        for given in ([], ["--only", "memory"], ["--only", "locust", "memory"]):
            with pytest.raises(SystemExit):
                arguments([*given, "--url", "http://127.0.0.1:8080"])
            assert "--url requires --only locust" in capsys.readouterr().err

    def test_no_load_starts_if_no_server_answers(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        with pytest.raises(ConnectionError, match="No load was started"):
            appliance.standing_at(f"http://127.0.0.1:{port}")
