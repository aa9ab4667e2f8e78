"""The benchmark's own logic: what it takes for right, and the arithmetic of its figures."""

import json
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import figures, loads, records
from bench.loads import Run
from bench.records import NONE, OK, Record
from bench.values import MODULUS, Checker, Integers, Residues, WrongValue
from tests.reference import fibonacci, fibonacci_modulo


def record(
    stream: int = 0,
    sent: int = 0,
    done: int = 1,
    index: int = NONE,
    residue: int = NONE,
    status: int = OK,
    due: int | None = None,
) -> Record:
    return Record(sent if due is None else due, sent, done, index, residue, stream, status)


class TestChecker:
    def test_the_reference_session_is_right(self) -> None:
        checker = Checker("exact", 0)
        session = (
            ("current", 0, 0),
            ("previous", 0, 0),
            ("next", 1, 1),
            ("next", 2, 1),
            ("next", 3, 2),
            ("previous", 3, 1),
            ("current", 3, 2),
        )
        for endpoint, index, number in session:
            floor = checker.begin(endpoint)
            checker.check(
                endpoint, floor, f'"{index}"', b'{"%s": %d}' % (endpoint.encode(), number)
            )
        assert checker.stepped == {1, 2, 3}

    @pytest.mark.parametrize("integers", ["exact", "uint64"])
    def test_every_right_number_passes_and_its_neighbour_does_not(self, integers: Integers) -> None:
        value = fibonacci if integers == "exact" else fibonacci_modulo
        for index in (1, 92, 93, 94, 95, 2_000):
            checker = Checker(integers, index)
            checker.check("current", index, f'"{index}"', b'{"current": %d}' % value(index))
            checker.check("previous", index, f'"{index}"', b'{"previous": %d}' % value(index - 1))
            with pytest.raises(WrongValue, match="not those of index"):
                checker.check(
                    "current", index, f'"{index}"', b'{"current": %d}' % (value(index) + 1)
                )

    def test_an_index_answered_twice_is_found_whoever_asked(self) -> None:
        checker = Checker("exact", 4)
        first, second = checker.begin("next"), checker.begin("next")
        checker.check("next", first, '"5"', b'{"next": 5}')
        with pytest.raises(WrongValue, match="answered twice"):
            checker.check("next", second, '"5"', b'{"next": 5}')

    def test_a_read_may_not_be_behind_a_step_answered_before_it_was_sent(self) -> None:
        checker = Checker("exact", 4)
        early = checker.begin("current")
        checker.check("next", checker.begin("next"), '"5"', b'{"next": 5}')
        late = checker.begin("current")
        checker.check("current", early, '"4"', b'{"current": 3}')
        with pytest.raises(WrongValue, match="had been answered before"):
            checker.check("current", late, '"4"', b'{"current": 3}')

    def test_an_index_that_nobody_has_asked_for_is_found(self) -> None:
        checker = Checker("exact", 4)
        with pytest.raises(WrongValue, match="after 1 steps were asked for"):
            checker.check("next", checker.begin("next"), '"6"', b'{"next": 8}')

    @pytest.mark.parametrize(
        ("etag", "body"),
        [
            (None, b'{"current": 3}'),
            ("4", b'{"current": 3}'),
            ('W/"4"', b'{"current": 3}'),
            ('"4"', b'{"current":3}'),
            ('"4"', b'{"current": 3}\n'),
            ('"4"', b'{"current": 03}'),
            ('"4"', b'{"current": 3.0}'),
            ('"4"', b'{"current": "3"}'),
            ('"4"', b'{"current": }'),
            ('"4"', b'{"next": 3}'),
            ('"4"', b""),
        ],
    )
    def test_anything_but_the_exact_bytes_is_wrong(self, etag: str | None, body: bytes) -> None:
        with pytest.raises(WrongValue):
            Checker("exact", 4).check("current", 4, etag, body)


class TestRecords:
    def test_percentiles_are_nearest_rank(self) -> None:
        values = list(range(1, 101))
        assert [records.percentile(values, p) for p in (0, 1, 50, 99, 99.9, 100)] == [
            *(1, 1, 50, 99, 100, 100)
        ]
        assert records.percentile([7], 50) == 7
        with pytest.raises(ValueError, match="no values"):
            records.percentile([], 50)

    def test_latency_counts_from_when_a_request_was_due(self) -> None:
        assert records.latencies([record(due=10, sent=500, done=600)]) == [590]

    def test_a_request_without_an_answer_has_no_latency_but_leaves_a_gap(self) -> None:
        answers = [record(done=t) for t in (10, 20, 90, 100)] + [record(done=50, status=0)]
        assert len(records.latencies(answers)) == 4
        assert records.longest_gap(answers, 25, 30) == 70
        assert records.longest_gap(answers, 0, 15) == 10

    def test_steps_and_reads_in_order_are_right(self) -> None:
        answers = [
            record(0, sent=1, done=2, index=11, residue=89),
            record(0, sent=1, done=3, index=12, residue=144),
            record(1, sent=2, done=4, index=11, residue=89),  # sent as the first step was answered
            record(1, sent=4, done=5, index=12),
        ]
        assert records.verify(answers, ("next", "current"), Residues("exact", 10)) == 3

    @pytest.mark.parametrize(
        ("wrong", "finding"),
        [
            (record(0, sent=1, done=9, index=11, residue=89), "answered twice"),
            (record(0, sent=5, done=9, index=10, residue=55), "had been answered before"),
            (record(1, sent=5, done=9, index=10, residue=55), "had been answered before"),
            (record(1, sent=5, done=9, index=11, residue=88), "not the number of index 11"),
            (record(1, sent=5, done=9, index=10**12, residue=1), "index 1000000000000 when"),
        ],
    )
    def test_one_wrong_answer_is_found(self, wrong: Record, finding: str) -> None:
        answers = [record(0, sent=1, done=2, index=11, residue=89), wrong]
        with pytest.raises(WrongValue, match=finding):
            records.verify(answers, ("next", "current"), Residues("exact", 10))

    def test_a_server_without_etags_is_judged_by_its_numbers(self) -> None:
        residues, names = Residues("uint64", 10), ("next", "current", "previous")
        right = [record(0, residue=89), record(0, residue=144), record(2, residue=34)]
        assert records.verify(right, names, residues) == 3
        for wrong, finding in (
            (record(0, residue=89), "twice"),
            (record(1, residue=90), "no step"),
        ):
            with pytest.raises(WrongValue, match=finding):
                records.verify([*right, wrong], names, residues)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return loads.build_generator(tmp_path_factory.mktemp("load"))


class TestGenerator:
    """load.c, against a server that answers one connection at a time from a script."""

    @pytest.fixture
    def listener(self) -> Iterator[socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.settimeout(30)
            yield listening

    @staticmethod
    def run(
        program: Path, listener: socket.socket, folder: Path, *options: str
    ) -> tuple[dict[str, int], list[Record]]:
        port, path = listener.getsockname()[1], folder / "records"
        done = subprocess.run(
            [program, "--port", str(port), "--records", path, *options],
            capture_output=True,
            check=True,
            timeout=60,
        )
        return json.loads(done.stdout), records.read(path)

    @staticmethod
    def answer(
        listener: socket.socket, bodies: list[bytes], stall: float = 0, cut: int = 0
    ) -> None:
        """Each body in turn, the first after `stall` seconds, all in pieces of `cut` bytes."""
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection:
            for i, body in enumerate(bodies):
                connection.recv(4096)
                time.sleep(stall * (i == 0))
                head = b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\nETag: "%d"\r\n\r\n'
                data = head % (len(body), i) + body
                for at in range(0, len(data), cut or len(data)):
                    connection.sendall(data[at : at + (cut or len(data))])

    @pytest.mark.parametrize("integers", ["exact", "uint64"])
    @pytest.mark.parametrize("cut", [0, 7])
    def test_it_records_the_residue_of_numbers_of_every_length(
        self, program: Path, listener: socket.socket, tmp_path: Path, integers: Integers, cut: int
    ) -> None:
        numbers = [int("9876543210" * 5) // 10**digits for digits in range(49)]
        bodies = [b'{"current": %d}' % number for number in numbers]
        threading.Thread(target=self.answer, args=(listener, bodies, 0, cut), daemon=True).start()
        options = ["--stream", "/current", "--requests", str(len(bodies)), "--seconds", "20"]
        if integers == "uint64":
            options.append("--uint64")
        counts, found = self.run(program, listener, tmp_path, *options)
        assert [r.residue for r in found] == [number % MODULUS[integers] for number in numbers]
        assert [r.index for r in found] == list(range(len(bodies)))
        assert (counts["issued"], counts["lost"], counts["unsent"]) == (len(bodies), 0, 0)

    @pytest.mark.parametrize(
        "body", [b'{"current": 12x}', b'{"current": 1234567x901234567}', b'{"next": 1}', b'{"curr']
    )
    def test_what_is_not_the_one_number_is_recorded_as_malformed(
        self, program: Path, listener: socket.socket, tmp_path: Path, body: bytes
    ) -> None:
        threading.Thread(target=self.answer, args=(listener, [body]), daemon=True).start()
        _, found = self.run(program, listener, tmp_path, "--stream", "/current", "--requests", "1")
        assert [r.status for r in found] == [1]

    def test_a_stall_is_in_the_latency_of_all_that_were_due_meanwhile(
        self, program: Path, listener: socket.socket, tmp_path: Path
    ) -> None:
        bodies = [b'{"current": 1}'] * 10
        threading.Thread(target=self.answer, args=(listener, bodies, 0.3), daemon=True).start()
        options = ("--stream", "/current:100", "--requests", "10", "--seconds", "10")
        _, found = self.run(program, listener, tmp_path, *options)
        assert len(found) == 10
        for i, each in enumerate(found):  # due every 10 ms, all answered after the 300 ms
            assert each.due - found[0].due == i * 10_000_000
            assert each.done - each.due >= 300_000_000 - i * 10_000_000
        assert found[1].sent - found[1].due >= 290_000_000

    def test_a_lost_connection_is_a_lost_request_and_is_opened_anew(
        self, program: Path, listener: socket.socket, tmp_path: Path
    ) -> None:
        def serve() -> None:
            connection, _ = listener.accept()
            connection.recv(4096)
            connection.close()
            self.answer(listener, [b'{"current": 1}'])

        threading.Thread(target=serve, daemon=True).start()
        options = ("--stream", "/current", "--requests", "2", "--seconds", "20")
        counts, found = self.run(program, listener, tmp_path, *options)
        assert [r.status for r in found] == [0, OK]
        assert (counts["opened"], counts["lost"], counts["refused"]) == (2, 1, 0)

    def test_a_record_is_what_the_reader_takes_it_for(self, tmp_path: Path) -> None:
        path = tmp_path / "records"
        path.write_bytes(struct.pack("=5Q2I", 1, 2, 3, NONE, 5, 1, 200))
        assert records.read(path) == [Record(1, 2, 3, NONE, 5, 1, 200)]


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


def test_what_wrk_prints_is_understood() -> None:
    requests, seconds, latency, problems = loads.parse_wrk(WRK.format(problems=""))
    assert (requests, seconds, problems) == (203_682, 3.01, [])
    assert latency == {"50": 1_100, "90": 950, "99": 1_200_000}


def test_what_went_wrong_in_wrk_is_a_problem_of_the_run() -> None:
    text = "  Socket errors: connect 0, read 3, write 0, timeout 0\n  Non-2xx or 3xx responses: 7\n"
    assert len(loads.parse_wrk(WRK.format(problems=text))[3]) == 2
    assert loads.parse_wrk("unable to connect")[3]


def run(peer: str, per_second: float, number: int = 0, **fields: object) -> Run:
    made = Run("small", peer, "current", 100, "wrk", "exact", "full", round=number)
    made.per_second, made.server_busy = per_second, 0.95
    made.first_index = made.last_index = 90
    made.checked = 24
    for name, value in fields.items():
        setattr(made, name, value)
    return made


class TestFigures:
    def test_a_ratio_is_taken_within_each_round(self) -> None:
        # The machine is half as fast in the second round, and stutters in the third.
        ours = [run("fibcore", 200, 0), run("fibcore", 100, 1), run("fibcore", 10, 2)]
        theirs = [run("nginx constant", 100, 0), run("nginx constant", 50, 1)]
        theirs.append(run("nginx constant", 100, 2))
        assert figures.paired(ours, theirs, figures.throughput) == 2
        assert figures.paired(ours, [], figures.throughput) is None

    def test_a_figure_is_met_short_or_not_measured(self) -> None:
        def verdict(reached: float | None, most: bool) -> str:
            return figures.Figure("x", "y", 2, reached, most=most).verdict

        assert [verdict(reached, most=False) for reached in (1.9, 2, 2.1)] == [
            "SHORT",
            "met",
            "met",
        ]
        assert [verdict(reached, most=True) for reached in (1.9, 2, 2.1)] == ["met", "met", "SHORT"]
        assert verdict(None, most=True) == "not measured"

    def test_a_benchmark_that_measured_nothing_claims_nothing(self) -> None:
        found = figures.figures([], [], {}, {})
        assert {figure.verdict for figure in found} == {"not measured"}

    def test_the_table_shows_each_figure_with_its_conditions(self) -> None:
        runs = [run("fibcore", 150), run("nginx constant", 100), run("Go uint64", 100)]
        measured = [f for f in figures.figures(runs, [], {}, {}) if f.reached is not None]
        lines = figures.figures_table(measured).splitlines()
        assert len(lines) == 4
        assert "nginx constant" in lines[2]
        assert ">= 1x" in lines[2]
        assert "1.5x" in lines[2]
        assert lines[2].endswith("met    full, exact, n = 90, 24 values checked, server 95% busy")
        assert "SHORT" in lines[3]

    def test_runs_of_a_kind_share_a_line_with_their_median(self) -> None:
        runs = [run("fibcore", value, number) for number, value in enumerate((100, 300, 200))]
        (line,) = figures.runs_table(runs).splitlines()[2:]
        assert "200" in line
        assert "72 values checked" in line

    def test_runs_survive_the_way_through_json(self) -> None:
        made = run("fibcore", 1.5, problems=["a"], latency={"99": 2.0})
        assert Run(**json.loads(json.dumps(made.as_json()))) == made
