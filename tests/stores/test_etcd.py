"""The store in etcd: three members, one of which may fail, and its URLs."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from fibcore.command import cli
from fibcore.problems import EngineUnavailableError, NoRightError
from fibcore.stores import DurabilityWarning, Risk
from fibcore.stores.engine import EngineStore
from fibcore.stores.etcd import EtcdLink, EtcdOpener
from fibcore.stores.etcd_connection import Connection
from tests.support.engine_stores import opener_at
from tests.support.engines import Etcd, EtcdCluster
from tests.support.waiting import until

PROMPT_SECONDS = 30.0
"""Much longer than an election, and the timeout of a member."""


@pytest.fixture(scope="module")
def cluster(processes: None) -> Iterator[EtcdCluster]:  # noqa: ARG001
    with EtcdCluster(*["127.0.0.1"] * 3) as cluster:
        yield cluster


@pytest.fixture
def store(cluster: EtcdCluster) -> Iterator[EngineStore]:
    opener = opener_at(cluster.url)
    opener.create(0)
    with closing(opener.open()) as store:
        yield store


def steps_on(store: EngineStore) -> None:
    """It steps and reads within the time for finding another member."""
    began = time.monotonic()
    before: list[int] = []

    def is_read() -> bool:
        with suppress(EngineUnavailableError):
            before.append(store.read())
        return bool(before)

    until(is_read, "another member is found", PROMPT_SECONDS)
    # An interrupted batch is settled, and applied by then.
    index = store.advance(1)
    assert index == before[0] + 1
    assert store.read() == index
    assert time.monotonic() - began < PROMPT_SECONDS


@contextmanager
def dead(member: Etcd) -> Iterator[None]:
    member.kill()
    try:
        yield
    finally:
        member.start()


@pytest.mark.parametrize("fails", [dead, Etcd.hung])
def test_a_failing_member_is_skipped(
    cluster: EtcdCluster,
    store: EngineStore,
    fails: Callable[[Etcd], AbstractContextManager[None]],
) -> None:
    steps_on(store)
    # The first member is tried first.
    with fails(cluster.members[0]):
        steps_on(store)
    steps_on(store)


def test_a_member_without_a_quorum_answers_nothing(
    cluster: EtcdCluster, store: EngineStore
) -> None:
    alone, *others = cluster.members
    index = store.read()
    with others[0].hung(), others[1].hung():
        near = EtcdOpener(f"etcd://127.0.0.1:{alone.port}", "fibonacci")
        with pytest.raises(EngineUnavailableError):
            near.open()
    steps_on(store)
    assert store.read() == index + 1


def test_any_member_serves_a_command(
    cluster: EtcdCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIB_STORE", cluster.url)
    monkeypatch.setenv("FIB_SEQUENCE", "by-any")
    with cluster.members[0].hung():
        assert cli.main(["set-index", "7"]) == cli.main(["show", "--digits"]) == 0
    assert capsys.readouterr().out.endswith("\n13\n")


@pytest.mark.parametrize(
    ("version", "is_safe"),
    [
        ("3.4.0", False),
        ("3.4.21", False),
        ("3.4.22", True),
        ("3.5.0-rc.1", False),
        ("3.5.5", False),
        ("3.5.6", True),
        ("3.6.0", True),
        ("4.0.0", True),
    ],
)
def test_a_version_that_can_lose_acknowledged_steps_is_reported(
    cluster: EtcdCluster, version: str, is_safe: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = Connection.exchange

    def of_version(self: Connection, method: str, path: str, *more: Any) -> dict[str, Any]:
        reply = exchange(self, method, path, *more)
        return {**reply, "etcdserver": version} if path == "/version" else reply

    monkeypatch.setattr(Connection, "exchange", of_version)
    opener = opener_at(cluster.url)
    opener.create(0)
    with closing(opener.open()) as store:
        warned = (DurabilityWarning(f"etcd {version}", Risk.DIVERGENCE),)
        assert store.warnings == opener.describe().warnings == (() if is_safe else warned)


class NoEtcd(BaseHTTPRequestHandler):
    """A server that reports a version, and the same JSON for everything else."""

    version = b'{"etcdserver": "3.5.0"}'
    says = b"{}"

    def do_GET(self) -> None:
        self._answer(self.version)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(self.says)

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("version", b"{}"),
        ("version", b"[]"),
        ("version", b'{"etcdserver": "new"}'),
        ("says", b"{}"),
        ("says", b"[]"),
        ("says", b'{"responses": [1, 2]}'),
        ("says", b'{"responses": []}'),
    ],
)
def test_a_server_that_is_not_etcd_is_unavailable_without_a_traceback(
    what: str, text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NoEtcd, what, text)
    with HTTPServer(("127.0.0.1", 0), NoEtcd) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        engine = EtcdOpener(f"etcd://127.0.0.1:{server.server_port}", "fibonacci")
        try:
            with pytest.raises(
                EngineUnavailableError, match="its reply is not that of an etcd server"
            ):
                engine.open()
            with pytest.raises(
                EngineUnavailableError, match="its reply is not that of an etcd server"
            ):
                engine.create(0)
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.usefixtures("patient")
def test_a_commit_past_the_quota_is_known_to_be_applied(
    cluster: EtcdCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of two at the bound etcd may also apply the second, and still report a lack of space.
    engine = EtcdOpener(cluster.url, "full")
    assert engine.create(0) is None
    ask = EtcdLink._ask

    def say_that_it_is_full(link: EtcdLink, what: str, question: Mapping[str, Any]) -> Any:
        said = ask(link, what, question)
        if "compare" in question:
            raise EngineUnavailableError("etcd", "mvcc: database space exceeded")
        return said

    with closing(engine.open()) as store:
        with monkeypatch.context() as patched:
            patched.setattr(EtcdLink, "_ask", say_that_it_is_full)
            assert store.advance(2) == 2
        assert store.read() == 2


@pytest.mark.usefixtures("patient")
def test_users_and_permissions_are_those_of_etcd(processes: None) -> None:  # noqa: ARG001
    with Etcd() as etcd:
        engine = EtcdOpener(etcd.url, "fibonacci")
        assert engine.create(3) is None
        for command in (
            "user add root:secret",
            "user grant-role root root",
            "role add fib",
            "role grant-permission fib --prefix=true readwrite fibcore/fibonacci/",
            "user add fib:s%cret",
            "user grant-role fib fib",
            "auth enable",
        ):
            etcd.ctl(*command.split())
        url = f"etcd://fib:s%25cret@127.0.0.1:{etcd.port}"
        with closing(EtcdOpener(url, "fibonacci").open()) as store:
            assert store.advance(1) == store.read() == 4
            assert store.where == etcd.url
        with pytest.raises(NoRightError):
            EtcdOpener(url, "another").create(0)
        with pytest.raises(EngineUnavailableError) as unavailable:
            engine.create(3)
        assert "user name is empty" in str(unavailable.value)
        with pytest.raises(EngineUnavailableError) as unavailable:
            EtcdOpener(url.replace("s%25cret", "wrong"), "fibonacci").create(0)
        assert "wrong" not in str(unavailable.value)


def test_a_url_has_members_a_user_and_a_prefix() -> None:
    engine = EtcdOpener("etcd://u:p%40@one,two:1,[::1]:2/a/b", "fibonacci")
    assert engine.members == [("one", 2379), ("two", 1), ("::1", 2)]
    assert engine.user == {"name": "u", "password": "p@"}
    assert engine.prefix == "a/b"
    assert engine.where == "etcd://one,two:1,[::1]:2/a/b"
