"""``/numbers/{index}``: exact at any index, both ways, and worked out where it disturbs nobody."""

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Final

import gmpy2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fibcore import gmp, lookup
from fibcore.admission import Admission, OverloadedError
from fibcore.gmp import WORKING_MEMORY, fibonacci_digits, most_digits
from fibcore.lookup import MAX_KEPT, MAX_QUEUED, SHORT, Lookup
from tests.held import LIMIT, in_a_loop
from tests.reference import digits_of, fibonacci_modulo
from tests.serving import Client
from tests.ways import WAYS, assert_number, assert_problem, serving

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


@pytest.mark.processes
def test_the_thread_that_works_them_out_is_as_nice_as_can_be(tmp_path: Path) -> None:
    with serving(tmp_path, 7) as client:
        pid = json.loads(client.get("/status").body)["process"]["pid"]

        def nicest() -> int:
            threads = Path(f"/proc/{pid}/task").iterdir()
            return max(os.getpriority(os.PRIO_PROCESS, int(each.name)) for each in threads)

        before = nicest()
        client.get("/numbers/100000")
        assert before < nicest() == 19


# GMP


@given(st.integers(0, 50_000))
def test_the_digits_are_those_of_gmpy2(index: int) -> None:
    digits = fibonacci_digits(index)
    assert digits == digits_of(index)
    assert len(digits) <= most_digits(index) <= len(digits) + 1


def tenths_beside(work: Callable[[], object]) -> int:
    """In how many tenths of the time that ``work`` takes in a thread Python goes on in this one."""
    moments: list[float] = []

    def timed() -> None:
        moments.append(time.perf_counter())
        work()
        moments.append(time.perf_counter())

    thread = threading.Thread(target=timed)
    thread.start()
    ticks = []
    while thread.is_alive():
        ticks.append(time.perf_counter())
    thread.join()
    begin, end = moments
    return len({int((tick - begin) / (end - begin) * 10) for tick in ticks if begin < tick < end})


# A machine that is busy may give a thread no time once, or much before the other begins.
TRIES: Final = 10


def test_python_goes_on_while_a_number_is_worked_out() -> None:
    assert any(tenths_beside(lambda: fibonacci_digits(5_000_000)) >= 5 for _ in range(TRIES))


def test_with_gmpy2_it_would_not() -> None:
    """The control of the test above."""
    number = gmpy2.fib(5_000_000)
    assert any(tenths_beside(number.digits) <= 2 for _ in range(TRIES))


# The queue


class Held:
    """A lookup whose thread works numbers out when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, max_in_flight: int = 64 * 2**20) -> None:
        self.admission = Admission(max_waiting=1, max_in_flight=max_in_flight)
        self.lookup = Lookup(self.admission)
        self.begun: SimpleQueue[int] = SimpleQueue()
        self.go_on: SimpleQueue[BaseException | None] = SimpleQueue()
        self.found: list[tuple[int, bytes | OverloadedError]] = []
        self.changed = asyncio.Event()
        monkeypatch.setattr(lookup, "fibonacci_digits", self._work_out)

    def _work_out(self, index: int) -> bytes:
        if index > SHORT:
            self.begun.put(index)
            if (error := self.go_on.get(timeout=LIMIT)) is not None:
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


Test = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Held]:
    def make(**bounds: int) -> Held:
        return Held(monkeypatch, **bounds)

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
        assert it.begun.get(timeout=LIMIT) == LONG
        assert it.begun.empty()
        for _ in range(3):
            it.go_on.put(None)
        await it.wait_for(4)
        assert it.indexes == [SHORT, LONG, LONG + 1, LONG + 2]
        assert it.lookup.queued == 0
        it.lookup.close()

    test()


def test_those_who_wait_for_the_same_number_share_it_and_then_it_is_kept(
    held: Callable[..., Held],
) -> None:
    @in_a_loop
    async def test() -> None:
        it = held()
        for _ in range(3):
            it.find(LONG)
        it.go_on.put(None)
        await it.wait_for(3)
        it.find(LONG)
        assert it.begun.get(timeout=LIMIT) == LONG
        assert it.begun.empty()
        assert len({id(found) for _, found in it.found}) == 1
        it.lookup.close()

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
            it.go_on.put(None)
        await it.wait_for(MAX_QUEUED + 2)
        it.find(LONG + MAX_QUEUED)
        it.go_on.put(None)
        await it.wait_for(MAX_QUEUED + 3)
        it.lookup.close()

    test()


def test_what_is_worked_out_counts_as_bytes_in_flight_as_long_as_it_is(
    held: Callable[..., Held],
) -> None:
    @in_a_loop
    async def test() -> None:
        size = WORKING_MEMORY * most_digits(LONG)
        it = held(max_in_flight=size + 10)
        it.find(LONG)
        assert it.admission.in_flight.used == size
        with pytest.raises(OverloadedError, match="all their memory"):
            it.find(LONG - 1)
        with pytest.raises(OverloadedError, match="FIB_MAX_IN_FLIGHT"):
            it.find(10 * LONG)
        assert it.admission.shed["in_flight"] == 2
        it.go_on.put(None)
        await it.wait_for(1)
        assert it.admission.in_flight.used == 0
        it.lookup.close()

    test()


def test_a_number_for_which_there_is_no_memory_when_its_turn_comes_is_shed(
    held: Callable[..., Held],
) -> None:
    @in_a_loop
    async def test() -> None:
        it = held()
        for number in range(3):
            it.find(LONG + number)
        others = it.admission.in_flight.limit
        it.admission.in_flight.used += others
        it.go_on.put(None)
        await it.wait_for(3)
        assert [isinstance(found, bytes) for _, found in it.found] == [True, False, False]
        it.admission.in_flight.used -= others
        assert it.admission.in_flight.used == 0
        it.find(LONG + 1)
        it.go_on.put(MemoryError())
        it.find(LONG + 2)
        it.go_on.put(None)
        await it.wait_for(5)
        assert [isinstance(found, bytes) for _, found in it.found[3:]] == [False, True]
        assert "no memory left" in str(it.found[3][1])
        it.lookup.close()

    test()


def test_the_last_numbers_are_kept_up_to_so_many_bytes(held: Callable[..., Held]) -> None:
    @in_a_loop
    async def test() -> None:
        it = held()
        fit = MAX_KEPT // most_digits(LONG)
        for number in range(fit + 1):
            if number == fit:
                it.find(LONG)  # It is asked for again, and the next oldest goes.
            it.go_on.put(None)
            it.find(LONG + number)
            await it.wait_for(number + 1 + (number == fit))
        assert it.lookup.kept_bytes <= MAX_KEPT
        while not it.begun.empty():
            it.begun.get()
        it.find(LONG)
        it.find(LONG + 2)
        assert it.begun.empty()
        it.go_on.put(None)
        it.find(LONG + 1)
        assert it.begun.get(timeout=LIMIT) == LONG + 1
        too_long = int(MAX_KEPT / gmp.DIGITS_AN_INDEX) + 10
        it.go_on.put(None)
        it.find(too_long)
        await it.wait_for(fit + 6)
        assert it.lookup.kept_bytes <= MAX_KEPT
        it.lookup.close()

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
            it.go_on.put(None)
        await it.wait_for(3)
        assert it.indexes == [LONG, LONG + 1, LONG + 2]
        assert it.admission.in_flight.used == 0
        it.lookup.close()

    test()
