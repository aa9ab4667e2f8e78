"""Each deadline once, from outside: of a request, an answer, an idle connection, and a stop."""

import signal
import socket
import time
from pathlib import Path
from typing import Final

import pytest

from tests.support.limits import is_closed, limited, read_answer
from tests.support.raw_clients import locked, read_all, statuses
from tests.support.waiting import until
from tests.support.wire import HALF, READ, STEP

pytestmark = pytest.mark.processes

LONG: Final = 5_000_000
"""The index of a number of 1 MB."""

BODY: Final = b"POST /next HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1234"
CHUNK: Final = b"POST /next HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n"

SLACK: Final = 2.5
"""Seconds by which a close may be late on a busy machine; the server looks twice a second."""

IDLE_SECONDS: Final = 5.0


def closed_after(*connections: socket.socket, begun: float) -> list[float]:
    """The time after which each is closed, having got nothing more."""
    found: dict[int, float] = {}

    def all_are_closed() -> bool:
        for number, each in enumerate(connections):
            if number not in found and is_closed(each):
                found[number] = time.monotonic() - begun
        return len(found) == len(connections)

    until(all_are_closed, lambda: f"all are closed, of {len(connections)} only {sorted(found)}")
    return [found[number] for number in range(len(connections))]


def test_an_incomplete_request_is_closed_at_its_deadline(tmp_path: Path) -> None:
    with limited(tmp_path, RECEIVE_TIMEOUT="2") as served:
        kept = served.asked()
        begun = time.monotonic()
        late = [served.connect(said) for said in (b"", HALF, STEP[:1], BODY, CHUNK)]
        for seconds in closed_after(*late, begun=begun):
            assert 1.4 < seconds < 2 + SLACK
        assert served.client.index == 0
        assert not is_closed(kept)


def test_more_bytes_do_not_extend_the_deadline_of_a_request(tmp_path: Path) -> None:
    with limited(tmp_path, RECEIVE_TIMEOUT="2") as served:
        begun = time.monotonic()
        head, body = served.connect(HALF), served.connect(BODY.replace(b"9", b"999"))

        def both_are_closed() -> bool:
            for each, more in ((head, b"a: b\r\n"), (body, b".")):
                try:
                    each.sendall(more)
                except ConnectionError:
                    continue
            time.sleep(0.1)  # slowly
            return is_closed(head) and is_closed(body)

        until(both_are_closed, "they are closed")
        assert 1.4 < time.monotonic() - begun < 2 + SLACK
        assert served.client.index == 0


def test_an_idle_connection_is_closed_and_one_in_use_is_not(tmp_path: Path) -> None:
    with limited(tmp_path, RECEIVE_TIMEOUT="2") as served:
        begun = time.monotonic()
        idle, used = served.asked(), served.asked()
        while not is_closed(idle):
            used.sendall(STEP)
            assert read_answer(used)[0] == 200
            time.sleep(0.2)  # a client that asks now and then
        assert IDLE_SECONDS - 0.1 < time.monotonic() - begun < IDLE_SECONDS + 0.5 + SLACK
        assert not is_closed(used)


def test_a_step_that_waits_has_no_deadline(tmp_path: Path) -> None:
    with limited(tmp_path, RECEIVE_TIMEOUT="0.5", SEND_TIMEOUT="0.5") as served:
        with locked(tmp_path / "fibcore.db"):
            waiting, half = served.connect(STEP), served.connect(HALF)
            begun = time.monotonic()
            assert closed_after(half, begun=begun)[0] < 0.5 + SLACK
            assert not is_closed(waiting)
        assert read_answer(waiting)[0] == 200


def test_a_client_that_reads_nothing_of_its_answer_is_closed(tmp_path: Path) -> None:
    """A client that reads some of it gets more time."""
    with limited(tmp_path, index=LONG, SEND_TIMEOUT="6") as served:
        begun = time.monotonic()
        asked = READ * 9 + READ[:-2] + b"Connection: close\r\n\r\n"
        none, some = (served.connect(asked, room=room) for room in (4096, 100_000))
        served.settle()
        read = 0
        while served.held > 1:
            read += len(some.recv(40_000))
            time.sleep(0.1)  # slowly
        assert 5.4 < time.monotonic() - begun < 6 + SLACK
        assert read + len(read_all(some)) > 10_000_000
        assert len(read_all(none)) < 5_000_000


def test_pauses_of_the_server_do_not_count_against_clients(tmp_path: Path) -> None:
    """A server is paused (with its machine, or by Ctrl-Z) while its clients continue."""
    timeouts = {"RECEIVE_TIMEOUT": "6", "SEND_TIMEOUT": "6"}
    with limited(tmp_path, index=LONG, **timeouts) as served:
        half, silent, reader = (
            served.connect(HALF.replace(b"next", b"health")),
            served.connect(),
            served.connect(READ * 4, room=4096),
        )
        served.settle()
        served.process.signal(signal.SIGSTOP)
        begun = time.monotonic()
        until(lambda: time.monotonic() - begun > 8, "both deadlines have passed")
        # It runs its timers before it reads what has arrived.
        half.sendall(b"\r\n")
        silent.sendall(READ.replace(b"current", b"health"))
        served.process.signal(signal.SIGCONT)
        assert read_answer(half)[0] == 200
        assert read_answer(silent)[0] == 200
        assert [read_answer(reader)[0] for _ in range(4)] == [200] * 4


def test_after_a_400_the_server_keeps_reading_for_a_second(tmp_path: Path) -> None:
    """Else a reset could take the answer away from a client that still sends."""
    with limited(tmp_path) as served:
        begun = time.monotonic()
        client = served.connect(b"rubbish\r\n\r\n")
        client.sendall(b"more")
        assert read_answer(client)[0] == 400
        assert served.held == 1
        until(lambda: served.held == 0, "it is closed")
        assert 0.4 < time.monotonic() - begun < 1 + SLACK


# A stop


def test_a_stop_closes_what_waits_and_finishes_answers(tmp_path: Path) -> None:
    """Steps under way are answered, none that is pipelined behind them is made."""
    with limited(tmp_path, index=LONG, STOP_TIMEOUT="4", SEND_TIMEOUT="60") as served:
        waits = [served.asked(), *(served.connect(said) for said in (b"", HALF, BODY, CHUNK))]
        quick, none = (served.connect(READ * 10, room=4096) for _ in range(2))
        assert quick.recv(1)
        with locked(tmp_path / "fibcore.db"):
            pipelined, half_closed = served.connect(STEP + STEP), served.connect(STEP + STEP)
            half_closed.shutdown(socket.SHUT_WR)
            served.settle()
            begun = time.monotonic()
            served.process.signal(signal.SIGTERM)
            assert max(closed_after(*waits, begun=begun)) < SLACK
        received = [read_all(each) for each in (pipelined, half_closed)]
        assert [statuses(each) for each in received] == [[200]] * 2
        assert all(b"connection: close\r\n" in each for each in received)
        # The first answer, which was being sent.
        assert 1_000_000 < len(read_all(quick)) < 1_100_000
        assert served.process.wait() == 0
        assert time.monotonic() - begun < 4 + SLACK
        assert len(read_all(none)) < 1_000_000
    with limited(tmp_path) as served:
        assert served.client.index == LONG + 2


def test_a_stop_answers_the_steps_that_wait_for_their_503(tmp_path: Path) -> None:
    with limited(tmp_path, MAX_WAITING_STEPS="1", STOP_TIMEOUT="10") as served:
        with locked(tmp_path / "fibcore.db"):
            steps = [served.connect(STEP) for _ in range(300)]
            served.settle()
            served.process.signal(signal.SIGTERM)
            assert [statuses(read_all(step)) for step in steps[1:]] == [[503]] * 299
        assert statuses(read_all(steps[0])) == [200]
        assert served.process.wait() == 0


def test_a_stop_leaves_time_to_answer_clients_whose_number_is_not_ready(tmp_path: Path) -> None:
    """The last half of the time is for the answers."""
    with limited(tmp_path, MAX_INDEX="200000000", STOP_TIMEOUT="2") as served:
        request = b"GET /numbers/%d HTTP/1.1\r\nHost: x\r\n\r\n"
        clients = [served.connect(request % (10_000_000 - each // 2)) for each in range(12)]
        served.until("waiting_numbers", 6)
        served.process.signal(signal.SIGTERM)
        answers = [read_answer(each) for each in clients]
        assert {status for status, _, _ in answers} <= {200, 503}
        shed = [body for status, _, body in answers if status == 503]
        assert shed
        assert all(b"the server is stopping" in body for body in shed)
        assert served.process.wait() == 0
