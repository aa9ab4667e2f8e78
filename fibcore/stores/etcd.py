"""The store in etcd: a key for the index, one per record, and a transaction on their revisions.

The index of a sequence is at PREFIX/SEQUENCE/index, its records are at PREFIX/SEQUENCE//node/NAME.
The idempotency keys of a batch are at PREFIX/SEQUENCE//keys/INDEX, the index that it led to, and
``keys.KeptKeys.dropped`` is at PREFIX/SEQUENCE//dropped. A process caches these keys in memory.
Each batch moves the index, so while the index is unchanged, the cache is complete. No two sequences
share a key, whatever their prefixes, and no other key of ours begins like those of the records:
neither a prefix nor a sequence's name has two slashes in a row.

The standard library is the driver: etcd's gateway accepts JSON over HTTP. The clients on PyPI have
one maintainer each, are generated for one version of protobuf, and talk to one member (aetcd 1.0,
etcd3gw 2.7) or leave the choice to gRPC, which stays with a member that hangs. The choice of a
member is what matters here: if one does not reply in time, the next one is tried.

A transaction compares the revisions of the index and of the process's record with those seen last.
If another process was first, it is retried with the revisions in its reply. To settle a batch
writes the record, unless the batch has, so that a delayed copy finds another revision, and does
nothing.

Reads are etcd's linearizable ones: a member cut off from the majority can't answer them.
"""

import base64
import re
import ssl
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import unquote

from fibcore.problems import (
    DatabaseInvalidError,
    EngineTooOldError,
    EngineUnavailableError,
    SequenceMissingError,
    StoreProblem,
)
from fibcore.stores import DurabilityWarning, IndexConflictError, Risk
from fibcore.stores.engine import EngineOpener
from fibcore.stores.etcd_connection import Connection, as_etcd_answers
from fibcore.stores.keys import KeptKeys, KeyConflictError, check, made_by
from fibcore.stores.link import Batch, Link, RecordGoneError, ReplyLostError
from fibcore.stores.records import PIECE, RECORD, Records
from fibcore.stores.urls import parse

PORT: Final = 2379
PREFIX: Final = "fibcore"

OLDEST: Final = (3, 4)
"""The oldest supported version: the first whose gateway is at /v3/."""

SAFE: Final = {(3, 4): 22, (3, 5): 6}
"""The first patch levels that keep what they have acknowledged. Before, a single member replies
before its write is on the disk (https://github.com/etcd-io/etcd/issues/14370), and members come
to differ after a crash (issue 13766, pull request 14733), or after one has been added (issue
14571)."""

FILES: Final = ("cacert", "cert", "key")
"""The options that a URL may have, named as in etcdctl."""


LAST_PART: Final = 0xFF
"""The last part of the records' names, which are split by their first two hex digits."""


PAGE: Final = 2_000
"""Batches whose keys are read in one request."""


Request: TypeAlias = dict[str, dict[str, Any]]
"""An operation of a transaction."""


class Value(NamedTuple):
    """The value of a key."""

    text: str | None = None
    """None if the key does not exist."""
    revision: int = 0


class EtcdLink(Link):
    """A connection to one member."""

    _connection: Connection

    def __init__(
        self, opener: "EtcdOpener", record: uuid.UUID | None, connection: Connection
    ) -> None:
        self._user = opener.user
        self._index_key = f"{opener.prefix}/{opener.sequence}/index"
        self._node_folder = f"{opener.prefix}/{opener.sequence}//node/"
        self._node_key = f"{self._node_folder}{record}"
        self._keys_folder = f"{opener.prefix}/{opener.sequence}//keys/"
        self._keys_end = f"{self._keys_folder}:"
        self._dropped_key = f"{opener.prefix}/{opener.sequence}//dropped"
        self._index, self._held, self._dropped = Value(), Value(), Value()
        self._kept: KeptKeys | None = None
        """The cached keys; None before the first batch with keys."""
        self._seen = -1
        """The index up to which the cache is complete."""
        super().__init__(opener, record, connection)

    def _begin(self) -> None:
        self._check_version()
        if self._user:
            with as_etcd_answers():
                token = self._ask("auth/authenticate", self._user)["token"]
            self._connection.headers["Authorization"] = str(token)
        # Fails on a member cut off from the majority, so that another one is tried.
        self._read_all()

    def _check_version(self) -> None:
        with as_etcd_answers():
            version = str(self._connection.exchange("GET", "/version")["etcdserver"])
            major, minor, patch = map(int, re.findall("[0-9]+", version)[:3])
        if (major, minor) < OLDEST:
            raise EngineTooOldError(self._where, f"etcd {version}", ".".join(map(str, OLDEST)))
        # etcd syncs to a majority, unless configured not to, which can't be detected.
        if patch < SAFE.get((major, minor), 0):
            self.warnings = (DurabilityWarning(f"etcd {version}", Risk.DIVERGENCE),)

    def make(self, record: uuid.UUID, given_up: Sequence[uuid.UUID]) -> None:
        self._current_index()
        self._node_key = f"{self._node_folder}{record}"
        removed = [delete(f"{self._node_folder}{each}") for each in given_up]
        self._ask("kv/txn", {"success": [put(self._node_key, "0 0"), *removed]})
        self._read_all()

    def commit(self, batch: Batch) -> int:
        is_fresh = False
        if batch.keys and self._kept is None:
            self._kept = KeptKeys(0)
            self._read_all()
            is_fresh = True
        while True:
            number, _ = self._last_batch()
            index = self._current_index()
            wanted = index + batch.steps
            conflict = self._conflict(batch, number, index, wanted)
            if conflict is not None:
                if is_fresh:
                    raise conflict
                self._read_all()
                is_fresh = True
                continue
            record = f"{batch.number} {wanted}"
            made = made_by(batch.keys, index)
            try:
                revision = self._put(
                    {
                        self._index_key: str(wanted),
                        self._node_key: record,
                        **self._values_of(made, index, wanted),
                    }
                )
            except EngineUnavailableError:
                # At its space quota etcd may apply the transaction and still report that no space
                # is left: see quotaApplierV3 in its server's apply.go.
                if not (reached := self._reached_by(batch)):
                    raise
                return reached
            if revision is not None:
                self._index = Value(str(wanted), revision)
                self._held = Value(record, revision)
                if made and self._dropped.text is None:
                    self._dropped = Value(str(index), revision)
                if self._kept is not None:
                    self._seen = wanted
                    if made:
                        self._kept.add(wanted, made)
                return wanted
            is_fresh = True

    def _conflict(
        self, batch: Batch, number: int, index: int, wanted: int
    ) -> IndexConflictError | KeyConflictError | None:
        """Why ``batch`` can't be applied at ``index``, by the cached state."""
        if (
            number >= batch.number
            or batch.expected not in (None, index)
            or (batch.limit is not None and wanted > batch.limit)
        ):
            return IndexConflictError(index)
        if batch.keys:
            assert self._kept is not None
            try:
                check(batch.keys, self._kept.made, index, self._kept.dropped)
            except KeyConflictError as conflict:
                return conflict
        return None

    def settle(self, number: int) -> int:
        while True:
            last, reached = self._last_batch()
            if last == number:
                return reached
            record = f"{number} 0"
            revision = self._put({self._node_key: record})
            if revision is not None:
                self._held = Value(record, revision)
                return 0

    def _values_of(self, made: Mapping[bytes, int], index: int, wanted: int) -> dict[str, str]:
        """The values to write for the keys of a batch."""
        if not made:
            return {}
        pairs = (f"{digest.hex()}={at}" for digest, at in made.items())
        values = {f"{self._keys_folder}{wanted:019}": " ".join(pairs)}
        if self._dropped.text is None:
            # Before the first key nothing was known of any.
            values[self._dropped_key] = str(index)
        return values

    @property
    def kept_keys(self) -> int | None:
        return None if self._kept is None else len(self._kept)

    def drop_keys(self, keep: int) -> None:
        up_to = None if self._kept is None else self._kept.surplus(keep)
        if up_to is None:
            return
        unchanged = compared(self._dropped_key, self._dropped)
        removed = delete(self._keys_folder, self._key_after(up_to))
        writes = [put(self._dropped_key, str(up_to)), removed]
        reply = self._ask("kv/txn", {"compare": [unchanged], "success": writes})
        # If another process was first, this reads its ``dropped``.
        self._read_all()
        if reply.get("succeeded"):
            assert self._kept is not None
            self._kept.drop(up_to)

    def _key_after(self, index: int) -> str:
        return f"{self._keys_folder}{index + 1:019}"

    def read(self) -> int:
        self._read_all()
        return self._current_index()

    def create(self, index: int) -> int | None:
        values = {self._index_key: str(index), self._dropped_key: str(index)}
        if self._index.text is None and self._put(values) is not None:
            return None
        return self._current_index()

    def set_index(self, index: int, *, lower: bool) -> int:
        self._read_all()
        while True:
            before = self._current_index()
            if index == before or (index < before and not lower):
                return before
            values = {self._index_key: str(index), self._dropped_key: str(index)}
            if self._put(values, delete(self._keys_folder, self._keys_end)) is not None:
                return before

    def _current_index(self) -> int:
        text = self._index.text
        if text is None:
            raise SequenceMissingError(self._where, self._sequence)
        if not text.isdecimal():
            raise DatabaseInvalidError(
                self._where, f"{self._index_key} does not hold a valid index"
            )
        return int(text)

    def _last_batch(self) -> tuple[int, int]:
        """The number of this process's last batch, and the index it led to."""
        text = self._held.text
        if text is None:
            raise RecordGoneError("the record of this process is gone")
        found = RECORD.fullmatch(f"{self._node_key.removeprefix(self._node_folder)}={text}")
        if found is None:
            raise DatabaseInvalidError(self._where, f"{self._node_key} does not hold a record")
        return int(found["number"]), int(found["reached"])

    def _reached_by(self, batch: Batch) -> int:
        """The index after a batch that may have been applied; 0 if it was not.

        Raises:
            ReplyLostError: that can't be found out now, whatever the reason.
        """
        try:
            self._read_all()
            number, reached = self._last_batch()
            return reached if number == batch.number else 0
        except (StoreProblem, RecordGoneError) as error:
            raise ReplyLostError(str(error)) from error

    def _read_all(self) -> None:
        """Read the current state of all keys."""
        self._take_in(self._ask("kv/txn", {"success": self._ranges()}))

    def _put(self, values: Mapping[str, str], *more: Request) -> int | None:
        """Write, if index and record are unchanged; return the revision. Otherwise read both; None.

        Args:
            values: the new values, by key.
            more: further requests of the same transaction.
        """
        seen = ((self._index_key, self._index), (self._node_key, self._held))
        writes = [put(key, value) for key, value in values.items()]
        reply = self._ask(
            "kv/txn",
            {
                "compare": [compared(key, value) for key, value in seen],
                "success": [*writes, *more],
                "failure": self._ranges(),
            },
        )
        if reply.get("succeeded"):
            with as_etcd_answers():
                return int(reply["header"]["revision"])
        self._take_in(reply)
        return None

    def _ranges(self) -> list[Request]:
        ranges = [keys_from(self._index_key), keys_from(self._node_key)]
        if self._kept is not None:
            unseen = keys_from(self._key_after(self._seen), self._keys_end)
            ranges += [keys_from(self._dropped_key), {**unseen, "limit": str(PAGE)}]
        return [{"request_range": each} for each in ranges]

    def _take_in(self, reply: Mapping[str, Any]) -> None:
        with as_etcd_answers():
            found = [each["response_range"].get("kvs") or [] for each in reply["responses"]]
            self._index, self._held = (first_of(each) for each in found[:2])
            if self._kept is None:
                return
            self._dropped = first_of(found[2])
            for each in found[3]:
                key = base64.b64decode(each["key"]).decode()
                self._seen = int(key.removeprefix(self._keys_folder))
                pairs = (pair.split("=") for pair in (value_of(each).text or "").split())
                made = {bytes.fromhex(digest): int(at) for digest, at in pairs}
                self._kept.add(self._seen, made)
            is_behind = reply["responses"][3]["response_range"].get("more")
            self._kept.drop(int(self._dropped.text or self._index.text or 0))
            if not is_behind:
                self._seen = max(self._seen, int(self._index.text or 0))
        if is_behind:
            self._read_all()

    def records(self, after: str) -> tuple[Records, str]:
        # etcd scans a whole range, whatever the limit, so each request covers a part of the names.
        start = after or f"{self._node_folder}00"
        part = int(start.removeprefix(self._node_folder)[:2], 16)
        end = self._node_folder + ("g" if part == LAST_PART else f"{part + 1:02x}")
        found = self._ask("kv/range", {**keys_from(start, end), "limit": str(PIECE)})
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
            key = f"{self._node_folder}{name}"
            unchanged = compared(key, Value(None, int(revision)))
            removals.append({"request_txn": {"compare": [unchanged], "success": [delete(key)]}})
        self._ask("kv/txn", {"success": removals})

    def _ask(self, what: str, question: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request to the gateway; return its reply."""
        return self._connection.exchange("POST", f"/v3/{what}", question)

    def forget(self) -> None:
        self._ask("kv/deleterange", keys_from(self._node_key))


class EtcdOpener(EngineOpener):
    """A sequence in the cluster at ``etcd://USER:PASSWORD@HOST:PORT,HOST:PORT/PREFIX``.

    Only the hosts are required. ``etcds`` uses TLS, with ``?cacert=FILE&cert=FILE&key=FILE``.
    """

    def _take(self, url: str) -> None:
        parts = parse(url)
        name, _, password = parts.user.removesuffix("@").partition(":")
        self.user = {"name": unquote(name), "password": unquote(password)} if parts.user else None
        self.members = parts.members(PORT)
        self.prefix = parts.path.strip("/") or PREFIX
        if "//" in self.prefix:
            raise ValueError("its prefix has two slashes in a row")
        self.context: ssl.SSLContext | None = None
        options = {name: unquote(value) for name, value in parts.options}
        if unknown := set(options) - set(FILES):
            raise ValueError(
                f"its options may be {', '.join(FILES)}; it has {', '.join(sorted(unknown))}"
            )
        if parts.scheme == "etcds":
            try:
                self.context = ssl.create_default_context(cafile=options.get("cacert"))
                if "cert" in options:
                    self.context.load_cert_chain(options["cert"], options.get("key"))
            except OSError as error:
                raise ValueError(f"its certificates can't be read: {error}") from error
        elif options:
            raise ValueError("it names certificates, which only etcds:// uses")

    def connect(self, process: uuid.UUID | None, record: uuid.UUID | None) -> EtcdLink:
        """Connect to the first member that answers, starting after the one tried last."""
        del process  # A connection to etcd has no name.
        lost = ReplyLostError("it has no members")
        for _ in self.members:
            # The member tried last has failed, or none has been tried.
            member = self.members[0]
            self.members.append(self.members.pop(0))
            try:
                return EtcdLink(self, record, Connection(self.where, member, self.context))
            except ReplyLostError as error:
                lost = error
        raise EngineUnavailableError(self.where, str(lost)) from lost


def coded(text: str) -> str:
    """Encode a key or value for JSON."""
    return base64.b64encode(text.encode()).decode()


def keys_from(key: str, end: str | None = None) -> dict[str, str]:
    """The keys from ``key`` to before ``end``, or that key alone."""
    return {"key": coded(key)} | ({} if end is None else {"range_end": coded(end)})


def put(key: str, value: str) -> Request:
    """The request that writes a key."""
    return {"request_put": {"key": coded(key), "value": coded(value)}}


def delete(key: str, end: str | None = None) -> Request:
    """The request that removes keys; see ``keys_from``."""
    return {"request_delete_range": keys_from(key, end)}


def compared(key: str, value: Value) -> dict[str, str]:
    """The comparison that a key is unchanged."""
    return {"target": "MOD", "key": coded(key), "mod_revision": str(value.revision)}


def first_of(found: Sequence[Mapping[str, str]]) -> Value:
    """The value of the one key in a range's reply."""
    return value_of(found[0]) if found else Value()


def value_of(found: Mapping[str, str]) -> Value:
    """The value of a key in a range's reply."""
    text = base64.b64decode(found.get("value", "")).decode("utf-8", "replace")
    return Value(text, int(found["mod_revision"]))
