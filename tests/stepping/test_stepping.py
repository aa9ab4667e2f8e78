"""Steps that wait at the same moment, over HTTP: what shares a commit, and what each is answered.

tests/simulation shows that no step is lost or made twice, whatever fails; tests/http/test_bounds.py
what is answered past a bound.
"""

import json
import re
import select
import socket
from collections import Counter
from typing import Final

import pytest

from tests.stepping.conftest import Node, Start
from tests.support.limits import Served, read_answer
from tests.support.reference import digits_of
from tests.support.waiting import until
from tests.support.wire import HALF, READ, STEP

pytestmark = pytest.mark.processes

KEY: Final = b'"0:a-key-of-a-test-here"'


def step(*, at: int | None = None, key: bytes | None = None) -> bytes:
    """A step, if the sequence is at an index, with a key."""
    condition = b"" if at is None else b'If-Match: "%d"\r\n' % at
    return HALF + condition + (b"" if key is None else b"Idempotency-Key: %b\r\n" % key) + b"\r\n"


def send(served: Served, *requests: bytes) -> list[socket.socket]:
    """Send each on a connection of its own; return when the server has read all."""
    connections = [served.connect(each) for each in requests]
    served.settle()
    return connections


def answers(connections: list[socket.socket]) -> list[tuple[int, bytes]]:
    """The status and body of an answer on each."""
    return [(status, body) for status, _, body in map(read_answer, connections)]


def statuses(connections: list[socket.socket]) -> list[int]:
    return [status for status, _ in answers(connections)]


def made(index: int) -> tuple[int, bytes]:
    """The answer to the step that led to an index."""
    return 200, b'{"next": %b}' % digits_of(index)


def counted(served: Served, name: str) -> float:
    """A number of /metrics."""
    page = served.client.get("/metrics").body.decode()
    found = re.search(rf"(?m)^fibcore_{name}(?:{{.*}})? (\S+)$", page)
    assert found, name
    return float(found[1])


# What shares a commit


def test_a_step_is_not_answered_before_its_commit(start: Start) -> None:
    held = start()
    with held.commits():
        steps = send(held.served, STEP, STEP)
        assert select.select(steps, [], [], 0)[0] == []
    assert sorted(answers(steps)) == [made(1), made(2)]


def test_steps_that_arrive_during_a_commit_share_the_next(start: Start) -> None:
    held = start()
    with held.commits():
        first = send(held.served, STEP)
        others = send(held.served, *[STEP] * 20)
    assert answers(first) == [made(1)]
    assert Counter(answers(others)) == Counter(made(index) for index in range(2, 22))
    assert counted(held.served, "batch_steps_sum") == 21
    assert counted(held.served, "batch_steps_count") <= 2
    assert held.served.client.index == 21


def test_reads_of_a_file_show_committed_steps_alone(start: Start) -> None:
    held = start()
    with held.commits():
        steps = send(held.served, STEP)
        reads = send(held.served, READ)
        if not isinstance(held, Node):
            assert answers(reads) == [(200, b'{"current": 0}')]
    assert answers(steps) == [made(1)]
    if isinstance(held, Node):
        # It asks the engine, after the step.
        assert answers(reads) == [(200, b'{"current": 1}')]


def test_waiting_reads_share_a_query_of_the_engine(node: Node) -> None:
    def queries() -> int:
        found = re.findall(r"cmdstat_\w+:calls=(\d+)", node.redis.cli("info", "commandstats"))
        return sum(map(int, found))

    before = queries()
    with node.commits():
        reads = send(node.served, *[READ] * 100)
    assert answers(reads) == [(200, b'{"current": 0}')] * 100
    assert queries() - before < 50


# What each is answered


def test_of_steps_with_the_same_condition_one_is_made(start: Start) -> None:
    held = start()
    with held.commits():
        first = send(held.served, STEP)
        others = send(held.served, *[step(at=1)] * 3)
    assert answers(first) == [made(1)]
    found = answers(others)
    assert sorted(status for status, _ in found) == [200, 412, 412]
    assert made(2) in found
    assert held.served.client.index == 2


def test_a_failed_condition_does_not_keep_others_from_stepping(start: Start) -> None:
    held = start()
    with held.commits():
        steps = send(held.served, STEP, step(at=7), STEP, step(at=8), STEP)
    assert statuses(steps) == [200, 412, 200, 412, 200]
    assert held.served.client.index == 3


def test_waiting_steps_past_the_largest_index_are_not_made(start: Start) -> None:
    held = start(MAX_INDEX="2")
    with held.commits():
        steps = send(held.served, step(key=KEY))
        steps += send(held.served, *[STEP] * 3)
        unmet = send(held.served, step(at=7))
    assert sorted(statuses(steps)) == [200, 200, 409, 409]
    assert statuses(unmet) == [412]
    assert held.served.client.index == 2
    # A step that was made is still answered.
    assert answers(send(held.served, step(key=KEY))) == [made(1)]
    assert statuses(send(held.served, STEP, step(key=KEY.replace(b"a", b"b")))) == [409, 409]


def test_a_key_whose_step_is_under_way_makes_no_other(start: Start) -> None:
    held = start()
    with held.commits():
        first = send(held.served, step(key=KEY))
        again = send(held.served, *[step(key=KEY)] * 3)
    assert answers(first) == [made(1)]
    for status, body in answers(again):
        assert status == 200 or json.loads(body)["key"] == "outstanding"
    assert answers(send(held.served, step(key=KEY))) == [made(1)]
    assert held.served.client.index == 1


# An engine that does not reply


def test_while_a_reply_is_missing_only_its_own_steps_wait(node: Node) -> None:
    client = node.served.client
    with node.delayed("replies"):
        (waiting,) = send(node.served, STEP)
        until(lambda: client.get("/health").status == 503, "it is late")
        for target in ("/next", "/current", "/previous"):
            answer = client.get(target)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1"), target
            assert b"has not stepped" in answer.body
        assert select.select([waiting], [], [], 0)[0] == []
    assert answers([waiting]) == [made(1)]
    until(lambda: client.get("/health").status == 200, "it replies again")
    assert client.get("/next").index == 2


def test_a_key_that_met_an_absent_engine_is_not_under_way(node: Node) -> None:
    client = node.served.client
    node.proxy.cut()
    assert client.get("/next", {"Idempotency-Key": KEY.decode()}).status == 503
    node.proxy.heal()
    until(lambda: client.get("/health").status == 200, "it replies again")
    assert [client.get("/next", {"Idempotency-Key": KEY.decode()}).index for _ in "ab"] == [1, 1]
    assert client.get("/next").index == 2


def test_each_new_problem_and_its_end_are_logged_once(node: Node) -> None:
    client = node.served.client
    node.proxy.cut()
    until(lambda: client.get("/health").status == 503, "it is away")
    for _ in range(20):
        assert client.get("/next").status == 503
    node.proxy.heal()
    until(lambda: client.get("/health").status == 200, "it replies again")
    log = node.served.process.log
    log.expect("replies again, at index 0")
    assert log.text.count("is unavailable") == 1
