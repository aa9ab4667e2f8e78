"""The contract of a store: what ``Opener`` and ``Store`` promise, on each of them.

A store is a fixture's parameter: another one needs a line in ``PLACES`` and a ``Place``.
"""

import random
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

import pytest

from fibcore import MAX_INDEX
from fibcore.problems import (
    InTheWayError,
    InUseError,
    LowerError,
    NoFolderError,
    SequenceMissingError,
)
from fibcore.stores import IndexConflictError, Key, KeyConflictError, Keys, Store
from tests.support.engines import Engine, Etcd, Postgresql, Redis
from tests.support.stores import (
    Place,
    Writer,
    file_at,
    forget_keys,
    key,
    outcome,
    outcomes,
    step,
)
from tests.support.waiting import PATIENCE, until

ENGINES: Final[dict[str, type[Engine]]] = {
    "postgresql": Postgresql,
    "redis": Redis,
    "etcd": Etcd,
}

IN_ENGINES: Final = [pytest.param(each, marks=pytest.mark.processes) for each in ENGINES]

PLACES: Final = ["sqlite", *IN_ENGINES]

EXACT: Final = 2**53 - 100
"""Below it every store is exact, also one whose numbers are those of Lua."""


def place_of(name: str, request: pytest.FixtureRequest) -> Place:
    if name == "sqlite":
        folder: Path = request.getfixturevalue("tmp_path")
        return file_at(folder / "fibcore.db")
    engine = request.getfixturevalue("engines")(ENGINES[name])
    return Place(engine.url, f"test-{uuid.uuid4()}")


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Place:
    """Where no sequence is yet, in each store."""
    return place_of(request.param, request)


@pytest.fixture(params=PLACES)
def reachable(request: pytest.FixtureRequest, processes: None) -> Place:  # noqa: ARG001
    """The same, in a store that other processes reach."""
    return place_of(request.param, request)


@pytest.fixture(params=IN_ENGINES)
def shared(request: pytest.FixtureRequest) -> Place:
    """The same, in a store that any number of processes may open at once."""
    return place_of(request.param, request)


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    """The open store of a sequence, at 0."""
    with place.created() as store:
        yield store


# Creating and opening


def test_a_sequence_is_created_once(place: Place) -> None:
    assert place.opener().create(7) is None
    assert place.opener().create(9) == 7
    assert place.index == 7
    with place.opened() as store:
        assert store.read() == 7


def test_no_sequence_of_an_engine_is_created_by_opening_it(shared: Place) -> None:
    """What seems to be missing may be elsewhere, and would silently start again at 0."""
    for _ in range(2):
        with pytest.raises(SequenceMissingError):
            shared.opener().open()
    with pytest.raises(SequenceMissingError):
        shared.opener().describe()


def test_sequences_in_one_store_are_independent(place: Place, store: Store) -> None:
    used = key()
    assert step(store, used) == 1
    with place.another().created() as other:
        assert other.advance(100) == 100
        assert step(other, key(100), used) == 102
        assert (outcome(store, used), outcome(other, used)) == (1, 102)
        assert (store.read(), other.read()) == (1, 102)


def test_what_was_committed_is_there_when_the_store_is_opened_again(place: Place) -> None:
    used = key()
    with place.created(5) as store:
        assert store.advance(3) == 8
        assert step(store, first := key(8), second := key(8)) == 10
    for index in (11, 12):
        with place.opened() as store:
            assert store.read() == index - 1
            assert outcomes(store, first, second) == {first: 9, second: 10}
            assert outcome(store, used) is None
            assert store.advance(1) == index


def test_closing_a_store_twice_does_no_harm(place: Place) -> None:
    with place.created(5) as store:
        store.close()
        store.close()
    assert place.index == 5


def test_only_a_file_has_one_writer(place: Place, store: Store) -> None:
    assert store.exclusive == (place.database is not None)
    assert store.where
    assert store.where == place.opener().where


# Batches


def test_a_batch_continues_from_the_index(store: Store) -> None:
    assert store.read() == 0
    assert [store.advance(1), store.advance(3), store.advance(1)] == [1, 4, 5]
    assert store.read() == 5


@pytest.mark.parametrize(
    ("steps", "expected", "limit"),
    [(1, 4, None), (1, 6, None), (1, 4, 100), (2, None, 6), (2, 5, 6), (1, None, 4), (1, 5, 0)],
)
def test_a_batch_whose_condition_does_not_hold_changes_nothing(
    store: Store, steps: int, expected: int | None, limit: int | None
) -> None:
    assert store.advance(5, limit=5) == 5
    new = key(5)
    for keys in ({}, {new: 1}):
        with pytest.raises(IndexConflictError) as elsewhere:
            store.advance(steps, expected, limit, keys)
        assert elsewhere.value.index == store.read() == 5
    assert store.advance(1, 5, 6, {new: 1}) == 6
    assert outcome(store, new) == 6


def test_an_index_is_exact_where_floating_point_numbers_end(place: Place) -> None:
    with place.created(EXACT) as store:
        index = EXACT
        for steps in (1, 2, 7):
            assert store.advance(steps, expected=index, limit=index + steps) == index + steps
            index += steps
            assert store.read() == index
            assert step(store, new := key(index)) == index + 1
            index += 1
            assert outcome(store, new) == index
    assert place.index == index


@pytest.mark.parametrize(
    "place",
    ["sqlite", *(each for each in IN_ENGINES if each.values != ("redis",))],
    indirect=True,
)
def test_no_batch_goes_past_the_largest_index(place: Place) -> None:
    with place.created(MAX_INDEX - 1) as store:
        for keys in ({}, {key(MAX_INDEX - 1): 2}):
            with pytest.raises(IndexConflictError) as conflict:
                store.advance(2, limit=MAX_INDEX, keys=keys)
            assert conflict.value.index == MAX_INDEX - 1
        assert store.advance(1, limit=MAX_INDEX) == MAX_INDEX


# Keys


def test_a_new_key_steps_and_a_known_one_is_answered(store: Store) -> None:
    first, second, third = key(), key(), key()
    assert store.advance(3, keys={first: 1, second: 3}) == 3
    for again in ((first,), (second,), (first, second, third), (third, second)):
        known = {first: 1, second: 3}
        assert outcomes(store, *again) == {each: known[each] for each in again if each in known}
    assert store.read() == 3
    assert step(store, third) == 4


def test_a_key_may_be_looked_up_without_a_step(store: Store) -> None:
    used = key()
    assert step(store, used) == 1
    assert store.advance(0, keys={key(1): 0}) == store.read() == 1
    with pytest.raises(KeyConflictError) as conflict:
        store.advance(0, keys={used: 0})
    assert conflict.value.found == {used: 1}
    assert conflict.value.index == store.read() == 1


def test_a_key_that_the_sequence_has_not_reached_is_rejected(store: Store) -> None:
    """It comes from another sequence, or from steps that were lost."""
    assert store.advance(5) == 5
    ahead, near = key(6), key(5)
    assert outcomes(store, ahead, near) == {ahead: None}
    assert store.read() == 5
    assert step(store, near) == 6
    assert step(store, ahead) == 7
    assert outcome(store, key(MAX_INDEX)) is None


def test_a_forgotten_key_is_rejected_and_never_taken_for_new(place: Place) -> None:
    with place.created() as store:
        old, unused = key(), key()
        assert step(store, old) == 1
        assert outcome(store, old) == 1
        forget_keys(store)
        index = store.read()
        for _ in range(2):
            assert outcome(store, old) is None
            assert outcome(store, unused) is None
        assert step(store, late := key(index)) == index + 1
        assert outcome(store, late) == index + 1
    with place.opened() as store:
        assert outcome(store, old) is None
        assert outcome(store, late) == index + 1
        assert store.read() == index + 1


def test_keys_of_the_last_steps_are_kept(store: Store) -> None:
    """Whatever is forgotten, no key of the last hundred steps is."""
    for _ in range(3):
        forget_keys(store)
        index = store.read()
        made = {key(index): place for place in range(1, 101)}
        assert store.advance(100, keys=made) == index + 100
        assert store.advance(1) == index + 101
        assert outcomes(store, *made) == {each: index + place for each, place in made.items()}


def expected_of(
    index: int,
    rows: dict[Key, int],
    steps: int,
    expected: int | None,
    limit: int | None,
    keys: Keys,
) -> list[object]:
    """What a batch may lead to: the index after it, or what conflicts, per the rule of keys."""
    found = {each: rows.get(each) for each in keys if each in rows or not 0 <= each.since <= index}
    conflicts: list[object] = [found] if found else []
    if expected not in (None, index) or (limit is not None and index + steps > limit):
        conflicts.append(index)
    return conflicts or [("index", index + steps)]


def done(store: Store, steps: int, expected: int | None, limit: int | None, keys: Keys) -> object:
    try:
        return "index", store.advance(steps, expected, limit, keys)
    except KeyConflictError as conflict:
        return dict(conflict.found)
    except IndexConflictError as conflict:
        return conflict.index


@pytest.mark.parametrize("seed", range(3))
def test_drawn_batches_do_what_the_rule_of_keys_says(place: Place, seed: int) -> None:
    draw = random.Random(seed)
    index, rows = 0, dict[Key, int]()
    known: list[Key] = []
    with ExitStack() as stack:
        stores = [stack.enter_context(place.created())]
        if not stores[0].exclusive:
            stores.append(stack.enter_context(place.opened()))
        for _ in range(80):
            steps = draw.randint(1, 4)
            near = [None, index, index + 1, index + steps]
            conditions = draw.choice(near), draw.choice([*near, index + steps + 1])
            keys = {}
            for position in sorted(draw.sample(range(1, steps + 1), draw.randint(0, steps))):
                if not known or draw.random() < 0.6:
                    known.append(key(draw.choice([0, index, max(0, index - 3), index + 1])))
                keys[draw.choice(known[-12:])] = position
            allowed = expected_of(index, rows, steps, *conditions, keys)
            what = done(draw.choice(stores), steps, *conditions, keys)
            assert what in allowed
            if what == ("index", index + steps):
                rows |= {each: index + position for each, position in keys.items()}
                index += steps
            assert [each.read() for each in stores] == [index] * len(stores)
        assert len(rows) > 10


# Several stores on one sequence


def test_every_node_sees_the_steps_and_keys_of_the_others(shared: Place) -> None:
    first, second, new = key(), key(), key()
    with shared.created() as one, shared.opened() as other:
        assert step(one, first) == 1
        assert other.read() == 1
        assert other.advance(3, keys={second: 2}) == 4
        assert one.advance(1, expected=4) == 5
        for node in (one, other):
            assert node.read() == 5
            assert outcomes(node, first, second, new) == {first: 1, second: 3}
            assert outcome(node, key(6)) is None
        with pytest.raises(IndexConflictError):
            other.advance(1, expected=4)
        assert step(other, new) == 6
        assert outcome(one, new) == 6


def at_once(place: Place, ask: Callable[[Store], list[int]]) -> list[list[int]]:
    """What four nodes that begin at the same moment get."""
    together = threading.Barrier(4)

    def run(_: int) -> list[int]:
        with place.opened() as store:
            together.wait(PATIENCE)
            return ask(store)

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(run, range(4)))


def test_nodes_that_step_at_once_get_each_index_once(shared: Place) -> None:
    shared.opener().create(0)
    found = at_once(shared, lambda store: [store.advance(1) for _ in range(50)])
    assert sorted(index for each in found for index in each) == list(range(1, 201))
    assert all(each == sorted(each) for each in found)
    assert shared.index == 200


def test_a_key_used_on_all_nodes_at_once_makes_one_step(shared: Place) -> None:
    shared.opener().create(0)
    keys = [key() for _ in range(25)]

    def ask(store: Store) -> list[int]:
        found = []
        for each in keys:
            try:
                found.append(step(store, each))
            except KeyConflictError as conflict:
                index = conflict.found[each]
                assert index is not None
                found.append(index)
        return found

    assert at_once(shared, ask) == [list(range(1, len(keys) + 1))] * 4
    assert shared.index == len(keys)


def test_no_key_is_forgotten_by_one_node_and_new_to_another(shared: Place) -> None:
    old, unused = key(), key()
    with shared.created() as one, shared.opened() as other:
        assert step(one, old) == 1
        assert outcome(other, old) == 1
        forget_keys(one)
        for node in (other, one):
            assert outcomes(node, old, unused) == {old: None, unused: None}
        assert step(other, late := key(one.read())) == one.read()
        assert outcome(one, late) == one.read()


# Processes


def test_four_processes_get_each_index_once(reachable: Place) -> None:
    """On an engine at once; on a file one after the other, since each is its only writer."""
    reachable.opener().create(0)
    with ExitStack() as stack:
        writers = [stack.enter_context(Writer(reachable, 50, paused=True)) for _ in range(4)]
        for each in writers:
            each.go()
        found = [each.rest() for each in writers]
    assert all(each == sorted(each) and len(each) == 50 for each in found)
    assert sorted(index for each in found for index in each) == list(range(1, 201))
    if reachable.database:
        assert all(each[-1] - each[0] == 49 for each in found)
    assert reachable.index == 200


def test_after_a_killed_writer_another_goes_on_and_no_step_is_lost(reachable: Place) -> None:
    reachable.opener().create(0)
    last = 0
    for _ in range(3):
        with Writer(reachable, 100_000) as writer:
            for _ in range(10):
                index = writer.index()
                assert index > last
                last = index
            writer.kill()
            last = [last, *writer.rest()][-1]
            assert writer.process.returncode == -signal.SIGKILL
        with reachable.opened() as store:
            # Of its last batch, nobody got the index.
            assert last <= store.read() <= last + 1
            last = store.advance(1)


def test_a_standby_opens_a_file_when_its_writer_is_killed(
    tmp_path: Path,
    processes: None,  # noqa: ARG001
) -> None:
    place = file_at(tmp_path / "fibcore.db")
    with Writer(place, 100_000) as writer:
        last = writer.index()
        waiting: list[int | None] = []

        def stand_by() -> int:
            opener = place.opener()
            opener.stand_by(waiting.append)
            with closing(opener.open()) as store:
                return store.read()

        with ThreadPoolExecutor(1) as pool:
            took_over = pool.submit(stand_by)
            until(lambda: bool(waiting), "it waits")
            assert waiting == [writer.process.pid]
            with pytest.raises(InUseError, match=str(writer.process.pid)):
                place.opener().set_index(10**9)
            assert last <= place.index < 10**9
            writer.kill()
            last = writer.rest()[-1]
            found = took_over.result(PATIENCE)
        assert last <= found <= last + 1


# What a person does


@pytest.mark.parametrize("index", [1, 2, 10**9, EXACT])
def test_setting_the_index_creates_a_sequence_or_raises_it(place: Place, index: int) -> None:
    assert place.opener().set_index(1).before is None
    assert place.opener().set_index(index).before == 1
    with place.opened() as store:
        assert store.read() == index
        assert store.advance(1, expected=index) == index + 1


def test_an_index_is_lowered_only_on_purpose(place: Place) -> None:
    with place.created(EXACT):
        pass
    with pytest.raises(LowerError, match=f"{EXACT:,}|{EXACT}"):
        place.opener().set_index(EXACT - 1)
    assert place.index == EXACT
    assert place.opener().set_index(8, lower=True).before == EXACT
    assert place.opener().set_index(8).before == 8
    with place.opened() as store:
        assert store.advance(1, expected=8) == 9
    assert place.opener().set_index(0, lower=True).before == 9
    assert place.index == 0


@pytest.mark.parametrize("index", [7, 1])
def test_setting_the_index_forgets_all_keys(place: Place, index: int) -> None:
    used, second, unused = key(), key(), key()
    with place.created() as store:
        assert step(store, used, second) == 2
    place.opener().set_index(index, lower=True)
    with place.opened() as store:
        assert outcomes(store, used, second, unused) == {used: None, second: None, unused: None}
        assert step(store, new := key(index)) == index + 1
        assert outcome(store, new) == index + 1


def test_a_description_has_the_index_and_no_warnings(place: Place) -> None:
    place.opener().create(3)
    with place.opened() as store:
        for index in (4, 5):
            store.advance(1)
            description = place.opener().describe()
            assert (description.index, description.problem) == (index, None)
            assert not description.warnings
            assert (description.beside is None) == (not store.exclusive)


def test_a_backup_is_a_database_at_the_index(place: Place, tmp_path: Path) -> None:
    target = tmp_path / "copies" / "copy.db"
    with place.created(3) as store:
        with pytest.raises(NoFolderError):
            place.opener().backup(target)
        target.parent.mkdir()
        for index in (4, 5):
            store.advance(1)
            # An older copy is replaced.
            assert place.opener().backup(target) == index
            assert [each.name for each in target.parent.iterdir()] == [target.name]
    with file_at(target).opened() as copy:
        assert copy.advance(1) == 6
    assert place.index == 5


def test_a_backup_replaces_nothing_but_a_copy(place: Place, tmp_path: Path) -> None:
    target = tmp_path / "letter.txt"
    target.write_text("Dear")
    place.opener().create(3)
    with pytest.raises(InTheWayError, match=target.name):
        place.opener().backup(target)
    assert target.read_text() == "Dear"
    target.unlink()
    with file_at(target).created(7):
        pass
    with pytest.raises(InTheWayError, match="is beside it"):
        place.opener().backup(target)
    assert file_at(target).index == 7
