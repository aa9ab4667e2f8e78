"""Each bound once, from outside: who is evicted, and what is answered 503 before anything steps."""

import resource
import select
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from tests.support.limits import (
    Served,
    is_closed,
    limited,
    newcomers_are_idle,
    read_answer,
    until_closed,
)
from tests.support.raw_clients import locked, read_all, statuses
from tests.support.waiting import PATIENCE, until
from tests.support.wire import HALF, HOST, READ, STEP

pytestmark = pytest.mark.processes

LONG: Final = 5_000_000
"""The index of a number of 1 MB."""

TICK_SECONDS: Final = 0.6

MEGABYTES: Final = 4
"""So many such answers exceed the kernel's buffers for a client that does not read."""

HEALTH: Final = READ.replace(b"current", b"health")
BYE: Final = HALF + b"Connection: close\r\n\r\n"


def names(head: bytes) -> list[bytes]:
    return head.lower().split(b"\r\n")


# Connections


def test_the_longest_idle_connection_is_evicted(tmp_path: Path) -> None:
    with limited(tmp_path, MAX_CONNECTIONS="3") as served:
        first, second, third = (served.asked() for _ in range(3))
        # The clock of idle connections has ticks of half a second.
        newcomers_are_idle(TICK_SECONDS)
        first.sendall(READ)
        assert read_answer(first)[0] == 200
        newcomers_are_idle()
        newcomer = served.asked()
        until_closed(second)
        assert not any(map(is_closed, (first, third, newcomer)))
        newcomers_are_idle()
        served.asked()
        until_closed(third)
        assert not any(map(is_closed, (first, newcomer)))
        assert served.process.process.poll() is None


def test_a_connection_used_since_is_not_the_next_to_be_evicted(tmp_path: Path) -> None:
    with limited(tmp_path, MAX_CONNECTIONS="3") as served:
        first, second, third = (served.asked() for _ in range(3))
        newcomers_are_idle()
        # Whoever ranks the connections for this newcomer ranks the second next.
        served.connect(HALF)
        until_closed(first)
        second.sendall(READ)
        assert read_answer(second)[0] == 200
        served.connect(HALF)
        until_closed(third)
        assert not is_closed(second)


def test_a_silent_connection_is_idle_since_it_was_opened(tmp_path: Path) -> None:
    with limited(tmp_path, MAX_CONNECTIONS="2") as served:
        silent = served.connect()
        served.settle()
        asked = served.asked()
        newcomers_are_idle()
        newcomer = served.asked()
        until_closed(silent)
        assert not any(map(is_closed, (asked, newcomer)))


def test_idle_connections_are_evicted_before_half_requests(tmp_path: Path) -> None:
    with limited(tmp_path, MAX_CONNECTIONS="2") as served:
        half = served.connect(HALF)
        served.settle()
        idle = served.asked()
        newcomers_are_idle()
        another = served.connect(HALF)
        until_closed(idle)
        assert not is_closed(half)
        served.connect(READ)
        until_closed(half)
        another.sendall(b"\r\n")
        assert read_answer(another)[0] == 200


def test_a_connection_being_answered_is_not_evicted(tmp_path: Path) -> None:
    with limited(tmp_path, MAX_CONNECTIONS="2") as served:
        with locked(tmp_path / "fibcore.db"):
            waiting = [served.connect(STEP) for _ in range(2)]
            served.settle()
            newcomers_are_idle()
            status, head, body = read_answer(served.connect(READ))
            assert status == 503
            assert {b"retry-after: 1", b"connection: close"} <= set(names(head))
            assert b"content-type: application/problem+json" in names(head)
            assert b"at its limit of connections" in body
        assert [read_answer(each)[2] for each in waiting] == [b'{"next": 1}'] * 2
        seen = served.status()
        assert seen["shed_requests"]["connections"] == 1
        assert seen["index"] == "2"


def test_connections_that_end_make_room_for_others(tmp_path: Path) -> None:
    with limited(tmp_path, MAX_CONNECTIONS="4") as served:
        with locked(tmp_path / "fibcore.db"):
            waiting = [served.connect(STEP) for _ in range(3)]
            served.settle()
            for _ in range(20):
                assert read_answer(served.connect(BYE.replace(b"next", b"current")))[0] == 200
        assert [read_answer(each)[0] for each in waiting] == [200] * 3
        for each in waiting:
            each.close()
        # The one that asks for it.
        served.until("connections", 1)
        assert served.status()["shed_requests"]["connections"] == 0


def test_each_client_without_a_slot_gets_a_503_whatever_it_sends(tmp_path: Path) -> None:
    head = b"POST /next HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n"
    found: Counter[int] = Counter()
    with (
        limited(tmp_path, MAX_CONNECTIONS="1") as served,
        locked(tmp_path / "fibcore.db"),
    ):
        served.connect(STEP)
        served.settle()
        for _ in range(100):
            with served.client.raw() as newcomer:
                newcomer.sendall(head)
                select.select([newcomer], [], [], PATIENCE)
                # It reads no answer before it has sent its request.
                with suppress(ConnectionError):
                    newcomer.sendall(bytes(2500))
                    newcomer.sendall(bytes(2500))
                found[read_answer(newcomer)[0]] += 1
    assert found == {503: 100}


def test_rejected_connections_that_linger_are_bounded(tmp_path: Path) -> None:
    """At most 128 are kept for a second, so that their 503 is not lost."""
    with (
        limited(tmp_path, MAX_CONNECTIONS="1") as served,
        locked(tmp_path / "fibcore.db"),
    ):
        served.connect(STEP)
        served.settle()
        turned_away = [served.connect() for _ in range(300)]
        assert read_answer(turned_away[-1])[0] == 503
        assert served.held < 150, "of 300; some are just being closed"
        until(lambda: served.held <= 1, "they linger for a second")


def read_on(reader: socket.socket, stopping: threading.Event) -> None:
    """Read a megabyte a second."""
    while not stopping.wait(0.05):
        assert reader.recv(50_000)


def test_a_slow_reader_is_evicted_and_a_quick_one_is_not(tmp_path: Path) -> None:
    """A slow one takes less than 64 kB a second of its answer while others need its place."""
    many = READ * MEGABYTES
    with limited(tmp_path, index=LONG, MAX_CONNECTIONS="2", SEND_TIMEOUT="600") as served:
        quick, slow = (served.connect(many, room=4096) for _ in range(2))
        assert slow.recv(1)
        stopping = threading.Event()
        reading = threading.Thread(target=read_on, args=(quick, stopping))
        reading.start()
        try:
            newcomers_are_idle()
            newcomers_are_idle()
            assert read_answer(served.connect(HEALTH))[0] == 200
            assert read_answer(served.connect(HEALTH))[0] == 200
        finally:
            stopping.set()
            reading.join()
        assert len(read_all(slow)) < 2_000_000
        assert len(read_all(quick)) > 2_000_000


def test_steps_continue_without_free_descriptors(tmp_path: Path) -> None:
    """New connections are closed; a commit needs no descriptor."""
    with limited(tmp_path) as served:
        kept = served.connect(STEP)
        assert read_answer(kept)[0] == 200
        pid = served.process.pid
        used = max(int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir())
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 11, hard))
        crowd = [served.connect() for _ in range(100)]
        for each in crowd:
            with suppress(ConnectionError):
                each.sendall(STEP)
        found = Counter(read_answer(each)[0] for each in crowd)
        assert set(found) == {0, 200}
        assert found[200] < 50
        for _ in range(50):
            kept.sendall(STEP)
            assert read_answer(kept)[0] == 200
        for each in crowd:
            each.close()
        until(lambda: served.held <= 1, "they have left")
        assert served.client.index == 1 + found[200] + 50


# Waiting steps


def test_past_the_bound_on_waiting_steps_a_step_is_503_and_a_read_is_200(tmp_path: Path) -> None:
    with limited(tmp_path, MAX_WAITING_STEPS="2") as served:
        with locked(tmp_path / "fibcore.db"):
            waiting = [served.connect(STEP) for _ in range(2)]
            served.settle()
            for step in (STEP, BYE):
                status, head, body = read_answer(served.connect(step))
                assert (status, b"retry-after: 1" in names(head)) == (503, True)
                assert b"2 steps already wait for the disk" in body
            assert read_answer(served.connect(READ))[2] == b'{"current": 0}'
        assert [read_answer(each)[0] for each in waiting] == [200, 200]
        assert (served.client.index, served.status()["shed_requests"]["waiting"]) == (2, 2)
        assert served.client.get("/next").body == b'{"next": 2}'


def test_a_crowd_gets_its_503_at_a_thousand_a_second(tmp_path: Path) -> None:
    """Else those that ask again at once would leave no time for steps."""
    with limited(tmp_path, MAX_WAITING_STEPS="1") as served, locked(tmp_path / "fibcore.db"):
        steps = [served.connect() for _ in range(500)]
        waiting = served.connect(STEP)
        served.settle()
        begun = time.monotonic()
        for step in steps:
            step.sendall(STEP)
        assert [read_answer(step)[0] for step in steps] == [503] * 500
        assert time.monotonic() - begun > 0.3
        assert not is_closed(waiting)


# Bytes of answers in flight


def test_past_the_bound_on_bytes_in_flight_a_new_number_is_503(tmp_path: Path) -> None:
    """A number that an answer in flight already holds is sent."""
    bound = str(2_500_000)
    with limited(tmp_path, index=LONG, MAX_ANSWER_BYTES=bound, SEND_TIMEOUT="600") as served:
        first = served.connect(READ * 2, room=4096)
        assert first.recv(1)
        assert served.client.get("/next").status == 200
        second = served.connect(READ * 2, room=4096)
        assert second.recv(1)
        status, head, body = read_answer(served.connect(STEP))
        assert (status, b"retry-after: 1" in names(head)) == (503, True)
        assert b"use all the memory" in body
        for path in ("/current", "/previous"):
            assert served.client.get(path).status == 200
        assert served.client.index == LONG + 1
        # What was read no longer counts, though its connection stays open.
        for _ in range(2):
            read_answer(first)
        until(lambda: served.client.get("/next").status == 200, "there is room for a step")
        assert not is_closed(first)


def test_a_number_that_never_fits_is_503_before_a_step(tmp_path: Path) -> None:
    with limited(tmp_path, index=LONG + 100_000, MAX_ANSWER_BYTES=str(2**20)) as served:
        new = served.client.get("/next")
        assert (new.status, new.headers["retry-after"]) == (503, None)
        assert b"This request has not stepped. Retrying does not help" in new.body
        assert served.status()["index"] == str(LONG + 100_000)


def test_a_number_for_a_client_that_left_is_not_in_flight(tmp_path: Path) -> None:
    with limited(tmp_path, index=LONG) as served:
        with locked(tmp_path / "fibcore.db"):
            gone = [served.connect(step) for step in (STEP, BYE)]
            served.settle()
            for each in gone:
                # A reset: after a plain close, a client may still wait for its answer.
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.close()
            until(lambda: served.held == 0, "the server knows that they have left")
        served.until("index", str(LONG + 2))
        assert served.status()["in_flight_bytes"] == 0


# Incomplete and pipelined requests


def test_past_the_bound_on_parts_the_oldest_are_evicted(tmp_path: Path) -> None:
    """At 4 MB of incomplete requests; one that arrives at once is never evicted."""
    size = 65_536
    half = b"POST / HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n" % (HOST, size) + bytes(size - 1)
    with limited(tmp_path, RECEIVE_TIMEOUT="60") as served:
        halves = []
        for _ in range(10):
            halves += [served.connect(half) for _ in range(10)]
            served.settle()
        # Those past 4 MB, of 64 kB each; the oldest.
        until(lambda: sum(map(is_closed, halves)) >= 30, "they are evicted")
        assert not any(map(is_closed, halves[50:]))
        assert served.client.get("/next").status == 200
        for each in halves[50:]:
            each.sendall(b".")
            assert read_answer(each)[0] == 405
        # The completed ones no longer count.
        again = [served.connect(half) for _ in range(50)]
        served.settle()
        assert not any(map(is_closed, again))


def test_past_the_bound_on_pipelined_bytes_only_the_first_is_answered(tmp_path: Path) -> None:
    """A short request is kept whatever the crowd has sent, for at most 2 kB a connection."""
    padded = READ[:-2] + b"X: " + b"x" * 7000 + b"\r\n\r\n"
    with limited(tmp_path) as served:
        with locked(tmp_path / "fibcore.db"):
            crowd = [served.connect(STEP) for _ in range(400)]
            served.settle()
            for each in crowd:
                each.sendall(padded * 2)
            served.settle()
            modest = served.connect(STEP)
            served.settle()
            modest.sendall(READ)
            served.settle()
        assert [read_answer(modest)[0] for _ in range(2)] == [200, 200]
        counts: Counter[int] = Counter()
        for each in crowd:
            with suppress(TimeoutError):
                each.settimeout(0.2)
                received = b""
                while len(statuses(received)) < 3 and (data := each.recv(65536)):
                    received += data
            counts[len(statuses(received))] += 1
        assert set(counts) == {1, 3}
        # 4 MB of 14 kB each.
        assert 200 < counts[3] < 320
        assert served.client.index == 401


def test_with_several_bounds_reached_others_are_still_answered(tmp_path: Path) -> None:
    """When the clients have left, nothing of them is kept."""
    settings = {"MAX_CONNECTIONS": "12", "MAX_WAITING_STEPS": "2", "MAX_ANSWER_BYTES": "2500000"}
    with limited(tmp_path, index=LONG, **settings) as served:
        with locked(tmp_path / "fibcore.db"):
            crowd = [served.connect(STEP) for _ in range(3)]
            crowd += [served.connect(READ * 2, room=4096) for _ in range(3)]
            crowd += [served.connect(HALF) for _ in range(3)]
            crowd += [served.connect() for _ in range(3)]
            served.settle()
            newcomers_are_idle()
            for _ in range(10):
                assert read_answer(served.connect(HEALTH))[0] == 200
        for each in crowd:
            each.close()
        settles(served)
        assert served.client.get("/next").status == 200


def settles(served: Served) -> None:
    """Wait until the server holds nothing."""
    served.until("in_flight_bytes", 0)
    served.until("waiting_steps", 0)
