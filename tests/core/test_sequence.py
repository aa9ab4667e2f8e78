"""The core compared with the obvious model: every number, both kinds of integers, many threads."""

import itertools
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, cast

import gmpy2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fibcore import MAX_EXACT_INDEX, MAX_INDEX, Sequence, Snapshot
from tests.support.reference import crossing, digits_of, fibonacci_modulo, numbers

LAST_WORD_INDEX = 93
"""F(93) is the last Fibonacci number under 2**64."""

RELEASES_GIL_INDEX = 40_000
"""From this index on a step releases the GIL: its numbers have 8,192 digits or more."""

STARTS = st.integers(0, 200) | st.integers(0, 20_000) | st.integers(0, 1_000_000)


def assert_stands_at(sequence: Sequence, index: int) -> None:
    snapshot = sequence.snapshot
    assert (snapshot.index, snapshot.previous, snapshot.current) == (
        index,
        digits_of(index - 1),
        digits_of(index),
    )


def together(*tasks: Callable[[], object]) -> None:
    """Run each task in its own thread, all starting at once; raise the first error."""
    barrier = threading.Barrier(len(tasks))

    def run(task: Callable[[], object]) -> None:
        barrier.wait()
        task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        for done in [pool.submit(run, task) for task in tasks]:
            done.result()


# Every number


def test_the_first_20000_steps_agree_with_the_obvious_model() -> None:
    sequence = Sequence()
    assert sequence.integers == "exact"
    previous = b"0"
    for index, number in enumerate(itertools.islice(numbers(), 20_001)):
        snapshot = sequence.snapshot
        digits = gmpy2.mpz(number).digits().encode()
        assert (snapshot.index, snapshot.previous, snapshot.current) == (index, previous, digits)
        previous = digits
        sequence.advance()


@given(STARTS, st.integers(1, 6))
@example(0, 1)
@example(1, 1)
@example(1_000_000, 1)
@example(2**16 - 1, 3)
def test_steps_from_any_start_agree_with_gmpy2(start: int, steps: int) -> None:
    sequence = Sequence(start)
    assert_stands_at(sequence, start)
    for index in range(start + 1, start + steps + 1):
        assert sequence.advance().current == digits_of(index)
    assert_stands_at(sequence, start + steps)


@given(st.sampled_from([8, 16, 32, 64, 128]), st.integers(1, 1_000), st.integers(-1, 1))
def test_numbers_on_both_sides_of_a_block_of_digits_are_exact(
    block: int, blocks: int, beside: int
) -> None:
    first_longer = crossing(block * blocks + beside)
    sequence = Sequence(first_longer - 3)
    for index in range(first_longer - 2, first_longer + 3):
        assert sequence.advance().current == digits_of(index)


@pytest.mark.parametrize("pieces", [1, 2, 3, 4, 5, 8, 9])
def test_a_start_is_exact_around_the_boundaries_of_its_pieces(pieces: int) -> None:
    """A long number is made in pieces of 2**14 digits; at most five indexes share a length."""
    begin = crossing(pieces * 2**14)
    for index in range(begin - 6, begin + 10, 3):
        assert_stands_at(Sequence(index), index)


@given(st.integers(0, 300) | st.integers(0, 50_000), st.integers(1, 200))
@example(0, 64)
@example(0, 65)
@example(LAST_WORD_INDEX, 64)
@example(LAST_WORD_INDEX - 1, 65)
def test_many_steps_at_once_equal_as_many_single_steps(start: int, steps: int) -> None:
    sequence = Sequence(start)
    snapshot = sequence.advance(steps)
    assert snapshot is sequence.snapshot
    assert_stands_at(sequence, start + steps)


def test_iterating_over_a_sequence_steps_it() -> None:
    sequence = Sequence(89)
    numbers = [(each.index, each.current) for each in itertools.islice(sequence, 11)]
    assert numbers == [(index, digits_of(index)) for index in range(90, 101)]
    assert sequence.index == 100


def test_a_number_is_converted_once_and_shared() -> None:
    sequence = Sequence(1_000)
    current = sequence.current
    assert sequence.current is current
    assert sequence.advance().previous is current
    assert sequence.previous is current


# Modulo 2**64


def test_uint64_counts_modulo_2_to_the_64() -> None:
    sequence = Sequence(integers="uint64")
    assert sequence.integers == "uint64"
    previous = 0
    for index, number in enumerate(itertools.islice(numbers(), 2_001)):
        snapshot = sequence.snapshot
        served = (snapshot.index, int(snapshot.previous), int(snapshot.current))
        assert served == (index, previous, number % 2**64)
        previous = number % 2**64
        sequence.advance()


@given(
    st.integers(0, 200) | st.integers(0, 2**63 - 1_000), st.integers(1, 200) | st.integers(1, 1_000)
)
def test_uint64_is_correct_after_any_start_and_jump(start: int, steps: int) -> None:
    sequence = Sequence(start, integers="uint64")
    assert int(sequence.current) == fibonacci_modulo(start)
    assert int(sequence.previous) == fibonacci_modulo(start - 1)
    sequence.advance(steps)
    assert sequence.index == start + steps
    assert int(sequence.current) == fibonacci_modulo(start + steps)
    assert int(sequence.previous) == fibonacci_modulo(start + steps - 1)
    assert int(sequence.advance().current) == fibonacci_modulo(start + steps + 1)


# Bounds


@pytest.mark.parametrize("index", [-1, -(2**64), MAX_EXACT_INDEX + 1, MAX_INDEX + 1, 2**64, 2**200])
def test_a_start_out_of_bounds_is_rejected(index: int) -> None:
    with pytest.raises(ValueError, match=f"from 0 to {MAX_EXACT_INDEX}, not {index}"):
        Sequence(index)


@pytest.mark.parametrize("steps", [0, -1, 1.0, "1", None, True])
def test_steps_that_are_not_a_positive_int_are_rejected(steps: object) -> None:
    """Nothing moves."""
    sequence = Sequence(5)
    before = sequence.snapshot
    with pytest.raises(ValueError, match=f"from 1 to {MAX_EXACT_INDEX}, not"):
        sequence.advance(cast("int", steps))
    assert sequence.snapshot is before


@pytest.mark.parametrize(
    ("sequence", "steps", "largest"),
    [(Sequence(5), MAX_EXACT_INDEX - 4 + each, MAX_EXACT_INDEX) for each in (0, 1, 2**64, 2**200)]
    + [(Sequence(MAX_INDEX, integers="uint64"), each, MAX_INDEX) for each in (1, 64, 65, 2**64)],
)
def test_steps_past_the_end_are_rejected(sequence: Sequence, steps: int, largest: int) -> None:
    """Nothing moves."""
    before = sequence.snapshot
    with pytest.raises(ValueError, match=str(largest)):
        sequence.advance(steps)
    assert sequence.snapshot is before


@pytest.mark.processes
def test_a_step_without_enough_memory_raises() -> None:
    """Nothing moves."""
    # In a separate process, with a bound on its address space while it steps.
    program = """
        import resource
        import gmpy2
        from fibcore import Sequence

        START = 5_000_000
        sequence = Sequence(START)
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 10_000_000, resource.RLIM_INFINITY))
        snapshots = [sequence.snapshot]
        try:
            while len(snapshots) < 100:
                snapshots.append(sequence.advance())
        except MemoryError:
            assert sequence.snapshot is snapshots[-1]
        else:
            raise SystemExit("the memory never ran out")
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        expected = gmpy2.fib(START + len(snapshots)).digits().encode()
        assert sequence.advance().current == expected
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)


@pytest.mark.parametrize("name", ["index", "current", "previous"])
def test_snapshots_and_sequences_are_read_only(name: str) -> None:
    sequence = Sequence(7)
    for thing in (sequence, sequence.snapshot):
        with pytest.raises(AttributeError):
            setattr(thing, name, b"0")
    assert_stands_at(sequence, 7)


# Threads


def runs_of_others(compute: Callable[[int], object]) -> int:
    """How often another thread has run while a long number was computed."""
    computing = threading.Thread(target=compute, args=(3_000_000,))
    computing.start()
    runs = 0
    while computing.is_alive():
        time.sleep(0.001)
        runs += 1
    return runs


def test_other_threads_run_while_a_long_number_is_computed() -> None:
    """gmpy2 alone holds the GIL from the beginning to the end of each of its calls."""
    alone = runs_of_others(lambda index: [each.digits() for each in gmpy2.fib2(index)])
    assert runs_of_others(Sequence) > 2 * alone


@pytest.fixture
def _many_switches() -> Iterator[None]:
    """Switch threads 500 times as often as usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("_many_switches")
def test_many_threads_get_each_index_once() -> None:
    threads, steps, start = 4, 250, 20 * RELEASES_GIL_INDEX
    sequence = Sequence(start)
    taken: list[list[Snapshot]] = [[] for _ in range(threads)]

    def steps_into(snapshots: list[Snapshot]) -> Callable[[], None]:
        return lambda: snapshots.extend(sequence.advance() for _ in range(steps))

    together(*map(steps_into, taken))

    for snapshots in taken:
        indexes = [snapshot.index for snapshot in snapshots]
        assert indexes == sorted(indexes)
    handed_out = sorted(snapshot.index for snapshots in taken for snapshot in snapshots)
    assert handed_out == list(range(start + 1, start + threads * steps + 1))
    assert_stands_at(sequence, start + threads * steps)
    assert sequence.retries > 0, "the threads never met: this run has shown nothing"


@pytest.mark.usefixtures("_many_switches")
@pytest.mark.parametrize("integers", ["exact", "uint64"])
def test_concurrent_readers_see_consistent_snapshots_in_order(
    integers: Literal["exact", "uint64"],
) -> None:
    start = 2 * RELEASES_GIL_INDEX
    sequence = Sequence(start, integers=integers)
    stepped: list[Snapshot] = [sequence.snapshot]
    seen: list[list[Snapshot]] = [[], []]
    satisfied = threading.Semaphore(0)
    enough = threading.Event()

    def step() -> None:
        while not enough.is_set():
            stepped.append(sequence.advance())

    def read_into(snapshots: list[Snapshot]) -> Callable[[], None]:
        def read() -> None:
            try:
                while len(snapshots) < 50:
                    snapshot = sequence.snapshot
                    if not snapshots or snapshots[-1] is not snapshot:
                        snapshots.append(snapshot)
            finally:
                satisfied.release()

        return read

    def stop() -> None:
        for _ in seen:
            satisfied.acquire()
        enough.set()

    together(step, step, stop, *map(read_into, seen))

    by_index = {snapshot.index: snapshot for snapshot in stepped}
    last = start + len(stepped) - 1
    assert sorted(by_index) == list(range(start, last + 1))
    for index in range(start + 1, last + 1):
        assert by_index[index].previous is by_index[index - 1].current
    for snapshots in seen:
        assert all(snapshot is by_index[snapshot.index] for snapshot in snapshots)
        indexes = [snapshot.index for snapshot in snapshots]
        assert indexes == sorted(indexes)
    assert sequence.snapshot is by_index[last]
