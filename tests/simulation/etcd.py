"""A simulated etcd cluster: its JSON gateway over keys with revisions.

The majority's state is shared; each member applies it a little later. The client is the product's,
with the standard library's ``http.client`` over a session in place of a socket.
"""

import base64
import http.client
import io
import json
from typing import Any, Final, NamedTuple

from tests.simulation.engine import EngineServer, LinkFaults, Session
from tests.simulation.network import Network
from tests.simulation.process import calling_process

TIMED_OUT: Final = (503, {"error": "etcdserver: request timed out", "code": 14})
NO_LEADER: Final = (503, {"error": "etcdserver: no leader", "code": 14})
NO_SPACE: Final = (429, {"error": "etcdserver: mvcc: database space exceeded", "code": 8})
NO_RIGHT: Final = (403, {"error": "etcdserver: permission denied", "code": 7})


class Value(NamedTuple):
    """The value of a key."""

    value: str
    """In base64, as in JSON."""
    revision: int


class Etcd:
    """The cluster, with the state that its members have agreed on.

    Args:
        network: the network of its clients and members.
        link_faults: faults of its sessions.
        count: number of members.
    """

    def __init__(self, network: Network, link_faults: LinkFaults, count: int = 3) -> None:
        self.network = network
        self.world = network.world
        self.revision = 1
        self._recorded_revision = 0
        self.keys: dict[str, Value] = {}
        self.members = [
            Member(network, f"etcd{number}", link_faults, self) for number in range(count)
        ]
        self.is_full = False
        """Whether the quota is exhausted: writes are rejected."""
        self.overflows = False
        """Whether the next rejected write is applied anyway (quotaApplierV3 in etcd's apply.go)."""
        self.allowed = True
        """Whether the user may read and write."""
        self._history: list[tuple[float, dict[str, Value]]] = []
        """The keys after each change, and when."""
        self.leaderless_until = 0.0
        """The end of an election, during which nothing is agreed on."""

    def apply_locally(self, request: dict[str, Any], lag: float) -> tuple[int, dict[str, Any]]:
        """Execute a request on the state of a member that is ``lag`` seconds behind."""
        now, self.keys = self.keys, self._keys_at(self.world.now - lag)
        try:
            return self.apply("kv/txn", request)
        finally:
            self.keys = now

    def _keys_at(self, when: float) -> dict[str, Value]:
        return next((keys for began, keys in reversed(self._history) if began <= when), {})

    def has_quorum(self, member: "Member") -> bool:
        """Whether ``member`` reaches a majority, including itself."""
        reached = [
            each
            for each in self.members
            if each is member
            or (
                each.is_up
                and not each.is_stopped
                and not self.network.is_cut(member.name, each.name)
                and not self.network.is_cut(each.name, member.name)
            )
        ]
        return 2 * len(reached) > len(self.members)

    def put(self, key: str, text: str) -> None:
        """Write a key, as an operator does."""
        self.revision += 1
        self.keys[encoded(key)] = Value(encoded(text), self.revision)

    def text(self, key: str) -> str | None:
        """Return the value of a key."""
        value = self.keys.get(encoded(key))
        return None if value is None else base64.b64decode(value.value).decode()

    def remove(self, folder: str) -> None:
        """Remove all keys with this prefix, as an operator does."""
        self.revision += 1
        for key in [
            each for each in self.keys if base64.b64decode(each).startswith(folder.encode())
        ]:
            del self.keys[key]

    def apply(self, what: str, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Execute a request that the members have agreed on."""
        if not self.allowed:
            return NO_RIGHT
        if what == "kv/range":
            return 200, {"header": self._header(), **self._range(request)}
        if what == "kv/deleterange":
            if self._remove(request):
                self.revision += 1
            return 200, {"header": self._header()}
        assert what == "kv/txn", what
        held = all(self._holds(each) for each in request.get("compare", ()))
        branch = request.get("success" if held else "failure", ())
        puts = any("request_put" in each for each in branch)
        if self.is_full and puts and not self.overflows:
            return NO_SPACE
        if any("request_put" in each or "request_delete_range" in each for each in branch):
            self.revision += 1
        revision = self.revision
        responses = [self._execute(each) for each in branch]
        if revision != self._recorded_revision:
            self._recorded_revision = revision
            self._history.append((self.world.now, dict(self.keys)))
        body: dict[str, Any] = {"header": self._header(), "responses": responses}
        if held:
            body["succeeded"] = True
        if self.is_full and puts:
            self.overflows = False
            return NO_SPACE
        return 200, body

    def _header(self) -> dict[str, str]:
        return {"revision": str(self.revision)}

    def _holds(self, compare: dict[str, str]) -> bool:
        value = self.keys.get(compare["key"])
        if compare["target"] == "MOD":
            return int(compare["mod_revision"]) == (0 if value is None else value.revision)
        assert compare["target"] == "CREATE"
        return compare.get("create_revision", "0") == "0" and value is None

    def _execute(self, request: dict[str, Any]) -> dict[str, Any]:
        ((kind, what),) = request.items()
        if kind == "request_range":
            return {"response_range": self._range(what)}
        if kind == "request_put":
            self.keys[what["key"]] = Value(what["value"], self.revision)
            return {"response_put": {}}
        if kind == "request_txn":
            held = all(self._holds(each) for each in what.get("compare", ()))
            inner = what.get("success" if held else "failure", ())
            return {"response_txn": {"responses": [self._execute(each) for each in inner]}}
        assert kind == "request_delete_range", kind
        self._remove(what)
        return {"response_delete_range": {}}

    def _remove(self, what: dict[str, Any]) -> int:
        """Remove a key or a range; return the number of removed keys."""
        found = self._in_range(what)
        for key in found:
            del self.keys[key]
        return len(found)

    def _in_range(self, what: dict[str, Any]) -> list[str]:
        """Return the keys in a range, in order."""
        if "range_end" not in what:
            return [what["key"]] if what["key"] in self.keys else []
        low, high = base64.b64decode(what["key"]), base64.b64decode(what["range_end"])
        names = sorted((base64.b64decode(key), key) for key in self.keys)
        return [key for name, key in names if low <= name < high]

    def _range(self, what: dict[str, Any]) -> dict[str, Any]:
        found = self._in_range(what)
        limit = int(what.get("limit", 0)) or len(found)
        kvs = [
            {
                "key": key,
                "value": self.keys[key].value,
                "mod_revision": str(self.keys[key].revision),
            }
            for key in found[:limit]
        ]
        more = {"more": True} if len(found) > limit else {}
        return {"kvs": kvs, "count": str(len(found)), **more} if kvs else {}


class Member(EngineServer):
    def __init__(self, network: Network, name: str, link_faults: LinkFaults, cluster: Etcd) -> None:
        super().__init__(network, name, link_faults)
        self._cluster = cluster
        self._lag = 0.2 * self.world.random.random()
        """By how much its own state is behind, seconds."""

    def take(self, session: Session, request: bytes) -> None:
        head, _, body = request.partition(b"\r\n\r\n")
        what = head.split(b" ")[1].decode().removeprefix("/v3/")
        cluster, world = self._cluster, self.world
        asked = json.loads(body or b"{}")

        def agree() -> None:
            """Execute the request, whether its client still lives or not."""
            if not cluster.has_quorum(self):
                answer(*NO_LEADER)
                return
            if world.now < cluster.leaderless_until:
                # Some requests succeed after the election, others time out.
                if world.random.random() < 0.5:
                    world.after(cluster.leaderless_until - world.now + 0.01, None, agree)
                else:
                    answer(*TIMED_OUT)
                return
            answer(*cluster.apply(what, asked))

        def answer(status: int, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            session.reply(
                b"HTTP/1.1 %d .\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (status, len(body), body)
            )

        if what == "/version":
            answer(200, {"etcdserver": "3.5.9", "etcdcluster": "3.5.0"})
        elif is_serializable(asked):
            answer(*cluster.apply_locally(asked, self._lag))
        elif not cluster.has_quorum(self):
            world.after(7 * world.random.random(), None, answer, *NO_LEADER)
        else:
            world.after(0.003 * world.random.random(), None, agree)


class HTTPConnection(http.client.HTTPConnection):
    """``http.client.HTTPConnection`` over a session."""

    servers: dict[str, EngineServer]

    def connect(self) -> None:
        assert isinstance(self.timeout, float)
        session = Session(calling_process(), self.servers[self.host], self.timeout)
        self.sock: Any = Socket(session, self.timeout)


class Socket:
    """A session with as much of a socket's interface as ``http.client`` and the store use."""

    def __init__(self, session: Session, timeout: float) -> None:
        self._session = session
        self._timeout: float | None = timeout
        self._part = b""
        """The incomplete request: head and body are sent separately."""
        self._rest = b""
        """The unread rest of a reply."""

    def sendall(self, data: bytes) -> None:
        self._part += data
        at = self._part.find(b"\r\n\r\n")
        head = self._part[:at].lower()
        size = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
        if len(self._part) == at + 4 + size:
            whole, self._part = self._part, b""
            self._session.send(whole)

    def recv_into(self, buffer: Any) -> int:
        if not self._rest:
            assert self._timeout is not None
            self._rest = self._session.receive(self._timeout)
        piece, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)

    def gettimeout(self) -> float | None:
        return self._timeout

    def settimeout(self, timeout: float | None) -> None:
        self._timeout = timeout

    def makefile(self, mode: str, buffering: int) -> io.RawIOBase:
        """Return a dummy, which only keeps the socket open."""
        assert mode == "rb"
        assert not buffering
        return io.RawIOBase()

    def fileno(self) -> Session:
        return self._session

    def close(self) -> None:
        self._session.close()


def is_serializable(asked: dict[str, Any]) -> bool:
    """Whether a member may answer from its own state."""
    requests = asked.get("success", ())
    return bool(requests) and all(
        each.get("request_range", {}).get("serializable", False) for each in requests
    )


def encoded(text: str) -> str:
    """Encode a key or a value for JSON."""
    return base64.b64encode(text.encode()).decode()
