"""Settings of an engine that may lose steps: detected, logged, and reported on /health."""

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from fibcore.problems import EngineUnavailableError
from fibcore.stores import DurabilityWarning, Risk
from fibcore.stores.engine import EngineStore
from tests.conftest import Engines
from tests.support.engine_stores import opener_at
from tests.support.engines import Postgresql, Redis
from tests.support.nodes import Nodes
from tests.support.waiting import PATIENCE, until


def opened(url: str) -> EngineStore:
    """A store on a new sequence."""
    opener = opener_at(url, f"test-{uuid.uuid4()}")
    assert opener.create(0) is None
    return opener.open()


def warnings(url: str) -> tuple[DurabilityWarning, ...]:
    with closing(opened(url)) as store:
        assert store.advance(1) == store.read() == 1
        return store.warnings


@pytest.fixture
def postgresql(engines: Engines) -> Postgresql:
    return engines(Postgresql)


@contextmanager
def altered(engine: Postgresql, setting: str, value: str) -> Iterator[None]:
    """Change a setting of the whole server meanwhile."""

    def reload(value: str) -> None:
        engine.sql("SELECT pg_reload_conf()")
        until(lambda: engine.sql(f"SHOW {setting}") == value, f"{setting} is {value}")

    before = engine.sql(f"SHOW {setting}")
    engine.sql(f"ALTER SYSTEM SET {setting} = {value}")
    try:
        reload(value)
        yield
    finally:
        engine.sql(f"ALTER SYSTEM RESET {setting}")
        reload(before)


@pytest.mark.parametrize(
    ("setting", "risk"),
    [("fsync", Risk.RUIN), ("full_page_writes", Risk.RUIN), ("synchronous_commit", Risk.CRASH)],
)
def test_postgresql_that_does_not_sync_is_reported(
    postgresql: Postgresql, setting: str, risk: Risk
) -> None:
    assert warnings(postgresql.url) == ()
    with altered(postgresql, setting, "off"):
        assert warnings(postgresql.url) == (DurabilityWarning(f"{setting}=off", risk),)


def test_settings_of_a_role_or_a_url_count_too(postgresql: Postgresql) -> None:
    url = f"{postgresql.url}?options=-csynchronous_commit%3Doff"
    assert warnings(url) == (DurabilityWarning("synchronous_commit=off", Risk.CRASH),)


@pytest.fixture
def redis(engines: Engines) -> Iterator[Redis]:
    engine = engines(Redis)
    before = dict(zip(*[iter(engine.cli("config", "get", "*").splitlines())] * 2, strict=False))
    yield engine
    for name in ("appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory-policy"):
        engine.cli("config", "set", name, before[name])
    for name in ("maxmemory", "min-replicas-to-write"):
        engine.cli("config", "set", name, "0")
    engine.cli("config", "set", "requirepass", "")


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
    assert warnings(redis.url) == (DurabilityWarning(setting, risk),)


def test_redis_that_hides_its_settings_is_reported(redis: Redis) -> None:
    redis.cli("acl", "setuser", "narrow", "on", ">secret", "~*", "+@all", "-config")
    try:
        url = redis.url.replace("//", "//narrow:secret@")
        assert warnings(url) == (
            DurabilityWarning("CONFIG and INFO are not allowed", Risk.UNKNOWN),
        )
    finally:
        redis.cli("acl", "deluser", "narrow")


def test_redis_waits_for_the_configured_number_of_replicas(redis: Redis) -> None:
    # Any warning delays the reply for seconds: more of them might follow.
    assert redis.cli("config", "set", "repl-diskless-sync-delay", "0") == "OK"
    with Redis(replicaof=f"127.0.0.1 {redis.port}") as replica:
        until(lambda: "master_link_status:up" in replica.cli("info", "replication"), "it follows")
        redis.cli("config", "set", "min-replicas-to-write", "1")
        until(lambda: "min_slaves_good_slaves:1" in redis.cli("info", "replication"), "it counts")
        with closing(opened(redis.url)) as store:
            assert store.warnings == (DurabilityWarning("1 replicas", Risk.FAILOVER),)
            assert store.advance(1) == store.read() == 1
            reached: list[int] = []
            thread = threading.Thread(target=lambda: reached.append(store.advance(1)))
            with replica.hung():
                thread.start()
                until(lambda: "blocked_clients:1" in redis.cli("info", "clients"), "it waits")
                assert reached == []
            thread.join(PATIENCE)
            assert reached == [2]


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
        assert "the last second or two" in said


# Passwords


def test_a_password_is_never_printed(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    redis.cli("config", "set", "requirepass", "right")
    url = redis.url.replace("//", "//:wrong@")
    with pytest.raises(EngineUnavailableError) as refused:
        opened(url)
    assert "wrong" not in str(refused.value).replace("wrong number", "")
    assert "invalid username-password pair" in str(refused.value)
    with closing(opened(redis.url.replace("//", "//:right@"))) as store:
        assert store.where == redis.url
    redis.cli("-a", "right", "config", "set", "requirepass", "")
    assert "right" not in caplog.text
