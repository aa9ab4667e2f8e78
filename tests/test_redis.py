"""The store in Redis: what a server of a later version than Debian's keeps, and its URLs."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from fibcore.settings import Settings
from fibcore.stores import EngineUnavailableError, Risk, Weakness
from fibcore.stores import engine as module
from fibcore.stores.engine import EngineOpener, EngineStore
from fibcore.stores.opening import UrlInvalidError, opener_of
from fibcore.stores.redis import RedisLink
from fibcore.stores.sentinel import Sentinels
from fibcore.stores.urls import shown
from tests.support.fake_redis import FakeRedis
from tests.support.waiting import PATIENCE


def opened(url: str) -> EngineStore:
    opener = opener_of(Settings.from_environ({"FIB_STORE": url}))
    assert isinstance(opener, EngineOpener)
    return opener.open()


@pytest.mark.parametrize(
    ("version", "fsync", "weaknesses"),
    [
        ("7.0.15", "everysec", (Weakness("appendfsync=everysec", Risk.SECONDS),)),
        ("7.4.1", "everysec", ()),
        # It syncs nothing, so that WAITAOF would wait for ever.
        ("7.4.1", "no", (Weakness("appendfsync=no", Risk.POWER_CUT),)),
        ("7.4.1", "always", ()),
    ],
)
def test_a_server_that_syncs_every_second_is_waited_for(
    version: str, fsync: str, weaknesses: tuple[Weakness, ...]
) -> None:
    """It is, where it can be waited for."""
    settings = {"appendonly": "yes", "appendfsync": fsync}
    with FakeRedis(version, settings) as redis, closing(opened(redis.url)) as store:
        assert store.weaknesses == weaknesses
        redis.syncs = not weaknesses and fsync == "everysec"
        assert store.advance(1) == store.read() == 1


@pytest.fixture
def lazy(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRedis]:
    """A server that has not synced when it is asked for it, soon after each other time."""
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.01))
    with FakeRedis("7.4.1", {"appendonly": "yes", "appendfsync": "everysec"}) as redis:
        yield redis


def test_what_is_not_kept_yet_is_not_answered_and_happens_once(lazy: FakeRedis) -> None:
    with closing(opened(lazy.url)) as store:
        assert store.advance(1) == 1
        lazy.syncs = False
        reached: list[int] = []
        thread = threading.Thread(target=lambda: reached.append(store.advance(2)))
        thread.start()
        for _ in range(3):
            assert lazy.asked.acquire(timeout=PATIENCE)
        assert (reached, lazy.index) == ([], 3)
        lazy.syncs = True
        thread.join(PATIENCE)
        assert (reached, lazy.index) == ([3], 3)


def test_what_could_not_be_waited_for_is_asked_about(lazy: FakeRedis) -> None:
    with closing(opened(lazy.url)) as store:
        assert store.advance(1) == 1
        lazy.demoted.set()
        assert store.advance(2) == store.read() == lazy.index == 3
        assert not lazy.demoted.is_set()


def test_without_the_wait_what_is_not_kept_would_be_answered(
    lazy: FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RedisLink, "_has_waitaof", lambda _: False)
    with closing(opened(lazy.url)) as store:
        lazy.syncs = False
        assert store.advance(1) == 1


# Sentinel


def test_a_url_of_sentinels_names_them_and_the_primary() -> None:
    url = "redis+sentinel://u:p%40@one,[::1]:2/main/3?socket_keepalive=1"
    sentinels = Sentinels(url)
    asked = [each.connection_pool.connection_kwargs for each in sentinels._sentinels.sentinels]
    assert [(each["host"], each["port"]) for each in asked] == [("one", 26379), ("::1", 2)]
    assert sentinels.url("h:6379") == "redis://u:p%40@h:6379/3?socket_keepalive=1"
    assert shown(url) == "redis+sentinel://one,[::1]:2/main/3"


@pytest.mark.parametrize(
    ("url", "finding"),
    [
        ("redis+sentinel://h", "by which name the Sentinels know the primary"),
        ("redis+sentinel:///main", "it names no host"),
        ("redis+sentinel://u:secret@h,/main", "it names no host"),
        ("redis+sentinel://u:secret@h/main?db=x", "Invalid value for 'db'"),
    ],
)
def test_a_url_of_sentinels_that_is_none_is_rejected(url: str, finding: str) -> None:
    with pytest.raises(UrlInvalidError, match=finding) as invalid:
        opener_of(Settings.from_environ({"FIB_STORE": url}))
    assert "secret" not in str(invalid.value)


def test_sentinels_that_do_not_answer_are_trouble_that_passes() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as nobody:
        port = nobody.getsockname()[1]
    with pytest.raises(EngineUnavailableError, match="No master found for 'main'"):
        opened(f"redis+sentinel://:secret@127.0.0.1:{port}/main")
