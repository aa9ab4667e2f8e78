"""A batch was sent, and the engine does not report its outcome.

Each test uses a real server: the batch is committed, its reply is lost, and by the time of the
retry a permission, a table, a user, or the record itself is gone.
"""

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Final

import pytest

from fibcore.problems import BatchUnknowableError, NoRightError
from fibcore.stores import engine as engine_store
from fibcore.stores import redis as redis_store
from fibcore.stores.engine import EngineOpener, EngineStore
from fibcore.stores.etcd import EtcdLink
from fibcore.stores.link import Batch
from fibcore.stores.postgresql import PostgresqlLink
from fibcore.stores.redis import RedisLink
from tests.conftest import Engines
from tests.faults.server_variants import takes_a_refusal_for_an_answer
from tests.support.engine_stores import opener_at
from tests.support.engines import Engine, Etcd, Postgresql, Redis
from tests.support.keys import found, key, step
from tests.support.proxy import Proxy
from tests.support.records import all_records, remove_records
from tests.support.waiting import PATIENCE, until

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("patient")]


@dataclass(frozen=True)
class Place:
    """A sequence, and a user with permission to step it."""

    sequence: str
    near: EngineOpener
    """It is created, at 0; this user may do everything."""
    url: Callable[[int], str]
    """For the user of the test, at a port."""
    run: Callable[[str], object]
    """A command as the administrator."""
    port: int

    @property
    def index(self) -> int:
        with closing(self.near.open()) as store:
            return store.read()


@contextmanager
def postgresql(engine: Engine) -> Iterator[Place]:
    assert isinstance(engine, Postgresql)
    sequence = f"test-{uuid.uuid4()}"
    near = opener_at(engine.url, sequence)
    assert near.create(0) is None
    engine.sql("DROP OWNED BY narrow; DROP ROLE narrow") if engine.sql(
        "SELECT 1 FROM pg_roles WHERE rolname = 'narrow'"
    ) else None
    engine.sql("CREATE ROLE narrow LOGIN")
    engine.sql("GRANT ALL ON fibcore_sequence, fibcore_node, fibcore_key TO narrow")
    yield Place(
        sequence,
        near,
        lambda port: engine.url_at(port).replace("fibcore@", "narrow@"),
        engine.sql,
        engine.port,
    )


@contextmanager
def redis(engine: Engine) -> Iterator[Place]:
    assert isinstance(engine, Redis)
    sequence = f"test-{uuid.uuid4()}"
    near = opener_at(engine.url, sequence)
    assert near.create(0) is None
    engine.cli("acl", "setuser", "narrow", "reset", "on", ">secret", "~*", "+@all")

    def run(command: str) -> None:
        for each in command.split("; "):
            assert engine.cli(*each.format(key=f"fibcore:{{{sequence}}}").split()) == "OK"

    try:
        yield Place(
            sequence,
            near,
            lambda port: f"redis://narrow:secret@{engine.host}:{port}",
            run,
            engine.port,
        )
    finally:
        engine.cli("acl", "deluser", "narrow")


@pytest.fixture(scope="module")
def guarded(processes: None) -> Iterator[Etcd]:  # noqa: ARG001
    """An etcd that requires a password."""
    with Etcd() as alone:
        for command in ("user add root:secret", "user grant-role root root", "auth enable"):
            alone.ctl(*command.split())
        yield alone


@contextmanager
def etcd(engine: Engine) -> Iterator[Place]:
    assert isinstance(engine, Etcd)
    sequence = f"test-{uuid.uuid4()}"

    def run(command: str) -> None:
        for each in command.split("; "):
            engine.ctl("--user", "root:secret", *each.format(sequence=sequence).split())

    near = opener_at(f"etcd://root:secret@127.0.0.1:{engine.port}", sequence)
    assert near.create(0) is None
    run(
        "role add narrow; "
        "role grant-permission narrow --prefix=true readwrite fibcore/{sequence}/; "
        "user add narrow:secret; user grant-role narrow narrow"
    )
    try:
        url = "etcd://narrow:secret@127.0.0.1:{}"
        yield Place(sequence, near, url.format, run, engine.port)
    finally:
        run("user delete narrow; role delete narrow")


KINDS: Final[dict[str, tuple[type[Engine], Callable[[Engine], AbstractContextManager[Place]]]]] = {
    "postgresql": (Postgresql, postgresql),
    "redis": (Redis, redis),
    "etcd": (Etcd, etcd),
}


@pytest.fixture
def place(engines: Engines, request: pytest.FixtureRequest) -> Iterator[Place]:
    kind, made = KINDS[request.param]
    engine = request.getfixturevalue("guarded") if kind is Etcd else engines(kind)
    with made(engine) as place:
        yield place


REFUSALS: Final = {
    "postgresql": {
        "a right": (
            "REVOKE UPDATE ON fibcore_node FROM narrow",
            "permission denied",
            "GRANT UPDATE ON fibcore_node TO narrow",
        ),
        "a table": (
            "ALTER TABLE fibcore_node RENAME TO away",
            "there is no sequence",
            "ALTER TABLE away RENAME TO fibcore_node",
        ),
        "a role": (
            "ALTER ROLE narrow NOLOGIN",
            "not permitted to log in",
            "ALTER ROLE narrow LOGIN",
        ),
    },
    "redis": {
        "a right": ("acl setuser narrow -evalsha", "evalsha", "acl setuser narrow +evalsha"),
        "the key": ("acl setuser narrow resetkeys", "no permissions", "acl setuser narrow ~*"),
        "a user": ("acl setuser narrow off", "invalid username", "acl setuser narrow on"),
        "a sequence": ("rename {key} away", "there is no sequence", "rename away {key}"),
        "a type": ("rename {key} away; set {key} x", "is not ours", "rename away {key}"),
    },
    "etcd": {
        "a right": (
            "user revoke-role narrow narrow",
            "permission denied",
            "user grant-role narrow narrow",
        ),
        "a user": (
            "user delete narrow",
            "authentication failed",
            "user add narrow:secret; user grant-role narrow narrow",
        ),
    },
}
"""What is revoked after a batch was applied, the resulting error, and how it is restored."""

CASES: Final = [
    pytest.param(engine, *commands, id=f"{engine}: {name}")
    for engine, each in REFUSALS.items()
    for name, commands in each.items()
]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry at once."""
    monkeypatch.setattr(engine_store, "PAUSES", (0.0, 0.01))


class Doubt:
    """A node whose batch of two is applied, but whose reply is lost."""

    def __init__(self, place: Place, stack: ExitStack) -> None:
        self.place = place
        self.proxy = stack.enter_context(Proxy(place.port))
        self.store: EngineStore = opener_at(place.url(self.proxy.port), place.sequence).open()
        self.outcomes: list[int | Exception] = []
        assert self.store.advance(1) == 1
        self.proxy.hold("replies")
        self._thread = threading.Thread(target=self._step)
        self._thread.start()
        until(lambda: place.index == 3, "the batch is committed")

    def _step(self) -> None:
        try:
            self.outcomes.append(self.store.advance(2))
        except Exception as error:
            self.outcomes.append(error)

    def ask_again(self) -> None:
        """Lose the reply."""
        self.proxy.cut()
        self.proxy.heal()

    def end(self) -> int | Exception:
        self._thread.join(PATIENCE)
        (outcome,) = self.outcomes
        return outcome


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize(("place", "refuse", "reason", "allow"), CASES, indirect=["place"])
def test_a_refusal_after_a_batch_was_sent_leaves_it_in_doubt(
    place: Place, refuse: str, reason: str, allow: str, stack: ExitStack
) -> None:
    it = Doubt(place, stack)
    place.run(refuse)
    it.ask_again()
    until(lambda: bool(it.outcomes) or reason in str(it.store.doubt), "the question is refused")
    assert it.outcomes == []
    place.run(allow)
    assert it.end() == 3
    assert it.store.doubt is None
    assert it.store.advance(1) == place.index == 4
    it.store.close()


@pytest.mark.parametrize(
    ("place", "refuse", "reason", "allow"),
    [each for each in CASES if each.id == "redis: a right"],
    indirect=["place"],
)
def test_without_that_rule_committed_steps_would_be_reported_as_refused(
    place: Place,
    refuse: str,
    reason: str,
    allow: str,
    stack: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(EngineStore, "_done", EngineStore._done)
    takes_a_refusal_for_an_answer()
    it = Doubt(place, stack)
    place.run(refuse)
    it.ask_again()
    outcome = it.end()
    assert isinstance(outcome, NoRightError)
    assert reason in str(outcome)
    place.run(allow)
    assert place.index == 3
    it.store.close()


@pytest.mark.parametrize("place", KINDS, indirect=True)
def test_the_outcome_of_a_batch_whose_record_is_gone_is_unknown(
    place: Place, stack: ExitStack
) -> None:
    it = Doubt(place, stack)
    with closing(place.near.open()) as store:
        remove_records(store, all_records(store))
        # The process that removed them has lost its record, too, and creates another one.
        assert store.advance(1) == 4
    it.ask_again()
    assert isinstance(it.end(), BatchUnknowableError)
    assert place.index == 4
    it.store.close()


# Batches that arrive after their process has exited


def late(place: Place, stack: ExitStack) -> int:
    """A batch is sent and delayed, and sent again; its process exits; then the first copy arrives.

    Returns:
        The index then; without the late copy it is 2.
    """
    proxy = stack.enter_context(Proxy(place.port))
    store = opener_at(place.url(proxy.port), place.sequence).open()
    assert store.advance(1) == 1
    proxy.hold("requests", new=False)
    assert store.advance(1) == 2
    store.close()
    proxy.heal()
    until(lambda: not proxy.connections, "what was held up has arrived, and the engine has read it")
    return place.index


@pytest.fixture
def _leaving_connections(monkeypatch: pytest.MonkeyPatch, impatient: None) -> None:  # noqa: ARG001
    # PostgreSQL ends the old connection, where it can.
    monkeypatch.setattr("fibcore.stores.postgresql.END_OTHERS", "SELECT $1::text")


@pytest.mark.usefixtures("_leaving_connections")
@pytest.mark.parametrize("place", KINDS, indirect=True)
def test_a_batch_that_arrives_after_its_process_exited_is_ignored(
    place: Place, stack: ExitStack
) -> None:
    assert late(place, stack) == 2


@pytest.mark.usefixtures("_leaving_connections")
@pytest.mark.parametrize("place", ["redis"], indirect=True)
def test_without_a_record_a_late_batch_would_be_applied_twice(
    place: Place, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = redis_store.COMMIT.replace("return {'gone'}", "record = '0 0'")
    assert script != redis_store.COMMIT
    monkeypatch.setattr(redis_store, "COMMIT", script)
    assert late(place, stack) == 3


# Rejected in doubt


def rejected(place: Place, stack: ExitStack, why: str) -> tuple[int, int]:
    """A batch is delayed, and settled: its key is rejected. Then the batch arrives.

    Args:
        why: "ahead": the sequence reaches the index in the key before the batch arrives.
            "dropped": other nodes drop keys before the batch is settled.

    Returns:
        The index before it arrives, and after.
    """
    proxy = stack.enter_context(Proxy(place.port))
    other = stack.enter_context(closing(place.near.open()))
    far = opener_at(place.url(proxy.port), place.sequence)
    store = stack.enter_context(closing(far.open()))
    for number in range(1, 4):
        assert step(other, key(number)) == number
    assert store.advance(1) == 4
    # PostgreSQL prepares a statement when it is first used.
    assert found(store, key(1)) == {key(1): 1}
    asked = key(9, since=5 if why == "ahead" else 0)
    if why == "dropped":
        assert other._link is not None
        far.sleep = lambda _: other._link.drop_keys(1)  # type: ignore[union-attr]
    proxy.hold("requests", new=False)
    assert found(store, asked) == {asked: None}
    if why == "ahead":
        assert other.advance(1) == 5
    before = place.index
    proxy.heal()
    until(
        lambda: proxy.connections == 1, "what was held up has arrived, and the engine has read it"
    )
    return before, place.index


@pytest.mark.usefixtures("_leaving_connections")
@pytest.mark.parametrize(
    ("place", "why"),
    [
        *((kind, "ahead") for kind in KINDS),
        ("postgresql", "dropped"),
        ("etcd", "dropped"),
    ],
    indirect=["place"],
)
def test_a_batch_that_was_rejected_in_doubt_is_never_applied(
    place: Place, why: str, stack: ExitStack
) -> None:
    before, after = rejected(place, stack, why)
    assert after == before


@pytest.mark.usefixtures("_leaving_connections")
@pytest.mark.parametrize(
    ("place", "why"),
    [("redis", "ahead"), ("postgresql", "ahead")],
    indirect=["place"],
)
def test_a_rejected_batch_whose_number_is_not_used_up_would_step(
    place: Place, why: str, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for link in (EtcdLink, PostgresqlLink, RedisLink):
        monkeypatch.setattr(link, "settle", lambda *_: 0)
    # As if the number stayed the same until there was an outcome.
    monkeypatch.setattr(Batch, "_replace", lambda batch, **_: batch)
    before, after = rejected(place, stack, why)
    assert after == before + 1


# Refused before it is sent, or in the reply to the only copy


READ_ONLY: Final = (
    "role revoke-permission narrow --prefix=true fibcore/{sequence}/; "
    "role grant-permission narrow --prefix=true read fibcore/{sequence}/"
)
RIGHTS: Final = [
    ("postgresql", "REVOKE UPDATE ON fibcore_sequence FROM narrow"),
    ("postgresql", "REVOKE INSERT ON fibcore_node FROM narrow"),
    ("redis", "acl setuser narrow -hset"),
    ("redis", "acl setuser narrow -hdel"),
    ("etcd", READ_ONLY),
]


@pytest.mark.parametrize(("place", "refuse"), RIGHTS, indirect=["place"])
def test_a_missing_permission_is_noticed_when_connecting(place: Place, refuse: str) -> None:
    place.run(refuse)
    far = opener_at(place.url(place.port), place.sequence)
    with pytest.raises(NoRightError):
        far.open()


@pytest.mark.parametrize("right", ["hset", "hget", "evalsha", "time", "hincrby"])
@pytest.mark.parametrize("place", ["redis"], indirect=True)
def test_a_script_that_stops_half_way_has_changed_nothing(place: Place, right: str) -> None:
    with closing(opener_at(place.url(place.port), place.sequence).open()) as store:
        place.run(f"acl setuser narrow -{right}")
        if right in ("time", "hincrby"):
            assert store.advance(1) == 1
        else:
            with pytest.raises(NoRightError):
                store.advance(1)
            assert place.index == 0


@pytest.mark.parametrize("is_tried_first", [True, False], ids=["tried first", "control"])
@pytest.mark.parametrize("place", ["redis"], indirect=True)
def test_a_script_that_cannot_drop_keys_has_changed_nothing(
    place: Place, is_tried_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: without checking permissions first, it stops after its writes."""
    monkeypatch.setattr(engine_store, "MAX_KEYED", 1)
    if not is_tried_first:
        script = redis_store.COMMIT.replace("redis.call('HDEL', key, '')", "")
        assert script != redis_store.COMMIT
        monkeypatch.setattr(redis_store, "COMMIT", script)
    made = opener_at(place.url(place.port), place.sequence)
    made.max_keys = 1
    with closing(made.open()) as store:
        first, second = key(1), key(2)
        assert store.advance(1, keys={first: 1}) == 1
        place.run("acl setuser narrow -hdel")
        with pytest.raises(NoRightError):
            store.advance(1, keys={second: 1})
        assert place.index == (1 if is_tried_first else 2)


@pytest.mark.parametrize("place", ["redis"], indirect=True)
def test_with_two_writes_a_script_would_stop_between_them(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = "redis.call('HSET', key, 'index', reached, "
    script = redis_store.COMMIT.replace(
        write, f"redis.call('HINCRBY', key, 'index', steps) {write}"
    )
    assert script != redis_store.COMMIT
    monkeypatch.setattr(redis_store, "COMMIT", script)
    with closing(opener_at(place.url(place.port), place.sequence).open()) as store:
        place.run("acl setuser narrow -hset")
        with pytest.raises(NoRightError):
            store.advance(1)
        assert place.index == 1


@pytest.mark.parametrize(
    ("index", "reached"), [(0, 7), (10**15 - 3, 10**15 + 4), (2**62, 2**62 + 7)]
)
@pytest.mark.parametrize("place", ["redis"], indirect=True)
def test_additions_to_an_index_are_exact(place: Place, index: int, reached: int) -> None:
    place.near.set_index(index, lower=True)
    with closing(place.near.open()) as store:
        assert store.advance(7, limit=reached) == store.read() == reached
