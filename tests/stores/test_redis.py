"""What is particular to Redis: its settings, replicas, rights, Sentinels, and scripts."""

import json
import re
import socket
import socketserver
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Final

import pytest

from fibcore.problems import StoreProblem, StoreUnavailableError
from fibcore.stores import DurabilityWarning, Risk
from tests.conftest import Engines
from tests.support.engines import Redis
from tests.support.nodes import Nodes
from tests.support.proxy import Proxy
from tests.support.stores import Place, forget_keys, key, outcome, step
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.processes


def new(url: str) -> Place:
    return Place(url, f"test-{uuid.uuid4()}")


def warnings(url: str) -> tuple[DurabilityWarning, ...]:
    """What a store there warns of."""
    with new(url).created() as store:
        assert store.advance(1) == store.read() == 1
        return store.warnings


@pytest.fixture
def redis(engines: Engines) -> Iterator[Redis]:
    """A server whose settings a test may change."""
    engine = engines(Redis)
    before = dict(zip(*[iter(engine.cli("config", "get", "*").splitlines())] * 2, strict=False))
    yield engine
    for name in ("appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory-policy"):
        engine.cli("config", "set", name, before[name])
    for name in ("maxmemory", "min-replicas-to-write"):
        engine.cli("config", "set", name, "0")
    engine.cli("config", "set", "requirepass", "")
    engine.cli("acl", "deluser", "narrow")


def narrow(redis: Redis, *rights: str) -> str:
    """The URL of a user with these rights."""
    assert redis.cli("acl", "setuser", "narrow", "reset", "on", ">secret", "~*", *rights) == "OK"
    return redis.url.replace("//", "//narrow:secret@")


# Settings that may lose steps


@pytest.mark.parametrize(
    ("setting", "risk"),
    [
        ("appendonly=no", Risk.RESTART),
        ("appendfsync=everysec", Risk.SECONDS),
        ("appendfsync=no", Risk.POWER_CUT),
        ("no-appendfsync-on-rewrite=yes", Risk.POWER_CUT),
        ("maxmemory-policy=allkeys-lru", Risk.EVICTION),
    ],
)
def test_redis_that_may_lose_steps_is_reported(redis: Redis, setting: str, risk: Risk) -> None:
    redis.cli("config", "set", "maxmemory", "1gb")
    assert warnings(redis.url) == ()
    assert redis.cli("config", "set", *setting.split("=")) == "OK"
    (found,) = warnings(redis.url)
    assert found == DurabilityWarning(setting, risk)


def test_redis_that_hides_its_settings_is_reported(redis: Redis) -> None:
    (found,) = warnings(narrow(redis, "+@all", "-config"))
    assert found.risk is Risk.UNKNOWN


def test_the_log_and_health_warn_of_what_may_be_lost(redis: Redis, tmp_path: Path) -> None:
    redis.cli("config", "set", "appendfsync", "everysec")
    said = DurabilityWarning("appendfsync=everysec", Risk.SECONDS).explain(redis.url)
    with ExitStack() as stack:
        server = Nodes(redis, tmp_path, stack).start().wait_until_it_serves()
        answer = server.client.get("/health")
        assert answer.status == 200
        shown = said.replace(redis.url, "The store")
        assert json.loads(answer.body) == {"status": "healthy", "warnings": [shown]}
        assert said in server.log.text


def test_redis_waits_for_the_configured_number_of_replicas(redis: Redis) -> None:
    assert redis.cli("config", "set", "repl-diskless-sync-delay", "0") == "OK"
    with Redis(replicaof=f"127.0.0.1 {redis.port}") as replica:
        until(lambda: "master_link_status:up" in replica.cli("info", "replication"), "it follows")
        redis.cli("config", "set", "min-replicas-to-write", "1")
        until(lambda: "min_slaves_good_slaves:1" in redis.cli("info", "replication"), "it counts")
        with new(redis.url).created() as store:
            assert store.warnings == (DurabilityWarning("1 replicas", Risk.FAILOVER),)
            assert store.advance(1) == store.read() == 1
            reached: list[int] = []
            thread = threading.Thread(target=lambda: reached.append(store.advance(1)), daemon=True)
            with replica.hung():
                thread.start()
                until(lambda: "blocked_clients:1" in redis.cli("info", "clients"), "it waits")
                assert reached == []
            thread.join(PATIENCE)
            assert reached == [2]


# Rights and passwords


def test_a_password_is_never_printed(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    redis.cli("config", "set", "requirepass", "right")
    with pytest.raises(StoreUnavailableError, match="invalid username-password pair") as refused:
        new(redis.url.replace("//", "//:wrong@")).opener().create()
    assert "wrong" not in str(refused.value).replace("wrong number", "")
    with new(redis.url.replace("//", "//:right@")).created() as store:
        assert store.where == redis.url
    redis.cli("-a", "right", "config", "set", "requirepass", "")
    assert "right" not in caplog.text


def test_the_documented_rights_are_enough(redis: Redis) -> None:
    text = (Path(__file__).parents[2] / "docs/scale.md").read_text()
    (said,) = re.findall(r"in Redis (.*?) on the key", text, re.DOTALL)
    commands = {each.lower().replace(" ", "|") for each in re.findall("`([A-Z ]+)`", said)}
    assert len(commands) > 5
    # Of version 7.2.
    commands.discard("waitaof")
    near = new(redis.url)
    near.opener().create(0)
    url = narrow(redis, *(f"+{each}" for each in commands))
    with Place(url, near.sequence).opened() as store:
        forget_keys(store)
        assert step(store, used := key(store.read())) == store.read()
        assert outcome(store, used) == store.read()
        assert store.warnings == ()


WRITES: Final = (
    *("evalsha", "set", "incrby", "hset", "hget", "hdel", "hincrby", "zadd", "zscore"),
    *("zrem", "zremrangebyscore", "time"),
)


@pytest.mark.parametrize("command", WRITES)
def test_a_script_that_is_refused_half_way_has_changed_nothing(redis: Redis, command: str) -> None:
    near = new(redis.url)
    with near.created() as other:
        url = narrow(redis, "+@all")
        with Place(url, near.sequence).opened() as store:
            assert store.advance(1) == 1
            redis.cli("acl", "setuser", "narrow", f"-{command}")
            new_key = key(1)
            try:
                assert step(store, new_key) == 2
                assert outcome(other, new_key) == 2
            except StoreUnavailableError:
                assert other.read() == 1
                assert step(other, new_key) == 2


# The role


@pytest.mark.parametrize("call", ["read", "batch"])
def test_a_server_that_became_a_replica_is_not_used(call: str) -> None:
    """Its clients stay connected to it, and it accepts writes, which do not count."""
    with ExitStack() as stack:
        old = stack.enter_context(Redis(repl_diskless_sync_delay="0"))
        new_one = stack.enter_context(Redis(replicaof=f"127.0.0.1 {old.port}"))
        proxy = stack.enter_context(Proxy(old.port))
        Place(old.url).opener().create(5)
        far = stack.enter_context(Place(old.url_at(proxy.port)).opened())
        assert far.advance(1) == 6

        def has_followed() -> bool:
            offsets = re.findall(r"_repl_offset:(\d+)", old.cli("info", "replication"))
            return f"slave_repl_offset:{offsets[0]}" in new_one.cli("info", "replication")

        until(has_followed, "the new one has it")
        assert new_one.cli("replicaof", "no", "one") == "OK"
        assert old.cli("config", "set", "replica-read-only", "no") == "OK"
        # Port 1 has no server: a replica that has not reached its primary keeps its old data.
        assert old.cli("replicaof", "127.0.0.1", "1") == "OK"
        proxy.lead_to(new_one.port)
        with Place(new_one.url).opened() as near:
            assert near.advance(1) == 7
            if call == "read":
                assert far.read() == 7
            else:
                with suppress(StoreUnavailableError):
                    far.advance(1)
                assert far.advance(1) == near.read()
                assert near.read() in (8, 9)


# What is not Redis


def test_silent_sentinels_make_the_store_unavailable() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as nobody:
        port = nobody.getsockname()[1]
    with pytest.raises(StoreUnavailableError, match="none of the Sentinels") as unavailable:
        Place(f"redis+sentinel://:secret@127.0.0.1:{port}/main").opener().open()
    assert "secret" not in str(unavailable.value)


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
        b":1\r\n",
        b"+OK\r\n",
        b"*2\r\n$7\r\nversion\r\n*0\r\n",
    ],
)
def test_a_server_that_is_not_redis_is_unavailable_without_a_traceback(
    says: bytes, scheme: str
) -> None:
    handler = type("Says", (NoRedis,), {"says": says})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            with pytest.raises(StoreProblem):
                Place(scheme.format(f"127.0.0.1:{server.server_address[1]}")).opener().open()
        finally:
            server.shutdown()
            thread.join(PATIENCE)
