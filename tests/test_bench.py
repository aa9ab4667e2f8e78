"""The benchmark's own logic: what it takes for right, and the arithmetic of its figures."""

import json
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import (
    aims,
    appliance,
    box,
    crowd,
    figures,
    generator,
    limits,
    loads,
    ratios,
    records,
    tables,
)
from bench.__main__ import arguments
from bench.box import Box
from bench.loads import Run
from bench.records import NONE, OK, Record
from bench.suite import QUICK, Suite
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
    return generator.build(tmp_path_factory.mktemp("load"))


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

    def test_a_request_of_a_file_is_sent_with_what_differs_each_time(
        self, program: Path, listener: socket.socket, tmp_path: Path
    ) -> None:
        heard: list[bytes] = []

        def serve() -> None:
            for _ in range(2):  # a server that closes after each answer, and does not say so
                connection, _ = listener.accept()
                with connection:
                    heard.append(connection.recv(4096))
                    connection.sendall(b'HTTP/1.0 304 Not Modified\r\nETag: "7"\r\n\r\n')

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        sent = tmp_path / "request"
        sent.write_bytes(b'GET /next HTTP/1.0\r\nX: \0\0\0\0\0\0\0\0\r\nIf-Match: "\1"\r\n\r\n')
        options = (
            "--stream",
            "/next",
            "--request",
            str(sent),
            "--requests",
            "2",
            "--seconds",
            "20",
        )
        counts, found = self.run(program, listener, tmp_path, *options)
        serving.join(30)
        assert [(r.status, r.index, r.residue) for r in found] == [(304, 7, NONE)] * 2
        assert counts["lost"] == 0
        pattern = rb'GET /next HTTP/1.0\r\nX: ([0-9a-f]{8})\r\nIf-Match: "(\d)"\r\n\r\n'
        (first, before), (second, after) = (
            match.groups() for each in heard if (match := re.fullmatch(pattern, each))
        )
        assert first != second
        assert (before, after) == (b"0", b"7")

    def test_the_digits_alone_and_no_body_at_all_are_right_answers_too(
        self, program: Path, listener: socket.socket, tmp_path: Path
    ) -> None:
        heads = {
            b"GET": b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Content-Length: 2\r\n\r\n55",
            b"HEAD": b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n",
        }

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while request := connection.recv(4096):
                    connection.sendall(heads[request.split()[0]])

        threading.Thread(target=serve, daemon=True).start()
        options = ["--requests", "2", "--seconds", "20"]
        for method in heads:
            sent = tmp_path / method.decode()
            sent.write_bytes(method + b" /current HTTP/1.1\r\nHost: a\r\n\r\n")
            options += ["--stream", "/current", "--request", str(sent)]
        _, found = self.run(program, listener, tmp_path, *options)
        assert [(r.status, r.residue) for r in found] == [(OK, 55), (OK, NONE)]

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
        assert lines[2].endswith("met    full, exact, n = 90, 24 values checked, server 95% busy")
        assert "SHORT" in lines[3]

    def test_runs_of_a_kind_share_a_line_with_their_median(self) -> None:
        runs = [run("fibcore", value, number) for number, value in enumerate((100, 300, 200))]
        (line,) = tables.runs_table(runs).splitlines()[2:]
        assert "200" in line
        assert "72 values checked" in line

    def test_runs_survive_the_way_through_json(self) -> None:
        made = run("fibcore", 1.5, problems=["a"], latency={"99": 2.0})
        assert Run(**json.loads(json.dumps(made.as_json()))) == made

    def test_what_a_head_gets_is_told_beside_the_plainest_head_and_the_peers(self) -> None:
        def of(peer: str, client: str, per_second: float) -> Run:
            return run(peer, per_second, section="heads", client=client, asked="current")

        runs = [of("fibcore", "wrk", 100), of("fibcore", "jdk", 85), of("Go uint64", "jdk", 170)]
        assert ratios.against_plainest(runs, "jdk", "current") == 0.85
        assert ratios.against_peer(runs, "jdk", "current", "Go uint64") == 0.5
        assert ratios.against_plainest(runs, "jdk", "next") is None
        line = next(x for x in ratios.heads_table(runs).splitlines() if x.startswith("jdk"))
        assert line.split() == ["jdk", "0.85", "(0.85)", *"----", "0.5", *"---"]

    def test_reads_and_steps_are_told_apart_and_shares_of_the_most_are_one_kind(self) -> None:
        recorded = generator.Recorded(
            {"lost": 0, "unsent": 0},
            [record(0, done=9_000), record(1, done=2_000), record(1, done=4_000)],
            ("next", "current"),
        )
        runs = [
            run("fibcore", 0, number, section=section, rate=rate)
            for number, (section, rate) in enumerate(
                (("open loop", 1_000), ("share", 70), ("share", 90))
            )
        ]
        for each in runs:
            loads.judge(each, recorded, None)
            assert each.latency["steps 99"] == 9
            assert (each.latency["reads 50"], each.latency["reads 99"]) == (2, 4)
        lines = tables.latency_table(runs).splitlines()[2:]
        assert [line.split()[:3] for line in lines] == [
            ["3", "x", "1,000/s"],
            ["3", "x", "80/s,"],
        ]
        assert tables.latency_table([]) == ""

    def test_what_a_request_costs_is_the_servers_processor_time(self) -> None:
        runs = [
            run(peer, 1_000, section="real", client="httpx", asked="next", server_busy=busy)
            for peer, busy in (("fibcore", 0.05), ("stock", 0.1))
        ]
        (line,) = ratios.costs_table(runs).splitlines()[2:]
        assert line.split() == ["/next", "httpx", "1,000", "50", "-", "100"]

    def test_the_least_that_a_client_gets_is_the_figure_and_who_is_short_is_named(self) -> None:
        runs = [
            run("fibcore", per_second, section="heads", client=client, asked="current")
            for client, per_second in (("wrk", 100), ("jdk", 50), ("go", 90), ("ab", 5))
        ]
        found = aims.aims(Suite(QUICK, Path(), runs=runs))
        (figure,) = (f for f in found if f.what == "/current, real clients' heads")
        assert (figure.reached, figure.verdict) == (0.5, "SHORT")
        assert figure.beside == "the least of 3 clients; short: jdk 0.50"  # ab closes each time

    def test_the_memory_figure_names_what_its_box_was_charged_with(self) -> None:
        memory = {"durability": "full", "processes": 5, "first index": 1, "last index": 2}
        memory |= {"peak MB": 100.0, "box peak MB": 140.4}
        for peak, told in ((140.4, True), (None, False)):
            figure = aims.aims(Suite(QUICK, Path(), memory={**memory, "box peak MB": peak}))[-1]
            assert ("140 MB charged to its box" in figure.beside) is told


MACHINE = {"sync of 4 KiB, median us": 180, "sync of 4 KiB, p99 us": 270}


class TestLimits:
    def test_nothing_is_said_of_what_was_not_measured(self) -> None:
        assert list(limits.limits([], MACHINE)) == []
        assert list(limits.limits([run("fibcore", 150)], MACHINE)) == []

    def test_each_bound_is_told_in_the_numbers_of_the_run(self) -> None:
        runs = [
            run("fibcore", 100_000),
            run("fibcore", 50_000, endpoint="next"),
            run("nginx constant", 100_000, endpoint="next", load_busy=0.98),
            run("Go math/big", 8_000, endpoint="next", section="large", nominal_index=30_000),
            run("nginx static", 75_000, endpoint="next", section="large", nominal_index=30_000),
            run("Go uint64", 3_000, section="open loop", rate=1_000, latency={"99": 150.0}),
        ]
        commit, load, size, sync = limits.limits(runs, MACHINE)
        assert "took 9.5 us of the processor and a step 19.0 us" in commit
        assert "comes to 0.5 x nginx" in commit
        assert "98% of its own core" in load
        assert "160,000 answers a second" in size
        assert "75,000 times" in size
        assert "180 us, and 270 us at the 99th percentile" in sync
        assert "150 us" in sync


class TestBox:
    """Groups are plain folders here, which stand for the kernel's."""

    @staticmethod
    def process(folder: Path, cgroup: str, *mounts: str) -> Path:
        """A /proc in which process 7 is in these groups and sees these mounts."""
        (folder / "7").mkdir(parents=True)
        (folder / "7" / "cgroup").write_text(cgroup)
        (folder / "7" / "mountinfo").write_text("".join(f"{mount}\n" for mount in mounts))
        return folder

    V1 = "31 24 0:27 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory"
    V2 = "30 24 0:26 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate"
    CPU = "32 24 0:28 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu"

    @pytest.mark.parametrize(
        ("cgroup", "mounts", "group"),
        [
            ("0::/user.slice/a.scope\n", [V2], "/sys/fs/cgroup/user.slice/a.scope"),
            ("0::/\n", [CPU, V2], "/sys/fs/cgroup"),
            ("4:memory:/a/b\n2:cpu:/\n0::/\n", [V2, CPU, V1], "/sys/fs/cgroup/memory/a/b"),
            ("4:cpu,memory:/a\n", [V1], "/sys/fs/cgroup/memory/a"),
            ("0::/pod/a/b\n", [V2.replace(" / ", " /pod/a ")], "/sys/fs/cgroup/b"),
        ],
    )
    def test_the_group_of_a_process_is_found_in_either_version(
        self, tmp_path: Path, cgroup: str, mounts: list[str], group: str
    ) -> None:
        proc = self.process(tmp_path, cgroup, *mounts)
        assert box.place(7, proc).group == Path(group)

    @pytest.mark.parametrize(
        ("cgroup", "mounts"),
        [
            ("4:memory:/a\n0::/\n", [V2, CPU]),
            ("0::/\n", []),
            ("0::/../outside\n", [V2]),
            ("0::/other\n", [V2.replace(" / ", " /pod ")]),
        ],
    )
    def test_a_group_that_is_not_seen_is_not_made_up(
        self, tmp_path: Path, cgroup: str, mounts: list[str]
    ) -> None:
        with pytest.raises(FileNotFoundError):
            box.place(7, self.process(tmp_path, cgroup, *mounts))

    @pytest.mark.parametrize("controllers", ["cpu io memory pids\n", "cpu io\n"])
    def test_a_folder_without_a_memory_controller_holds_no_box(
        self, tmp_path: Path, controllers: str
    ) -> None:
        (tmp_path / "cgroup.controllers").write_text(controllers)
        if "memory" in controllers:
            assert box.version(tmp_path) == 2
        else:
            with pytest.raises(FileNotFoundError, match="no memory controller"):
                box.version(tmp_path)

    @pytest.fixture(params=[1, 2])
    def parent(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        if request.param == 1:
            (tmp_path / "memory.limit_in_bytes").write_text("9223372036854771712\n")
        else:
            (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
            (tmp_path / "cgroup.subtree_control").write_text("cpu\n")
        return tmp_path

    @pytest.fixture
    def removed(self, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
        """The groups removed so far: a plain folder doesn't go while it holds files."""
        groups: list[Path] = []
        monkeypatch.setattr(box, "remove", groups.append)
        return groups

    def test_a_group_gets_the_limit_before_anything_runs_in_it(
        self, parent: Path, removed: list[Path]
    ) -> None:
        name = box.FILES[box.version(parent)].limit
        with box.made(parent) as group:
            assert (group / name).read_text() == str(512 * 2**20)
            assert not removed
        assert removed == [group]
        if box.version(parent) == 2:
            assert (parent / "cgroup.subtree_control").read_text() == "+memory"

    @pytest.mark.parametrize("ending", [RuntimeError, KeyboardInterrupt, SystemExit])
    def test_a_group_is_removed_however_the_benchmark_ends(
        self, parent: Path, removed: list[Path], ending: type[BaseException]
    ) -> None:
        with pytest.raises(ending), box.made(parent) as group:
            raise ending
        assert removed == [group]

    def test_a_group_whose_limit_cant_be_set_is_removed(
        self, parent: Path, removed: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Path, "write_text", self.refuse)
        if box.version(parent) == 2:
            (parent / "cgroup.subtree_control").write_bytes(b"memory\n")
        with pytest.raises(PermissionError), box.made(parent):
            pytest.fail("there is no box")
        assert len(removed) == 1

    @staticmethod
    def refuse(*_: object) -> None:
        raise PermissionError("not yours")

    def test_what_still_runs_in_a_group_ends_before_it_is_removed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        left = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        (tmp_path / "cgroup.procs").write_text(f"{left.pid}\n")

        def rmdir(_: Path) -> None:  # as the kernel's: a group in use stays
            if left.poll() is None:
                raise OSError("in use")

        monkeypatch.setattr(Path, "rmdir", rmdir)
        with left:
            box.remove(tmp_path, seconds=30)
            assert left.returncode == -9

    def test_a_group_that_stays_in_use_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "cgroup.procs").touch()
        with pytest.raises(OSError, match="not empty"):
            box.remove(tmp_path, seconds=0)

    def test_the_command_joins_before_it_starts_and_keeps_its_pid(self, tmp_path: Path) -> None:
        program = "import os, sys; print(os.getpid(), open(sys.argv[1]).read(), sys.argv[2])"
        command = [sys.executable, "-c", program, str(tmp_path / "cgroup.procs"), "a 'b' $c"]
        with subprocess.Popen(
            box.joining(tmp_path, command), stdout=subprocess.PIPE, text=True
        ) as process:
            output = process.communicate(timeout=30)[0]
        assert output.split() == [str(process.pid), str(process.pid), "a", "'b'", "$c"]

    def test_a_command_that_cant_join_does_not_run(self, tmp_path: Path) -> None:
        ran = tmp_path / "ran"
        command = box.joining(tmp_path / "missing", ["touch", str(ran)])
        assert subprocess.run(command, capture_output=True, check=False).returncode != 0
        assert not ran.exists()

    def test_a_box_without_the_limit_is_not_taken_for_one(
        self, parent: Path, removed: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(box, "LIMIT", box.LIMIT + 1)  # which no group here has
        found = box.find(parent)
        assert found.how == "none"
        assert "has the limit" in found.reason
        assert len(removed) == 1

    def test_no_group_is_made_below_the_group_of_another_program(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = tmp_path / "other"
        other.mkdir()
        monkeypatch.setattr(box, "SYSTEMD", tmp_path / "missing")
        monkeypatch.setattr(box, "place", lambda: box.Place(tmp_path, other))
        found = box.find()
        assert str(found) == (
            f"one core by taskset; memory is not limited: {other} is the group of another "
            "program; --cgroup names one below which groups may be made"
        )
        assert not list(other.iterdir())

    def test_where_systemd_cant_be_asked_the_reason_is_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake = tmp_path / "systemd-run"
        fake.write_text("#!/bin/sh\nprintf 'Failed to start:\\nno bus.\\n' >&2\nexit 1\n")
        fake.chmod(0o755)
        monkeypatch.setattr(box, "SYSTEMD", tmp_path)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        assert box.find() == Box("none", reason="systemd scope: Failed to start: no bus.")

    def test_what_still_runs_in_a_scope_ends_however_the_benchmark_does(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told = tmp_path / "told"
        fake = tmp_path / "systemctl"
        fake.write_text(f'#!/bin/sh\necho "$@" >{told}\nexit 1\n')
        fake.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        with pytest.raises(KeyboardInterrupt), box.scoped(["a", "b c"]) as command:
            raise KeyboardInterrupt
        assert command[-3:] == ["--", "a", "b c"]
        assert f"MemoryMax={512 * 2**20}" in command
        (unit,) = (option[7:] for option in command if option.startswith("--unit="))
        assert "kill --signal=KILL" in told.read_text()
        assert told.read_text().split()[-1] == unit

    def test_without_a_box_a_command_is_left_as_it_is(self) -> None:
        with box.unlimited("no").around(["a", "b"]) as command:
            assert command == ["a", "b"]

    def test_the_results_say_which_box_it_was(self, tmp_path: Path) -> None:
        boxes = [
            (Box("cgroup v1", tmp_path), "one core by taskset, 512 MB by cgroup v1", 512 * 2**20),
            (Box("none", reason="x"), "one core by taskset; memory is not limited: x", None),
            (Box("not ours", reason="as it is"), "as it is", None),
        ]
        for each, text, limit in boxes:
            assert str(each) == text
            assert each.as_json()["limit bytes"] == limit
            assert each.as_json()["memory"] == each.how


class TestCrowd:
    def test_all_who_are_answered_say_how_long_it_took_and_the_others_nothing(self) -> None:
        answer = b'HTTP/1.1 %d X\r\nContent-Length: 14\r\n\r\n{"current": 0}'

        def serve(listener: socket.socket) -> None:
            for number in range(9):
                client, _ = listener.accept()
                with client:
                    assert client.recv(4096) == crowd.REQUEST
                    if number % 3 < 2:  # of three, one is served, one sent away, one cut off
                        client.sendall(answer % (200, 503)[number % 3])

        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(30)
            serving = threading.Thread(target=serve, args=(listener,), daemon=True)
            serving.start()
            times = list(crowd.arrive(listener.getsockname()[1], 9))
            serving.join(30)
        assert len(times) == 3
        assert times == sorted(times)

    def test_who_is_never_answered_is_not_waited_for_for_ever(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            assert list(crowd.arrive(listener.getsockname()[1], 2, patience=0.05)) == []


class TestCommand:
    def test_a_url_is_for_locust_alone(self, capsys: pytest.CaptureFixture[str]) -> None:
        options = arguments(["--only", "locust", "--url", "http://127.0.0.1:8080/"])
        assert options.url == "http://127.0.0.1:8080"
        for given in ([], ["--only", "memory"], ["--only", "locust", "memory"]):
            with pytest.raises(SystemExit):
                arguments([*given, "--url", "http://127.0.0.1:8080"])
            assert "--url is for --only locust" in capsys.readouterr().err

    def test_no_load_is_started_where_nothing_answers(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        with pytest.raises(ConnectionError, match="no load was started"):
            appliance.check_url(f"http://127.0.0.1:{port}")
