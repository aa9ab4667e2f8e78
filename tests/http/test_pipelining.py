"""Requests that are sent before the answers to those before them: in order, and in bounds."""

from pathlib import Path
from typing import Final

import pytest

from tests.http.corpus import READ, STEP, request
from tests.support.limits import limited, read_answer
from tests.support.raw_clients import locked, statuses

pytestmark = pytest.mark.processes

LONG: Final = 1_000_000
"""The index of a number of 209 kB."""


def test_answers_are_in_order_however_long_each_takes(tmp_path: Path) -> None:
    """A page, a number that is computed, and a step that waits for the disk, before reads."""
    with limited(tmp_path) as served:
        with locked(tmp_path / "fibcore.db"):
            client = served.connect(
                request("GET /numbers/2000000") + STEP + request("GET /") + READ + STEP + READ
            )
            served.settle()
        number, first, page, *others = (read_answer(client)[2] for _ in range(6))
        assert number.startswith(b'{"number": 8531')
        assert page.startswith(b"<!doctype html>")
        assert [first, *others] == [
            *(b'{"next": 1}', b'{"current": 1}'),
            *(b'{"next": 1}', b'{"current": 1}'),
        ]


def test_answers_that_were_read_do_not_count_while_a_client_pipelines(tmp_path: Path) -> None:
    with limited(tmp_path, index=LONG, MAX_ANSWER_BYTES="2500000") as served:
        client = served.connect()
        for _ in range(10):
            client.sendall(STEP * 8)
            assert [read_answer(client)[0] for _ in range(8)] == [200] * 8
        assert served.client.index == LONG + 80


def test_endless_pipelined_steps_do_not_fill_memory(tmp_path: Path) -> None:
    with limited(tmp_path, INTEGERS="uint64") as served:
        client = served.connect()

        def memory_after(rounds: int) -> int:
            for _ in range(rounds):
                client.sendall(STEP * 100)
                received = b""
                while len(statuses(received)) < 100 or received[-1:] != b"}":
                    received += client.recv(65536)
            return int(served.status()["memory_bytes"])

        before = memory_after(20)
        # A server that kept 500 bytes of each step would have 2 MB more.
        assert memory_after(40) - before < 2**20
