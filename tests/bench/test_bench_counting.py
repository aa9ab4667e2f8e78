"""The variants of the server that show the cost of counting, and of logging."""

import json
from pathlib import Path

import pytest

from bench import machine, servers
from bench.peers import uncounted
from bench.servers import Server
from fibcore.stepper import Stepper


def counts(server: Server) -> list[int]:
    """The index, and the server's counts of steps, reads and commits."""
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


def test_a_line_of_code_that_no_longer_counts_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uncounted, "COUNTING", {(Stepper, "_answer"): ["self.counted += 1"]})
    with pytest.raises(ValueError, match=r"Stepper\._answer has no line"):
        uncounted.take_out()
