"""What is particular to etcd: three members, of which one may fail, its users, and its errors."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from fibcore.command.cli import main
from fibcore.problems import StoreUnavailableError
from fibcore.stores import Store
from tests.support.engines import Etcd, EtcdCluster
from tests.support.stores import Place
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.processes

PROMPT_SECONDS = 30.0
"""Much longer than an election, and the timeout of a member."""


@pytest.fixture(scope="module")
def cluster(processes: None) -> Iterator[EtcdCluster]:  # noqa: ARG001
    with EtcdCluster(*["127.0.0.1"] * 3) as cluster:
        yield cluster


@pytest.fixture
def store(cluster: EtcdCluster) -> Iterator[Store]:
    place = Place(cluster.url, f"test-{uuid.uuid4()}")
    with place.created() as store:
        yield store


def steps_on(store: Store) -> None:
    """It steps and reads within the time for finding another member."""
    began = time.monotonic()
    before: list[int] = []

    def is_read() -> bool:
        with suppress(StoreUnavailableError):
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
    store: Store,
    fails: Callable[[Etcd], AbstractContextManager[None]],
) -> None:
    steps_on(store)
    # The first member is tried first.
    with fails(cluster.members[0]):
        steps_on(store)
    steps_on(store)


def test_a_member_without_a_quorum_answers_nothing(cluster: EtcdCluster, store: Store) -> None:
    alone, *others = cluster.members
    index = store.read()
    with others[0].hung(), others[1].hung(), pytest.raises(StoreUnavailableError):
        Place(alone.url).opener().open()
    steps_on(store)
    assert store.read() == index + 1


def test_any_member_serves_a_command(
    cluster: EtcdCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIB_STORE", cluster.url)
    monkeypatch.setenv("FIB_SEQUENCE", "by-any")
    with cluster.members[0].hung():
        assert main(["set-index", "7"]) == main(["show", "--digits"]) == 0
    assert capsys.readouterr().out.endswith("\n13\n")


def test_a_batch_that_etcd_makes_after_its_reply_is_made_once(cluster: EtcdCluster) -> None:
    """Without a quorum it answers that the request timed out, and may still make the batch."""
    leader = cluster.leader()
    place = Place(leader.url, f"test-{uuid.uuid4()}")
    reached: list[int] = []
    with place.created() as store:
        assert store.advance(1) == 1
        others = [each for each in cluster.members if each is not leader]
        thread = threading.Thread(target=lambda: reached.append(store.advance(2)), daemon=True)
        with others[0].hung(), others[1].hung():
            thread.start()
            until(lambda: store.doubt is not None, "it is in doubt")
            assert reached == []
        thread.join(PATIENCE)
        assert reached == [3]
        assert store.read() == 3


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
    ("version", "says"),
    [
        (b"{}", b"{}"),
        (b"[]", b"{}"),
        (b'{"etcdserver": "new"}', b"{}"),
        (NoEtcd.version, b"[]"),
        (NoEtcd.version, b'{"responses": [1, 2]}'),
        (NoEtcd.version, b'{"responses": []}'),
    ],
)
def test_a_server_that_is_not_etcd_is_unavailable_without_a_traceback(
    version: bytes, says: bytes
) -> None:
    handler = type("Says", (NoEtcd,), {"version": version, "says": says})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        place = Place(f"etcd://127.0.0.1:{server.server_port}")
        try:
            for call in (place.opener().open, place.opener().create):
                with pytest.raises(StoreUnavailableError, match="not that of an etcd server"):
                    call()
        finally:
            server.shutdown()
            thread.join()


def test_users_and_permissions_are_those_of_etcd() -> None:
    with Etcd() as etcd:
        assert Place(etcd.url).opener().create(3) is None
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
        with closing(Place(url).opener().open()) as store:
            assert store.advance(1) == store.read() == 4
            assert store.where == etcd.url
        with pytest.raises(StoreUnavailableError):
            Place(url, "another").opener().create(0)
        with pytest.raises(StoreUnavailableError, match="user name is empty"):
            Place(etcd.url).opener().create(3)
        with pytest.raises(StoreUnavailableError) as unavailable:
            Place(url.replace("s%25cret", "wrong")).opener().create(0)
        assert "wrong" not in str(unavailable.value)


def test_a_prefix_keeps_sequences_apart(cluster: EtcdCluster) -> None:
    for place in (Place(f"{cluster.url}/a"), Place(f"{cluster.url}/a/b"), Place(cluster.url)):
        with place.created(7) as store:
            assert store.advance(1) == 8
            assert store.where == place.url
