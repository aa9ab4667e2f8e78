"""``/numbers/{index}``: exact at any index, both ways, and worked out where it disturbs nobody."""

import asyncio
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fibcore import calculator, lookup
from fibcore.admission import Admission, OverloadedError
from fibcore.figures import outline
from fibcore.lookup import MAX_KEPT, MAX_QUEUED, SHORT, WORKING_MEMORY, Lookup, most_digits
from tests.support.held import turns_of_the_loop
from tests.support.reference import digits_of, fibonacci_modulo
from tests.support.servers import Client, ServerProcess, listening_socket
from tests.support.waiting import PATIENCE, in_a_loop, until
from tests.support.ways import WAYS, assert_number, assert_problem, serving

LARGEST: Final = 300_000


@pytest.fixture(scope="module", params=WAYS)
def client(
    processes: None,  # noqa: ARG001
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("lookup")
    with serving(folder, 7, request.param, FIB_MAX_INDEX=str(LARGEST)) as client:
        yield client


# The answers


@pytest.mark.parametrize(
    "index", [0, 1, 2, 6, 7, 8, 93, 94, 20_578, SHORT, SHORT + 1, 30_000, LARGEST]
)
def test_the_number_at_an_index_is_exact_and_the_sequence_stays(client: Client, index: int) -> None:
    answer = client.get(f"/numbers/{index}")
    assert_number(answer, "number", digits_of(index))
    assert answer.index == index
    text = client.get(f"/numbers/{index}", {"Accept": "text/plain"})
    assert text.body == digits_of(index)
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert text.headers["etag"] == f'"{index}-text"'
    assert client.index == 7


def test_it_may_be_kept_for_ever_and_depends_on_accept(client: Client) -> None:
    for path in ("/numbers/7", f"/numbers/{LARGEST}"):
        answer = client.get(path)
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["vary"] == "accept"


@pytest.mark.parametrize("accept", ["application/json", "text/plain"])
@pytest.mark.parametrize("index", [7, SHORT + 1, LARGEST])
def test_who_has_it_is_not_sent_it_again(client: Client, index: int, accept: str) -> None:
    etag = client.get(f"/numbers/{index}", {"Accept": accept}).headers["etag"]
    answer = client.get(f"/numbers/{index}", {"Accept": accept, "If-None-Match": etag})
    assert answer.status == 304
    assert answer.headers["etag"] == etag
    assert client.get(f"/numbers/{index}", {"If-None-Match": '"8"'}).status == 200
    assert client.get(f"/numbers/{index}", {"If-Match": etag}).status == 200
    refused = client.get(f"/numbers/{index}", {"If-Match": '"8"'})
    assert_problem(refused, 412, "If-Match does not name this number")


@pytest.mark.parametrize("accept", ["application/json", "text/plain"])
@pytest.mark.parametrize("index", [0, 7, 1_000, 1_001, 20_578, LARGEST - 1])
def test_head_says_how_long_it_is_without_working_it_out(
    client: Client, index: int, accept: str
) -> None:
    head = client.request("HEAD", f"/numbers/{index}", {"Accept": accept})
    assert head.body == b""
    got = client.get(f"/numbers/{index}", {"Accept": accept})
    assert head.headers["content-length"] == str(len(got.body))
    assert head.headers["etag"] == got.headers["etag"]


@pytest.mark.parametrize(
    "index", ["x", "-1", "+1", "01", "00", "1.0", "1e3", " 1", "%20", "٣", "0x1"]
)
def test_what_is_no_index_is_400(client: Client, index: str) -> None:
    answer = client.get(f"/numbers/{index.replace(' ', '%20').replace('٣', '%D9%A3')}")
    assert_problem(answer, 400, "a whole number from 0 on")
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("index", [f"{LARGEST + 1}", f"{2**63}", "9" * 19, "9" * 5_000])
def test_past_the_largest_index_it_is_404(client: Client, index: str) -> None:
    answer = client.get(f"/numbers/{index}")
    assert_problem(answer, 404, f"The largest index here is {LARGEST} (FIB_MAX_INDEX)")


@pytest.mark.parametrize("path", ["/numbers", "/numbers/", "/numbers/7/", "/numbers/7/8"])
def test_there_is_nothing_beside_it(client: Client, path: str) -> None:
    assert client.get(path).status == 404


def test_the_same_index_written_otherwise_is_the_same(client: Client) -> None:
    assert client.get("/numbers/%37?x").body == b'{"number": 13}'


@pytest.mark.processes
@pytest.mark.parametrize("way", WAYS)
def test_with_uint64_it_is_modulo_2_to_the_64_at_any_index(tmp_path: Path, way: str) -> None:
    with serving(tmp_path, 7, way, FIB_INTEGERS="uint64") as client:
        for index in (93, 94, 10**18, 2**63 - 1):
            answer = client.get(f"/numbers/{index}")
            assert_number(answer, "number", b"%d" % fibonacci_modulo(index))
        assert answer.headers["etag"] == f'"{2**63 - 1}-uint64"'
        assert client.request("HEAD", "/numbers/94").headers["content-length"] == str(
            len(client.get("/numbers/94").body)
        )


@pytest.mark.processes
@pytest.mark.parametrize("way", WAYS)
def test_a_number_that_takes_more_than_all_memory_is_503(tmp_path: Path, way: str) -> None:
    settings = {"FIB_MAX_IN_FLIGHT": str(2**20), "FIB_MAX_INDEX": "10000000"}
    with serving(tmp_path, 7, way, **settings) as client:
        answer = client.get("/numbers/10000000")
        assert_problem(answer, 503, "FIB_MAX_IN_FLIGHT is 1048576")
        assert answer.headers["retry-after"] == "1"
        assert client.request("HEAD", "/numbers/10000000").status == 200
        shed = json.loads(client.get("/status").body)["shed"]
        assert shed["in_flight"] == 1


# The process that works them out


def calculators(server: int) -> list[int]:
    """The processes that a server has started."""
    children = Path(f"/proc/{server}/task/{server}/children").read_text()
    return [int(each) for each in children.split()]


@pytest.fixture(params=WAYS)
def served(
    processes: None,  # noqa: ARG001
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> Iterator[ServerProcess]:
    command = (sys.executable, "-m", WAYS[request.param])
    database = tmp_path / "fibcore.db"
    with (
        listening_socket() as listener,
        ServerProcess(database, listener, command=command) as server,
    ):
        yield server.wait_until_it_serves()


def test_it_is_started_for_the_first_long_number_and_gives_way_to_all(
    served: ServerProcess,
) -> None:
    served.client.get(f"/numbers/{SHORT}")
    assert calculators(served.pid) == []
    served.client.get(f"/numbers/{SHORT + 1}")
    (calculator,) = calculators(served.pid)
    assert os.sched_getscheduler(calculator) == os.SCHED_IDLE
    assert os.getsid(calculator) == calculator != os.getsid(served.pid)
    assert Path(f"/proc/{calculator}/oom_score_adj").read_text() == "1000\n"
    served.client.get(f"/numbers/{SHORT + 2}")
    assert calculators(served.pid) == [calculator]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_its_server(served: ServerProcess, end: signal.Signals) -> None:
    served.client.get("/numbers/30000")
    (calculator,) = calculators(served.pid)
    with served.client.raw() as connection:
        # It is in the middle of a number.
        connection.sendall(b"GET /numbers/10000000 HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: served.client.index == 0, "it serves")
        served.signal(end)
        served.wait()
    until(lambda: not is_alive(calculator), "it has ended")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def queued(client: Client) -> int:
    return int(json.loads(client.get("/status").body)["lookups"]["numbers"])


def test_when_it_is_killed_who_waits_gets_503_and_another_is_started(
    served: ServerProcess,
) -> None:
    served.client.get("/numbers/30000")
    (calculator,) = calculators(served.pid)
    os.kill(calculator, signal.SIGSTOP)
    with served.client.raw() as connection:
        connection.sendall(b"GET /numbers/30001 HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: queued(served.client) == 1, "it is asked for it")
        os.kill(calculator, signal.SIGKILL)
        assert connection.recv(12) == b"HTTP/1.1 503"
    assert served.client.get("/numbers/30001").body == b'{"number": %b}' % digits_of(30_001)
    assert calculators(served.pid) != [calculator]
    assert served.client.get("/next").status == 200


@pytest.mark.processes
def test_what_can_not_be_started_is_503(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @in_a_loop
    async def test() -> None:
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        it = Held(monkeypatch, works=False)
        it.find(LONG)
        await it.wait_for(1)
        assert isinstance(it.found[0][1], OverloadedError)
        assert it.admission.in_flight.used == 0

    test()
    assert "The number at index 1000000 is not worked out (FileNotFoundError" in caplog.text


@pytest.mark.processes
def test_it_is_ended_when_it_has_had_nothing_to_do_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @in_a_loop
    async def test() -> None:
        monkeypatch.setattr(lookup, "IDLE_SECONDS", 0.0)
        before = calculators(os.getpid())
        it = Held(monkeypatch, works=False)
        it.find(SHORT + 1)
        await it.wait_for(1)
        assert it.found == [(SHORT + 1, digits_of(SHORT + 1))]
        while calculators(os.getpid()) != before:
            await asyncio.sleep(0.01)
        it.find(SHORT + 2)
        await it.wait_for(2)
        await it.lookup.close()

    test()


@pytest.mark.processes
def test_one_that_hangs_is_ended_and_the_next_number_has_another(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @in_a_loop
    async def test() -> None:
        it = Held(monkeypatch, works=False)
        with monkeypatch.context() as patched:
            patched.setattr(lookup, "WORK_SECONDS", 0.0)
            it.find(LONG)
            await it.wait_for(1)
        it.find(SHORT + 1)
        await it.wait_for(2)
        assert isinstance(it.found[0][1], OverloadedError)
        assert it.found[1] == (SHORT + 1, digits_of(SHORT + 1))
        await it.lookup.close()

    test()
    assert "The number at index 1000000 is not worked out (TimeoutError" in caplog.text


def test_it_answers_an_index_a_line() -> None:
    told = io.BytesIO()
    calculator.answer(io.BytesIO(b"0\n93\n20578\n"), told)
    told.seek(0)
    for index in (0, 93, 20_578):
        assert told.read(int(told.readline())) == digits_of(index)
    assert told.read() == b""


@given(st.integers(0, 10**9))
def test_how_many_digits_a_number_has_at_most_is_known(index: int) -> None:
    assert outline(index).digits <= most_digits(index) <= outline(index).digits + 1


# The queue


class Held:
    """A lookup that works numbers out when the test says so."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        max_in_flight: int = 64 * 2**20,
        *,
        works: bool = True,
    ) -> None:
        self.admission = Admission(max_waiting=1, max_in_flight=max_in_flight)
        self.lookup = Lookup(self.admission)
        self.begun: SimpleQueue[int] = SimpleQueue()
        self.go_on: asyncio.Queue[BaseException | None] = asyncio.Queue()
        self.found: list[tuple[int, bytes | OverloadedError]] = []
        self.changed = asyncio.Event()
        if works:
            monkeypatch.setattr(self.lookup, "_work_out", self._work_out)

    async def _work_out(self, index: int) -> bytes:
        self.begun.put(index)
        if (error := await self.go_on.get()) is not None:
            raise error
        return b"8" * most_digits(index)

    def find(self, index: int) -> None:
        def deliver(found: bytes | OverloadedError) -> None:
            self.found.append((index, found))
            self.changed.set()

        self.lookup.find(index, deliver)

    async def wait_for(self, count: int) -> None:
        while len(self.found) < count:
            self.changed.clear()
            await self.changed.wait()

    @property
    def indexes(self) -> list[int]:
        return [index for index, _ in self.found]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Held]:
    def make(max_in_flight: int = 64 * 2**20) -> Held:
        return Held(monkeypatch, max_in_flight)

    return make


LONG: Final = 1_000_000


def test_numbers_are_worked_out_in_their_order_one_at_a_time(held: Callable[..., Held]) -> None:
    @in_a_loop
    async def test() -> None:
        it = held()
        for index in (LONG, LONG + 1, LONG + 2):
            it.find(index)
        assert it.lookup.queued == 3
        it.find(SHORT)
        assert it.indexes == [SHORT]  # at once
        await turns_of_the_loop()
        assert it.begun.get(timeout=PATIENCE) == LONG
        assert it.begun.empty()
        for _ in range(3):
            it.go_on.put_nowait(None)
        await it.wait_for(4)
        assert it.indexes == [SHORT, LONG, LONG + 1, LONG + 2]
        assert it.lookup.queued == 0
        await it.lookup.close()

    test()


def test_those_who_wait_for_the_same_number_share_it_and_then_it_is_kept(
    held: Callable[..., Held],
) -> None:
    @in_a_loop
    async def test() -> None:
        it = held()
        for _ in range(3):
            it.find(LONG)
        it.go_on.put_nowait(None)
        await it.wait_for(3)
        it.find(LONG)
        assert it.begun.get(timeout=PATIENCE) == LONG
        assert it.begun.empty()
        assert len({id(found) for _, found in it.found}) == 1
        await it.lookup.close()

    test()


def test_past_its_bound_the_queue_takes_no_other_number(held: Callable[..., Held]) -> None:
    @in_a_loop
    async def test() -> None:
        it = held()
        for number in range(MAX_QUEUED):
            it.find(LONG + number)
        with pytest.raises(OverloadedError, match=f"{MAX_QUEUED} numbers wait"):
            it.find(LONG + MAX_QUEUED)
        assert it.admission.shed["numbers"] == 1
        it.find(LONG)  # It waits already.
        it.find(5)
        for _ in range(MAX_QUEUED):
            it.go_on.put_nowait(None)
        await it.wait_for(MAX_QUEUED + 2)
        it.find(LONG + MAX_QUEUED)
        it.go_on.put_nowait(None)
        await it.wait_for(MAX_QUEUED + 3)
        await it.lookup.close()

    test()


def test_who_waits_in_vain_is_told_so_and_finds_what_was_begun(
    held: Callable[..., Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    @in_a_loop
    async def test() -> None:
        it = held()
        with monkeypatch.context() as patched:
            # Timers come after all that could run before them, such as the first number's begin.
            patched.setattr(lookup, "WAIT_SECONDS", 0.0)
            for index in (LONG, LONG + 1, LONG):
                it.find(index)
            await it.wait_for(3)
        assert {type(found) for _, found in it.found} == {OverloadedError}
        assert "has not been worked out for 0 s" in str(it.found[0][1])
        assert it.lookup.queued == 1
        it.find(LONG)
        it.go_on.put_nowait(None)
        await it.wait_for(4)
        assert it.found[3] == (LONG, b"8" * most_digits(LONG))
        assert it.begun.get(timeout=PATIENCE) == LONG
        assert it.begun.empty()
        assert it.lookup.queued == 0
        await it.lookup.close()

    test()


def test_what_is_worked_out_counts_as_bytes_in_flight_as_long_as_it_is(
    held: Callable[..., Held],
) -> None:
    @in_a_loop
    async def test() -> None:
        size = WORKING_MEMORY * most_digits(LONG)
        it = held(max_in_flight=size + 10)
        it.find(LONG)
        await turns_of_the_loop()
        assert it.admission.in_flight.used == size
        with pytest.raises(OverloadedError, match="all their memory"):
            it.find(LONG - 1)
        with pytest.raises(OverloadedError, match="FIB_MAX_IN_FLIGHT"):
            it.find(10 * LONG)
        assert it.admission.shed["in_flight"] == 2
        it.go_on.put_nowait(None)
        await it.wait_for(1)
        assert it.admission.in_flight.used == 0
        await it.lookup.close()

    test()


def test_a_number_for_which_there_is_no_memory_when_its_turn_comes_is_shed(
    held: Callable[..., Held],
) -> None:
    @in_a_loop
    async def test() -> None:
        it = held()
        for number in range(3):
            it.find(LONG + number)
        await turns_of_the_loop()
        others = it.admission.in_flight.limit
        it.admission.in_flight.used += others
        it.go_on.put_nowait(None)
        await it.wait_for(3)
        assert [isinstance(found, bytes) for _, found in it.found] == [True, False, False]
        it.admission.in_flight.used -= others
        assert it.admission.in_flight.used == 0
        it.find(LONG + 1)
        it.go_on.put_nowait(OSError())
        it.find(LONG + 2)
        it.go_on.put_nowait(None)
        await it.wait_for(5)
        assert [isinstance(found, bytes) for _, found in it.found[3:]] == [False, True]
        assert "no memory" in str(it.found[3][1])
        await it.lookup.close()

    test()


def test_the_last_numbers_are_kept_up_to_so_many_bytes(held: Callable[..., Held]) -> None:
    @in_a_loop
    async def test() -> None:
        it = held()
        fit = MAX_KEPT // most_digits(LONG)
        for number in range(fit + 1):
            if number == fit:
                it.find(LONG)  # It is asked for again, and the next oldest goes.
            it.go_on.put_nowait(None)
            it.find(LONG + number)
            await it.wait_for(number + 1 + (number == fit))
        assert it.lookup.kept_bytes <= MAX_KEPT
        while not it.begun.empty():
            it.begun.get()
        it.find(LONG)
        it.find(LONG + 2)
        assert it.begun.empty()
        it.go_on.put_nowait(None)
        it.find(LONG + 1)
        await turns_of_the_loop()
        assert it.begun.get(timeout=PATIENCE) == LONG + 1
        too_long = int(MAX_KEPT / lookup.DIGITS_AN_INDEX) + 10
        it.go_on.put_nowait(None)
        it.find(too_long)
        await it.wait_for(fit + 6)
        assert it.lookup.kept_bytes <= MAX_KEPT
        await it.lookup.close()

    test()


def test_who_asks_for_another_number_while_it_is_given_one_waits_its_turn(
    held: Callable[..., Held],
) -> None:
    @in_a_loop
    async def test() -> None:
        it = held()

        def ask_again(found: bytes | OverloadedError) -> None:
            it.found.append((LONG, found))
            it.find(LONG + 2)
            raise ValueError("which is nobody else's business")

        it.lookup.find(LONG, ask_again)
        it.find(LONG + 1)
        for _ in range(3):
            it.go_on.put_nowait(None)
        await it.wait_for(3)
        assert it.indexes == [LONG, LONG + 1, LONG + 2]
        assert it.admission.in_flight.used == 0
        await it.lookup.close()

    test()
