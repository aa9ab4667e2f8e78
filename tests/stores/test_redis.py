"""The store in Redis: what it waits for, the role of its server, and its URLs."""

import math
import re
import socket
import socketserver
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from fibcore.problems import EngineUnavailableError, StoreProblem
from fibcore.stores import DurabilityWarning, Risk, redis
from fibcore.stores import engine as module
from fibcore.stores.engine import EngineStore
from fibcore.stores.redis import RedisOpener
from fibcore.stores.redis_durability import Durability, judge
from fibcore.stores.sentinel import Sentinels
from fibcore.stores.urls import shown
from tests.support.engine_stores import opener_at
from tests.support.engines import Redis
from tests.support.keys import key, step
from tests.support.proxy import Proxy
from tests.support.waiting import PATIENCE, until


def opened(url: str) -> EngineStore:
    return opener_at(url).open()


@pytest.mark.parametrize("replicas", [0, 1])
@pytest.mark.parametrize(
    ("version", "fsync", "risk", "waits"),
    [
        ("7.0.15", "everysec", Risk.SECONDS, False),
        ("7.2.0", "everysec", None, True),
        # It syncs nothing, so WAITAOF would wait forever.
        ("7.4.1", "no", Risk.POWER_CUT, False),
        ("7.4.1", "always", None, False),
    ],
)
def test_what_to_wait_for_depends_on_redis_version_and_settings(
    version: str, fsync: str, risk: Risk | None, waits: bool, replicas: int
) -> None:
    info = f"redis_version:{version}\r\n".encode(), b"connected_slaves:0\r\n"
    config = [b"appendonly", b"yes", b"appendfsync", fsync.encode()]
    found = judge([*info, config, [], [], [b"min-replicas-to-write", b"%d" % replicas]])
    assert found.warnings == ((DurabilityWarning(f"appendfsync={fsync}", risk),) if risk else ())
    names = [each[:-1] for each in found.confirmations]
    assert names == ([("WAITAOF", 1, replicas)] if waits else [("WAIT", replicas)][:replicas])


# Permissions

RIGHTS: Final = (
    *("client|setname", "select", "role", "info", "config|get", "script|load", "evalsha"),
    *("multi", "exec", "hget", "hset", "hdel", "hscan", "wait"),
)
"""The commands that a node needs (docs/scale.md), except WAITAOF of version 7.2."""


def rights_are_enough(server: Redis, commands: Sequence[str]) -> bool:
    """Whether a node can do everything that nodes do, without a missing permission."""
    allowed = " ".join(f"+{each}" for each in commands)
    server.cli(*f"acl setuser narrow reset on >secret ~fibcore:{{rights}} {allowed}".split())
    far = opener_at(f"redis://narrow:secret@{server.host}:{server.port}/1", "rights")
    far.max_keys = 1
    with closing(far.open()) as store:
        index = store.read()
        for number in range(2):
            assert step(store, key(number, since=index + number)) == index + number + 1
        assert store._link is not None
        records, _ = store._link.records("")
        store._link.remove(records)
        return not store.warnings


@pytest.mark.usefixtures("patient", "processes")
def test_the_documented_permissions_are_sufficient_and_necessary(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_KEYED", 1)
    # As with min-replicas-to-write, although there is no replica here.
    waits = (("WAIT", 0, 10),)
    monkeypatch.setattr(redis, "judge", lambda replies: Durability(judge(replies)[0], waits))
    text = (Path(__file__).parents[2] / "docs/scale.md").read_text()
    (said,) = re.findall(r"in Redis (.*?) on the key", text, re.DOTALL)
    documented = {each.lower().replace(" ", "|") for each in re.findall("`([A-Z ]+)`", said)}
    assert documented == {*RIGHTS, "waitaof"}
    with Redis() as server:
        assert opener_at(f"{server.url}/1", "rights").create(0) is None
        assert rights_are_enough(server, RIGHTS)
        for each in RIGHTS:
            others = [other for other in RIGHTS if other != each]
            if each in ("info", "config|get"):
                assert not rights_are_enough(server, others)
            else:
                with pytest.raises(StoreProblem):
                    rights_are_enough(server, others)


# The role


class Moved(NamedTuple):
    """The new primary has been stepped since the old one became its replica."""

    far: EngineStore
    """Connected to the old one; its next connection is to the new one."""
    near: EngineStore
    """Connected to the new one."""


@pytest.fixture
def moved(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    processes: None,  # noqa: ARG001
    patient: None,  # noqa: ARG001
) -> Iterator[Moved]:
    # The settings that are polled each second would show it, too.
    monkeypatch.setattr(module, "CHECK_SECONDS", math.inf)
    with ExitStack() as stack:
        old = stack.enter_context(Redis(repl_diskless_sync_delay="0"))
        new = stack.enter_context(Redis(replicaof=f"127.0.0.1 {old.port}"))
        proxy = stack.enter_context(Proxy(old.port))
        assert RedisOpener(old.url, "fibonacci").create(5) is None
        far = stack.enter_context(closing(opened(old.url_at(proxy.port))))
        assert far.advance(1) == 6
        key = "fibcore:{fibonacci}"
        until(lambda: new.cli("hget", key, "index") == "6", "the new one has it")
        assert new.cli("replicaof", "no", "one") == "OK"
        # It accepts writes, which do not count.
        assert old.cli("config", "set", "replica-read-only", "no") == "OK"
        # Port 1 has no server: a replica that has not reached its primary keeps its old data.
        leader = 1 if getattr(request, "param", "") == "apart" else new.port
        assert old.cli("replicaof", "127.0.0.1", str(leader)) == "OK"
        proxy.lead_to(new.port)
        near = stack.enter_context(closing(opened(new.url)))
        assert near.advance(1) == 7
        yield Moved(far, near)


@pytest.mark.parametrize("reads", [True, False], ids=["read", "batch"])
def test_a_server_demoted_to_a_replica_is_not_used(moved: Moved, reads: bool) -> None:
    """Its clients stay connected to it."""
    if reads:
        assert moved.far.read() == 7
    else:
        with suppress(EngineUnavailableError):
            moved.far.advance(1)
        assert moved.far.advance(1) == moved.near.read()
        assert moved.near.read() in (8, 9)


@pytest.mark.parametrize("moved", ["apart"], indirect=True)
def test_without_the_role_check_a_replica_would_show_a_stale_index(
    moved: Moved, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("fibcore.stores.redis.PRIMARY", b"slave")
        assert moved.far.read() == 6
        assert moved.far.advance(1) == 7
    assert moved.near.read() == 7


# Sentinel


def test_a_url_of_sentinels_has_them_and_the_primary() -> None:
    url = "redis+sentinel://u:p%40@one,[::1]:2/main/3?socket_keepalive=1"
    sentinels = Sentinels(url)
    assert sentinels.members == [("one", 26379), ("::1", 2)]
    assert sentinels.url("h:6379") == "redis://u:p%40@h:6379/3?socket_keepalive=1"
    assert shown(url) == "redis+sentinel://one,[::1]:2/main/3"


def test_silent_sentinels_make_the_store_unavailable() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as nobody:
        port = nobody.getsockname()[1]
    with pytest.raises(EngineUnavailableError, match="none of the Sentinels") as unavailable:
        opened(f"redis+sentinel://:secret@127.0.0.1:{port}/main")
    assert unavailable.value.reason == (
        f"none of the Sentinels 127.0.0.1:{port} knows a primary named 'main'"
    )


class NoRedis(socketserver.BaseRequestHandler):
    """A server that answers everything alike."""

    says = b""

    def handle(self) -> None:
        while self.request.recv(2**16):
            self.request.sendall(20 * self.says)


@pytest.mark.parametrize("scheme", ["redis://{}", "redis+sentinel://{}/main"])
@pytest.mark.parametrize(
    "says",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b":none\r\n",
        b":1\r\n",
        b"+OK\r\n",
        b"*1\r\n$4\r\nname\r\n",
        b"*2\r\n$7\r\nversion\r\n$1\r\n7\r\n",
        b"*2\r\n$7\r\nversion\r\n*0\r\n",
    ],
)
def test_a_server_that_is_not_redis_is_unavailable_without_a_traceback(
    says: bytes, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NoRedis, "says", says)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), NoRedis) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            with pytest.raises(EngineUnavailableError):
                opened(scheme.format(f"127.0.0.1:{server.server_address[1]}"))
        finally:
            server.shutdown()
            thread.join(PATIENCE)
