"""The store in Redis: what a server of a later version than Debian's keeps, and its URLs."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from typing import NamedTuple

import pytest

from fibcore.appliance.settings import Settings
from fibcore.problems import EngineUnavailableError, UrlInvalidError
from fibcore.stores import DurabilityWarning, Risk
from fibcore.stores import engine as module
from fibcore.stores.engine import EngineStore
from fibcore.stores.redis import RedisOpener
from fibcore.stores.sentinel import Sentinels
from fibcore.stores.urls import shown
from tests.support.engine_stores import opener_at
from tests.support.engines import Redis
from tests.support.fake_redis import FakeRedis
from tests.support.proxy import Proxy
from tests.support.waiting import PATIENCE, until


def opened(url: str) -> EngineStore:
    return opener_at(url).open()


@pytest.mark.parametrize(
    ("version", "fsync", "warnings"),
    [
        ("7.0.15", "everysec", (DurabilityWarning("appendfsync=everysec", Risk.SECONDS),)),
        ("7.4.1", "everysec", ()),
        # It syncs nothing, so that WAITAOF would wait for ever.
        ("7.4.1", "no", (DurabilityWarning("appendfsync=no", Risk.POWER_CUT),)),
        ("7.4.1", "always", ()),
    ],
)
def test_a_server_that_syncs_every_second_is_waited_for(
    version: str, fsync: str, warnings: tuple[DurabilityWarning, ...]
) -> None:
    """It is, where it can be waited for."""
    settings = {"appendonly": "yes", "appendfsync": fsync}
    with FakeRedis(version, settings) as redis, closing(opened(redis.url)) as store:
        assert store.warnings == warnings
        redis.syncs = not warnings and fsync == "everysec"
        assert store.advance(1) == store.read() == 1
        # Who only looks has no record to confirm a read with.
        assert opener_at(redis.url).describe().index == 1


@pytest.fixture
def lazy(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRedis]:
    """A server that has not synced when it is asked for it, soon after each other time."""
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.01))
    with FakeRedis("7.4.1", {"appendonly": "yes", "appendfsync": "everysec"}) as redis:
        yield redis


@pytest.mark.proves(
    "shared", "what is not kept yet is not answered (`WAITAOF`, on a server of the tests' own)"
)
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


@pytest.mark.proves("shared", "what an engine may lose is found out while nodes are connected, too")
def test_what_is_set_while_nodes_are_connected_is_waited_for() -> None:
    """A node looks at the settings every second."""
    settings = {"appendonly": "yes", "appendfsync": "always"}
    with FakeRedis("7.4.1", settings) as redis, closing(opened(redis.url)) as store:
        redis.syncs = False
        assert store.advance(1) == 1
        settings["appendfsync"] = "everysec"

        def waits() -> bool:
            try:
                return store.read() != 1
            except EngineUnavailableError as unavailable:
                return "WAITAOF" in unavailable.reason

        until(waits, "a read waits for the disk")
        settings["appendfsync"] = "no"
        redis.syncs = True
        said = [DurabilityWarning("appendfsync=no", Risk.POWER_CUT)]
        until(lambda: store.read() == 1 and list(store.warnings) == said, "it is found out")


@pytest.mark.proves(
    "shared",
    "what was done and could not be waited for, as the server has become a replica, is asked about",
)
def test_what_could_not_be_waited_for_is_asked_about(lazy: FakeRedis) -> None:
    with closing(opened(lazy.url)) as store:
        assert store.advance(1) == 1
        lazy.demoted.set()
        assert store.advance(2) == store.read() == lazy.index == 3
        assert not lazy.demoted.is_set()


@pytest.mark.proves("shared", "what is not kept yet…", control="not waited for")
def test_without_the_wait_what_is_not_kept_would_be_answered(
    lazy: FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fibcore.stores.redis_durability.WAITAOF", (99, 0))
    with closing(opened(lazy.url)) as store:
        lazy.syncs = False
        assert store.advance(1) == 1


# The role


class Moved(NamedTuple):
    """The new primary has been stepped since the old one became its replica."""

    far: EngineStore
    """Connected to the old one; its next connection is to the new one."""
    near: EngineStore
    """Connected to the new one."""


@pytest.fixture(params=["yes", "no"], ids=["read-only", "writable"])
def moved(request: pytest.FixtureRequest, processes: None, patient: None) -> Iterator[Moved]:  # noqa: ARG001
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
        read_only = "yes" if request.param == "yes" else "no"
        assert old.cli("config", "set", "replica-read-only", read_only) == "OK"
        # Port 1 has no server: a replica that has not reached its primary keeps what is old.
        leader = 1 if request.param == "apart" else new.port
        assert old.cli("replicaof", "127.0.0.1", str(leader)) == "OK"
        proxy.lead_to(new.port)
        near = stack.enter_context(closing(opened(new.url)))
        assert near.advance(1) == 7
        yield Moved(far, near)


@pytest.mark.proves(
    "shared",
    "a server that is made a replica keeps its clients: it shows them nothing old, and takes no "
    "batch (Redis)",
)
def test_a_server_that_was_made_a_replica_shows_nothing_old(moved: Moved) -> None:
    """Its clients stay connected to it."""
    assert moved.far.read() == 7


@pytest.mark.proves("shared", "a server that is made…")
def test_a_server_that_was_made_a_replica_takes_no_batch(moved: Moved) -> None:
    """One that may be written to takes it, and that counts for nothing."""
    with suppress(EngineUnavailableError):
        moved.far.advance(1)
    assert moved.far.advance(1) == moved.near.read()
    assert moved.near.read() in (8, 9)


@pytest.mark.proves(
    "shared", "a server that is made…", control="its role not asked with each reply"
)
@pytest.mark.parametrize("moved", ["apart"], indirect=True)
def test_without_its_role_a_replica_would_show_what_is_old(
    moved: Moved, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("fibcore.stores.redis.PRIMARY", b"slave")
        # The settings that are read each second would show it, too.
        patched.setattr(EngineStore, "_has_changed", lambda *_: False)
        assert moved.far.read() == 6
        assert moved.far.advance(1) == 7
    assert moved.near.read() == 7


# TLS


class TlsRedis(Redis):
    """One that shows a certificate of its own."""

    programs = (*Redis.programs, "openssl")

    def __init__(self) -> None:
        super().__init__()
        self.certificate, key = self.folder / "certificate", self.folder / "key"
        name = ("-subj", "/CN=redis", "-addext", "subjectAltName=IP:127.0.0.1")
        files = ("-keyout", key, "-out", self.certificate)
        self.run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *name, *files)
        self.settings = {
            "port": "0",
            "tls-port": str(self.port),
            "tls-auth-clients": "no",
            "tls-cert-file": str(self.certificate),
            "tls-key-file": str(key),
        }

    def cli(self, *command: str) -> str:
        return super().cli("--tls", "--cacert", str(self.certificate), *command)


@pytest.mark.proves("shared", "over TLS a server shows…")
@pytest.mark.usefixtures("patient")
def test_over_tls_a_server_shows_a_certificate_that_is_trusted(
    processes: None,  # noqa: ARG001
) -> None:
    with TlsRedis() as redis:
        url = redis.url.replace("redis:", "rediss:")
        trusting = f"{url}?ssl_ca_certs={redis.certificate}"
        assert RedisOpener(trusting, "fibonacci").create(5) is None
        with closing(opened(trusting)) as store:
            assert store.advance(1) == 6
            link = store._link
            for _ in range(5):
                assert store.read() == 6
            assert store._link is link
            assert store.where == url
        with pytest.raises(EngineUnavailableError, match="self-signed certificate"):
            opened(url)


# Sentinel


def test_a_url_of_sentinels_names_them_and_the_primary() -> None:
    url = "redis+sentinel://u:p%40@one,[::1]:2/main/3?socket_keepalive=1"
    sentinels = Sentinels(url)
    assert sentinels.members == [("one", 26379), ("::1", 2)]
    assert sentinels.url("h:6379") == "redis://u:p%40@h:6379/3?socket_keepalive=1"
    assert shown(url) == "redis+sentinel://one,[::1]:2/main/3"


@pytest.mark.parametrize(
    ("url", "finding"),
    [
        ("redis+sentinel://h", "the name by which the Sentinels know the primary"),
        ("redis+sentinel:///main", "it names no host"),
        ("redis+sentinel://u:secret@h,/main", "it names no host"),
        ("redis+sentinel://u:secret@h/main?db=x", "Invalid value for 'db'"),
        ("redis+sentinel://u:secret@h/main?foo=1", "its options may be .*; it has foo"),
        ("redis://u:secret@h?foo=1", "its options may be .*; it has foo"),
        (
            "redis://u:secret@h?decode_responses=true",
            "its options may be .*; it has decode_responses",
        ),
        ("redis://u:secret@h?ssl_ca_certs=FILE", "which only rediss:// uses"),
        ("rediss://u:secret@h?ssl_cert_reqs=maybe", "Invalid SSL Certificate"),
    ],
)
def test_a_url_that_is_none_is_rejected(url: str, finding: str) -> None:
    with pytest.raises(UrlInvalidError, match=finding) as invalid:
        Settings.from_environ({"FIB_STORE": url}).opener()
    assert "secret" not in str(invalid.value)


def test_sentinels_that_do_not_answer_are_trouble_that_passes() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as nobody:
        port = nobody.getsockname()[1]
    with pytest.raises(EngineUnavailableError, match="none of the Sentinels") as unavailable:
        opened(f"redis+sentinel://:secret@127.0.0.1:{port}/main")
    assert unavailable.value.reason == (
        f"none of the Sentinels 127.0.0.1:{port} knows a primary named 'main'"
    )


class NoRedis(socketserver.BaseRequestHandler):
    """What answers everything alike, as often as anybody could ask."""

    says = b""

    def handle(self) -> None:
        while self.request.recv(2**16):
            self.request.sendall(20 * self.says)


@pytest.mark.proves("shared", "what is no Redis, or…")
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
def test_what_is_no_redis_is_unavailable_and_not_a_traceback(
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
