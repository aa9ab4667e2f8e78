"""The store in etcd: the key of the index, one of a record, and a transaction on their revisions.

The index of a sequence is at PREFIX/SEQUENCE/index, its records are at PREFIX/SEQUENCE//node/NAME.
No two sequences share a key, whatever their prefixes, and no other key of ours begins as those of
the records do: neither a prefix nor a sequence's name has two slashes in a row.

There is no driver but the standard library: etcd's own gateway takes JSON over HTTP. The clients on
PyPI are one maintainer's each, generated for one version of protobuf, and talk to one member (aetcd
1.0, etcd3gw 2.7) or leave the choice of it to gRPC, which keeps to one that hangs. The choice of a
member is what matters here: one that doesn't reply in time is left for the next one.

A transaction compares the revisions of the index and of the process's record with those that were
seen last, and is made again with what it says if another process was first. So a batch that was
asked about and arrives late finds another revision of the record, and does nothing.

Reads are etcd's own linearizable ones: a member that is cut off from most others can't answer them.
"""

import base64
import ssl
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote

from fibcore.problems import (
    DatabaseInvalidError,
    EngineTooOldError,
    EngineUnavailableError,
    SequenceMissingError,
)
from fibcore.stores import IndexConflictError
from fibcore.stores.etcd_connection import Connection, as_etcd_answers
from fibcore.stores.link import Batch, Engine, Link, RecordGoneError, ReplyLostError
from fibcore.stores.records import PIECE, RECORD, Records
from fibcore.stores.urls import member_of, shown, split

PORT: Final = 2379
PREFIX: Final = "fibcore"

OLDEST: Final = (3, 4)
"""The first version that will do: its gateway is at /v3/."""

FILES: Final = ("cacert", "cert", "key")
"""What a URL may name, as etcdctl does."""


LAST_PART: Final = 0xFF
"""Of the names of records, by their first two digits."""


class Value(NamedTuple):
    """A key's."""

    text: str | None = None
    """None where there is no such key."""
    revision: int = 0


class EtcdLink(Link):
    """A connection to one member."""

    # It warns of nothing: etcd syncs what most members have, unless it is told not to, and that
    # can't be found out.

    _connection: Connection

    def __init__(
        self, engine: "EtcdEngine", record: uuid.UUID | None, connection: Connection
    ) -> None:
        self._user = engine.user
        self._index_key = f"{engine.prefix}/{engine.sequence}/index"
        self._node_folder = f"{engine.prefix}/{engine.sequence}//node/"
        self._node_key = f"{self._node_folder}{record}"
        self._index, self._held = Value(), Value()
        super().__init__(engine, record, connection)

    def _begin(self) -> None:
        self._check_version()
        if self._user:
            with as_etcd_answers():
                token = self._ask("auth/authenticate", self._user)["token"]
            self._connection.headers["Authorization"] = str(token)
        # One that is cut off from most others is found out, and left for another one.
        self._look()

    def _check_version(self) -> None:
        with as_etcd_answers():
            version = str(self._connection.exchange("GET", "/version")["etcdserver"])
            is_too_old = tuple(map(int, version.split(".")[:2])) < OLDEST
        if is_too_old:
            raise EngineTooOldError(self._where, f"etcd {version}", ".".join(map(str, OLDEST)))

    def make(self, record: uuid.UUID, given_up: Sequence[uuid.UUID]) -> None:
        self._stands_at()
        self._node_key = f"{self._node_folder}{record}"
        made = {"request_put": {"key": coded(self._node_key), "value": coded("0 0")}}
        removed = [
            {"request_delete_range": {"key": coded(f"{self._node_folder}{each}")}}
            for each in given_up
        ]
        self._ask("kv/txn", {"success": [made, *removed]})
        self._look()

    def commit(self, batch: Batch) -> int:
        is_new = False
        while True:
            number, reached = self._last_batch()
            if number == batch.number:
                return reached
            index = self._stands_at()
            wanted = index + batch.steps
            if (
                number > batch.number
                or batch.expected not in (None, index)
                or (batch.limit is not None and wanted > batch.limit)
            ):
                if is_new:
                    raise IndexConflictError(index)
                self._look()
                is_new = True
                continue
            record = f"{batch.number} {wanted}"
            try:
                revision = self._put({self._index_key: str(wanted), self._node_key: record})
            except EngineUnavailableError:
                # Of two that come at the bound of its space etcd does the second as well, and says
                # that there is none: see quotaApplierV3 in its server's apply.go.
                if not self._has_been_done(batch):
                    raise
                continue
            if revision is not None:
                self._index = Value(str(wanted), revision)
                self._held = Value(record, revision)
                return wanted
            is_new = True

    def read(self) -> int:
        self._look()
        return self._stands_at()

    def create(self, index: int) -> int | None:
        if self._index.text is None and self._put({self._index_key: str(index)}) is not None:
            return None
        return self._stands_at()

    def set_index(self, index: int, *, lower: bool) -> int:
        self._look()
        while True:
            before = self._stands_at()
            if index == before or (index < before and not lower):
                return before
            if self._put({self._index_key: str(index)}) is not None:
                return before

    def _stands_at(self) -> int:
        text = self._index.text
        if text is None:
            raise SequenceMissingError(self._where, self._sequence)
        if not text.isdecimal():
            raise DatabaseInvalidError(self._where, f"the index at {self._index_key} is none")
        return int(text)

    def _last_batch(self) -> tuple[int, int]:
        """The number of the last batch of this process, and where it led."""
        text = self._held.text
        if text is None:
            raise RecordGoneError("the record of this process is gone")
        found = RECORD.fullmatch(f"{self._node_key.removeprefix(self._node_folder)}={text}")
        if found is None:
            raise DatabaseInvalidError(self._where, f"{self._node_key} does not hold a record")
        return int(found["number"]), int(found["reached"])

    def _has_been_done(self, batch: Batch) -> bool:
        """Whether a batch was done that may have been, by what etcd has said."""
        try:
            self._look()
            return self._last_batch()[0] == batch.number
        except (EngineUnavailableError, DatabaseInvalidError, RecordGoneError) as error:
            raise ReplyLostError(str(error)) from error

    def _look(self) -> None:
        """See where both keys stand now."""
        self._take_in(self._ask("kv/txn", {"success": self._ranges()}))

    def _put(self, values: Mapping[str, str]) -> int | None:
        """Write, if both keys are as they were seen; return the revision, or see how they are."""
        seen = ((self._index_key, self._index), (self._node_key, self._held))
        said = self._ask(
            "kv/txn",
            {
                "compare": [
                    {"target": "MOD", "key": coded(key), "mod_revision": str(value.revision)}
                    for key, value in seen
                ],
                "success": [
                    {"request_put": {"key": coded(key), "value": coded(value)}}
                    for key, value in values.items()
                ],
                "failure": self._ranges(),
            },
        )
        if said.get("succeeded"):
            with as_etcd_answers():
                return int(said["header"]["revision"])
        self._take_in(said)
        return None

    def _ranges(self) -> list[dict[str, Any]]:
        keys = (self._index_key, self._node_key)
        return [{"request_range": {"key": coded(key)}} for key in keys]

    def _take_in(self, said: Mapping[str, Any]) -> None:
        with as_etcd_answers():
            found = [each["response_range"].get("kvs") for each in said["responses"]]
            self._index, self._held = (value_of(each[0]) if each else Value() for each in found)

    def records(self, after: str) -> tuple[Records, str]:
        # etcd goes through all of a range, whatever its limit is: so one is a part of the names.
        start = after or f"{self._node_folder}00"
        part = int(start.removeprefix(self._node_folder)[:2], 16)
        end = self._node_folder + ("g" if part == LAST_PART else f"{part + 1:02x}")
        found = self._ask(
            "kv/range", {"key": coded(start), "range_end": coded(end), "limit": str(PIECE)}
        )
        records, last = {}, ""
        for each in found.get("kvs", ()):
            last = base64.b64decode(each["key"]).decode("utf-8", "replace")
            name = last.removeprefix(self._node_folder)
            text, revision = value_of(each)
            if RECORD.fullmatch(f"{name}={text}"):
                records[name] = str(revision)
        if found.get("more"):
            return records, f"{last}\0"
        return records, "" if part == LAST_PART else end

    def remove(self, records: Records) -> None:
        removals = []
        for name, revision in records.items():
            key = coded(f"{self._node_folder}{name}")
            same = {"target": "MOD", "key": key, "mod_revision": revision}
            remove = {"request_delete_range": {"key": key}}
            removals.append({"request_txn": {"compare": [same], "success": [remove]}})
        self._ask("kv/txn", {"success": removals})

    def _ask(self, what: str, question: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the gateway; return what it says."""
        return self._connection.exchange("POST", f"/v3/{what}", question)

    def forget(self) -> None:
        self._ask("kv/deleterange", {"key": coded(self._node_key)})


class EtcdEngine(Engine):
    """The sequence ``sequence`` in the cluster at ``url``.

    Args:
        url: ``etcd://USER:PASSWORD@HOST:PORT,HOST:PORT/PREFIX``, of which the hosts alone must be
            there; with ``etcds`` over TLS, with ``?cacert=FILE&cert=FILE&key=FILE``.
        sequence: the name of the sequence.

    Raises:
        ValueError: the URL can't be understood; the message has no password in it.
    """

    def __init__(self, url: str, sequence: str) -> None:
        asked, parts = split(url)
        user, _, hosts = asked.rpartition("@")
        name, _, password = user.partition(":")
        self.user = {"name": unquote(name), "password": unquote(password)} if user else None
        self.members = [member_of(each, PORT) for each in hosts.split(",")]
        self.prefix = parts.path.strip("/") or PREFIX
        if "//" in self.prefix:
            raise ValueError("its prefix has two slashes in a row")
        self.sequence = sequence
        self.where = shown(url)
        self.context: ssl.SSLContext | None = None
        options = dict(parse_qsl(parts.query))
        if unknown := set(options) - set(FILES):
            raise ValueError(f"it takes {', '.join(FILES)}, and not {', '.join(sorted(unknown))}")
        if parts.scheme == "etcds":
            try:
                self.context = ssl.create_default_context(cafile=options.get("cacert"))
                if "cert" in options:
                    self.context.load_cert_chain(options["cert"], options.get("key"))
            except OSError as error:
                raise ValueError(f"its certificates can't be read: {error}") from error
        elif options:
            raise ValueError("it names certificates, which are used with etcds:// alone")

    def connect(self, process: uuid.UUID | None, record: uuid.UUID | None) -> EtcdLink:
        """Connect to the first member that answers, beginning after the one that was last tried."""
        del process  # A connection to etcd has no name.
        lost = ReplyLostError("it has no members")
        for _ in self.members:
            # Whoever comes here has been failed by the last one, or has not tried any.
            member = self.members[0]
            self.members.append(self.members.pop(0))
            try:
                return EtcdLink(self, record, Connection(self.where, member, self.context))
            except ReplyLostError as error:
                lost = error
        raise EngineUnavailableError(self.where, str(lost)) from lost


def coded(text: str) -> str:
    """As keys and values are in JSON."""
    return base64.b64encode(text.encode()).decode()


def value_of(found: Mapping[str, str]) -> Value:
    """What a range says of a key."""
    text = base64.b64decode(found.get("value", "")).decode("utf-8", "replace")
    return Value(text, int(found["mod_revision"]))
