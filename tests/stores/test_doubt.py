"""A batch is sent to a real engine, and no reply says what became of it: it still happens once.

A proxy loses or delays what the two send each other, and the engine refuses what it is asked then,
goes away, or is moved by a person.
"""

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Final, Literal

import pytest

from fibcore.problems import BatchUnknowableError, StoreUnavailableError
from fibcore.stores import IndexConflictError, Keys, Store
from tests.conftest import Engines
from tests.support.engines import Engine, Etcd, Postgresql, Redis
from tests.support.proxy import Proxy
from tests.support.stores import Place, forget_keys, key, outcome, outcomes
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.processes

KINDS: Final = (Postgresql, Redis, Etcd)


@dataclass(frozen=True)
class Apart:
    """A sequence in an engine, at 0, and a proxy on the way to it."""

    engine: Engine
    proxy: Proxy
    near: Place
    """Without the proxy."""
    far: Place
    """Through it."""

    @property
    def index(self) -> int:
        return self.near.index

    @contextmanager
    def stepped(self) -> Iterator[Store]:
        """An open store behind the proxy, which has made the first step."""
        with closing(self.far.opener().open()) as store:
            assert store.advance(1) == 1
            yield store


@contextmanager
def apart(engine: Engine, admin: str, user: str) -> Iterator[Apart]:
    """A new sequence, which an administrator creates and a user steps."""
    near = Place(engine.url.replace("127.0.0.1", f"{admin}127.0.0.1"), f"test-{uuid.uuid4()}")
    assert near.opener().create(0) is None
    with Proxy(engine.port) as proxy:
        far = near.url.replace(admin, user) if admin else engine.url_at(proxy.port)
        far = far.replace(f":{engine.port}", f":{proxy.port}")
        yield Apart(engine, proxy, near, replace(near, url=far))


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__.lower())
def it(engines: Engines, request: pytest.FixtureRequest) -> Iterator[Apart]:
    with apart(engines(request.param), "", "") as it:
        yield it


class Pending:
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], int]) -> None:
        self._call = call
        self._outcomes: list[int | Exception] = []
        # A store in doubt asks for as long as it takes, also when a test has failed.
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcomes.append(self._call())
        except Exception as error:
            self._outcomes.append(error)

    @property
    def has_ended(self) -> bool:
        return bool(self._outcomes)

    def outcome(self) -> int | Exception:
        self._thread.join(PATIENCE)
        (outcome,) = self._outcomes
        return outcome


def in_doubt(it: Apart, store: Store) -> Pending:
    """A batch of two that is committed, from index 1, and whose reply is held up."""
    it.proxy.hold("replies")
    pending = Pending(lambda: store.advance(2))
    until(lambda: it.index == 3 or pending.has_ended, "the batch is committed")
    if pending.has_ended:
        # Something else was asked first, and got no reply.
        assert isinstance(pending.outcome(), StoreUnavailableError)
        it.proxy.heal()
        until(lambda: Pending(store.read).outcome() == 1, "it is connected again")
        return in_doubt(it, store)
    return pending


def advance(it: Apart, store: Store, steps: int, keys: Keys | None = None) -> bool:
    """Make a batch; whether it was made, which must be what is said of it."""
    before = it.index
    try:
        reached = store.advance(steps, keys=keys or {})
    except StoreUnavailableError:
        assert it.index == before
        return False
    assert reached == it.index == before + steps
    return True


# Lost replies


def test_a_batch_whose_reply_is_lost_is_made_once(it: Apart) -> None:
    with it.stepped() as store:
        for steps in (1, 2, 3, 1, 70):
            it.proxy.lose_a_reply()
            advance(it, store, steps)
            assert it.proxy.lost.acquire(timeout=PATIENCE)
        assert advance(it, store, 1)


def test_the_keys_of_a_batch_whose_reply_is_lost_are_found(it: Apart) -> None:
    with it.stepped() as store, closing(it.near.opener().open()) as other:
        first, second = key(1), key(1)
        it.proxy.lose_a_reply()
        while not advance(it, store, 3, {first: 1, second: 3}):
            it.proxy.lose_a_reply()
        for node in (other, store):
            assert outcomes(node, first, second) == {first: 2, second: 4}
        assert it.index == 4


def test_whichever_replies_are_lost_each_index_is_made_once(it: Apart) -> None:
    with it.stepped() as store:
        it.proxy.lose_each(17)
        for steps in range(1, 60):
            advance(it, store, steps % 3 + 1)
        it.proxy.heal()
        assert it.proxy.lost.acquire(timeout=0)
        assert advance(it, store, 1)


def test_a_connection_that_stops_answering_is_left_for_another(it: Apart) -> None:
    with it.stepped() as store:
        it.proxy.abandon()
        while not advance(it, store, 2):
            pass
        it.proxy.abandon()
        until(lambda: Pending(store.read).outcome() == 3, "it is read on another")


def test_a_reply_that_trickles_is_not_waited_for(it: Apart) -> None:
    with it.stepped() as store:
        it.proxy.trickle()
        with pytest.raises(StoreUnavailableError):
            store.read()
        it.proxy.heal()
        assert store.read() == 1


# Late copies


def arrived(it: Apart) -> None:
    """Deliver what is held up, of a store that is closed; the engine has read it."""
    it.proxy.heal()
    until(lambda: not it.proxy.connections, "it has arrived")


@pytest.mark.parametrize("are_keys_forgotten", [False, True], ids=["", "keys forgotten"])
def test_a_late_copy_of_a_batch_does_nothing(it: Apart, are_keys_forgotten: bool) -> None:
    """It was settled as not made, and sent again."""
    with it.stepped() as store, closing(it.near.opener().open()) as other:
        it.proxy.hold("requests", new=False)
        used = key(1)
        assert advance(it, store, 2, {used: 1})
        store.close()
        if are_keys_forgotten:
            forget_keys(other)
        before = it.index
        arrived(it)
        assert it.index == before
        assert outcome(other, used) == (None if are_keys_forgotten else 2)


@pytest.mark.parametrize("condition", ["a key ahead", "an index ahead"])
def test_a_late_copy_of_a_rejected_batch_does_nothing(it: Apart, condition: str) -> None:
    """The sequence reaches the index that it required before it arrives."""
    with it.stepped() as store, closing(it.near.opener().open()) as other:
        it.proxy.hold("requests", new=False)
        if condition == "a key ahead":
            assert outcome(store, key(3)) is None
        else:
            with pytest.raises(IndexConflictError):
                store.advance(1, expected=3)
        store.close()
        assert other.advance(2) == 3
        arrived(it)
        assert it.index == 3


# An engine that is away, or was moved


def test_an_engine_that_is_away_makes_no_step(it: Apart) -> None:
    with it.stepped() as store:
        it.proxy.cut()
        for call in (store.read, lambda: store.advance(2), it.far.opener().open):
            with pytest.raises(StoreUnavailableError):
                call()
        it.proxy.heal()
        assert store.read() == it.index == 1
        assert store.advance(2) == it.index == 3


def test_a_batch_in_doubt_is_found_in_an_engine_that_was_killed(it: Apart) -> None:
    with it.stepped() as store:
        pending = in_doubt(it, store)
        it.engine.kill()
        it.proxy.cut()
        until(lambda: store.doubt is not None or pending.has_ended, "it is in doubt")
        it.engine.start()
        assert not pending.has_ended
        it.proxy.heal()
        assert pending.outcome() == 3
        assert store.advance(1) == it.index == 4


def test_a_sequence_lowered_under_a_batch_in_doubt_is_not_moved_by_it(it: Apart) -> None:
    """The process answers what it finds, or exits without an answer."""
    with it.stepped() as store:
        pending = in_doubt(it, store)
        assert it.near.opener().set_index(0, lower=True).before == 3
        it.proxy.cut()
        it.proxy.heal()
        found = pending.outcome()
        assert found == 3 or isinstance(found, BatchUnknowableError)
        assert it.index == 0


# Refusals

Order = Callable[[str], object]
"""Run commands as the administrator."""


@dataclass(frozen=True)
class Narrow:
    """A user who may step the sequence, until an administrator says otherwise."""

    it: Apart
    order: Order


@contextmanager
def postgresql(engine: Postgresql) -> Iterator[Narrow]:
    with apart(engine, "", "") as it:
        engine.sql("CREATE ROLE narrow LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO narrow")
        far = replace(it.far, url=it.far.url.replace("fibcore@", "narrow@"))
        try:
            yield Narrow(replace(it, far=far), engine.sql)
        finally:
            engine.sql("DROP OWNED BY narrow; DROP ROLE narrow")


@contextmanager
def redis(engine: Redis) -> Iterator[Narrow]:
    def order(commands: str) -> None:
        for each in commands.split("; "):
            assert engine.cli(*each.split()) == "OK"

    with apart(engine, "", "") as it:
        order("acl setuser narrow reset on >secret ~* +@all")
        far = replace(it.far, url=it.far.url.replace("//", "//narrow:secret@"))
        try:
            yield Narrow(replace(it, far=far), order)
        finally:
            engine.cli("acl", "deluser", "narrow")


@pytest.fixture(scope="module")
def guarded(processes: None) -> Iterator[Etcd]:  # noqa: ARG001
    """An etcd that requires a password."""
    with Etcd() as engine:
        for command in ("user add root:secret", "user grant-role root root", "auth enable"):
            engine.ctl(*command.split())
        yield engine


@contextmanager
def etcd(engine: Etcd) -> Iterator[Narrow]:
    with apart(engine, "root:secret@", "narrow:secret@") as it:

        def order(commands: str) -> None:
            for each in commands.format(keys=f"fibcore/{it.near.sequence}/").split("; "):
                engine.ctl("--user", "root:secret", *each.split())

        order(
            "role add narrow; role grant-permission narrow --prefix=true readwrite {keys}; "
            "user add narrow:secret; user grant-role narrow narrow"
        )
        try:
            yield Narrow(it, order)
        finally:
            order("user delete narrow; role delete narrow")


@pytest.fixture
def narrow(engines: Engines, request: pytest.FixtureRequest) -> Iterator[Narrow]:
    kind: Literal["postgresql", "redis", "etcd"] = request.param
    if kind == "postgresql":
        made = postgresql(engines(Postgresql))
    elif kind == "redis":
        made = redis(engines(Redis))
    else:
        made = etcd(request.getfixturevalue("guarded"))
    with made as found:
        yield found


ROLE: Final = "ALTER ROLE narrow"
READS: Final = "default_transaction_read_only"
SCHEMA: Final = "ALTER SCHEMA"
ALL: Final = "ALL TABLES IN SCHEMA public"
READ_ONLY: Final = (
    "role revoke-permission narrow --prefix=true {keys}; "
    "role grant-permission narrow --prefix=true read {keys}"
)
REFUSALS: Final = [
    ("postgresql", "rights", f"REVOKE ALL ON {ALL} FROM narrow", f"GRANT ALL ON {ALL} TO narrow"),
    (
        "postgresql",
        "updates",
        f"REVOKE UPDATE ON {ALL} FROM narrow",
        f"GRANT ALL ON {ALL} TO narrow",
    ),
    ("postgresql", "the login", f"{ROLE} NOLOGIN", f"{ROLE} LOGIN"),
    ("postgresql", "connections", f"{ROLE} CONNECTION LIMIT 0", f"{ROLE} CONNECTION LIMIT -1"),
    ("postgresql", "writes", f"{ROLE} SET {READS} = on", f"{ROLE} RESET {READS}"),
    (
        "postgresql",
        "the tables",
        f"{SCHEMA} public RENAME TO away",
        f"{SCHEMA} away RENAME TO public",
    ),
    ("redis", "scripts", "acl setuser narrow -evalsha", "acl setuser narrow +evalsha"),
    ("redis", "rights", "acl setuser narrow resetkeys", "acl setuser narrow ~*"),
    ("redis", "the login", "acl setuser narrow off", "acl setuser narrow on"),
    ("redis", "memory", "config set maxmemory 1", "config set maxmemory 0"),
    ("redis", "writes", "replicaof 127.0.0.1 1", "replicaof no one"),
    ("redis", "the tables", "swapdb 0 9", "swapdb 0 9"),
    ("etcd", "rights", "user revoke-role narrow narrow", "user grant-role narrow narrow"),
    (
        *("etcd", "the login", "user delete narrow"),
        "user add narrow:secret; user grant-role narrow narrow",
    ),
]
"""What is taken after a batch was made, how, and how it is given back."""


@pytest.mark.parametrize(
    ("narrow", "what", "take", "give"),
    [pytest.param(*each, id=f"{each[0]}: {each[1]}") for each in REFUSALS],
    indirect=["narrow"],
)
def test_a_refusal_is_no_proof_that_a_batch_was_not_made(
    narrow: Narrow, what: str, take: str, give: str
) -> None:
    it = narrow.it
    with it.stepped() as store:
        pending = in_doubt(it, store)
        narrow.order(take)
        try:
            before = it.proxy.accepted
            it.proxy.cut()
            it.proxy.heal()
            until(lambda: pending.has_ended or it.proxy.accepted > before + 2, "it was refused")
            assert not pending.has_ended or what == "the tables"
        finally:
            narrow.order(give)
        found = pending.outcome()
        if what == "the tables" and isinstance(found, BatchUnknowableError):
            return
        assert found == 3
        assert store.advance(1) == it.index == 4


@pytest.mark.parametrize(
    ("narrow", "take"),
    [
        ("postgresql", f"REVOKE UPDATE ON {ALL} FROM narrow"),
        ("postgresql", f"REVOKE INSERT ON {ALL} FROM narrow"),
        ("redis", "acl setuser narrow -hset"),
        ("etcd", READ_ONLY),
    ],
    indirect=["narrow"],
)
def test_a_missing_right_is_noticed_before_a_step(narrow: Narrow, take: str) -> None:
    narrow.order(take)
    with pytest.raises(StoreUnavailableError):
        narrow.it.far.opener().open()
    assert narrow.it.index == 0
