"""The store in Redis or Valkey: one hash for a sequence, and one script for a batch.

Scripts run one at a time, but a script that fails half way keeps what it has written. It is a
transaction because it writes once, after everything that can fail. With ``appendfsync always`` its
reply is sent after its write is on disk. ``redis_durability`` determines what a server with other
settings may lose. Two gaps are closed by waiting, in the same round trip: for the sync, if the
append-only file is synced every second (``WAITAOF``, from Redis 7.2 and in Valkey); and for
replicas, if ``min-replicas-to-write`` requires them (``WAIT``). Both confirm what the same
connection has written, so a read that must be as durable also writes.

Lua's numbers are exact up to 2**53, so an index is handled as text.
"""

import contextlib
import re
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Final

from redis.exceptions import (
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from fibcore.problems import (
    DatabaseInvalidError,
    EngineTooOldError,
    EngineUnavailableError,
    ForeignDatabaseError,
    NoRightError,
    SequenceMissingError,
)
from fibcore.stores import IndexConflictError
from fibcore.stores.engine import EngineOpener
from fibcore.stores.keys import check
from fibcore.stores.link import Batch, Link, RecordGoneError, ReplyLostError
from fibcore.stores.records import PIECE, RECORD, Records
from fibcore.stores.redis_connection import Connection, check_url, pairs
from fibcore.stores.redis_durability import QUESTIONS, Durability, judge
from fibcore.stores.sentinel import SENTINEL, Sentinels
from fibcore.stores.urls import without_secrets

PRIMARY: Final = b"master"
"""The role, per ``ROLE``, of a server that accepts writes."""

KEY: Final = "fibcore:{%s}"
"""The key of the hash. Its fields: ``index``; per process ``node:RECORD``, the number of its last
batch and the index it led to; per idempotency key ``key:DIGEST``, the index of its step, and
``slot:NUMBER``, the digest in that slot of a ring; ``keys``, the count of keys put into the ring;
``dropped``."""

OLDEST: Final = (6, 2)
"""The oldest supported version. HELLO, which returns the version, is from 6.0."""

COMMON: Final = """
local key = KEYS[1]
local function higher(a, b)
    if #a ~= #b then return #a > #b end
    return a > b
end
local index = redis.call('HGET', key, 'index')
"""

COMMIT: Final = (
    COMMON
    + """
local node, number, steps, expected, limit = unpack(ARGV)
-- Lua's numbers are exact up to 2^53: the last 15 digits are added apart from the others.
local function sum(a, b)
    local low = string.sub(a, -15) + b
    local high = (tonumber(string.sub(a, 1, -16)) or 0) + math.floor(low / 1e15)
    if high == 0 then return string.format('%.0f', low) end
    return string.format('%.0f%015.0f', high, low % 1e15)
end
if not index then return {'missing'} end
local record = redis.call('HGET', key, node)
if not record then return {'gone'} end
local last = string.match(record, '^(%d+) %d+')
if not last or string.match(index, '%D') then return {'invalid'} end
if not higher(number, last) then return {'elsewhere', index} end
if expected ~= '' and expected ~= index then return {'elsewhere', index} end
local reached = sum(index, steps)
if limit ~= '' and higher(reached, limit) then return {'elsewhere', index} end
if not ARGV[6] then
    redis.call('HSET', key, 'index', reached, node, number .. ' ' .. reached)
    return {'done', reached}
end
-- The keys: a digest and a position each.
local keep, lowest, highest = tonumber(ARGV[6]), ARGV[7], ARGV[8]
-- Before the first key, none was kept.
local dropped = redis.call('HGET', key, 'dropped') or index
local known = {'known', index, dropped}
for i = 9, #ARGV, 2 do
    local made = redis.call('HGET', key, 'key:' .. ARGV[i])
    if made then
        known[#known + 1] = ARGV[i]
        known[#known + 1] = made
    end
end
if #known > 3 or higher(dropped, lowest) or higher(highest, index) then return known end
local count = tonumber(redis.call('HGET', key, 'keys') or '0')
local written, gone = {}, {}
for i = 9, #ARGV, 2 do
    if ARGV[i + 1] ~= '0' then
        local slot = 'slot:' .. count % keep
        count = count + 1
        local old = redis.call('HGET', key, slot)
        if old then
            local was = redis.call('HGET', key, 'key:' .. old)
            if was and higher(was, dropped) then dropped = was end
            gone[#gone + 1] = 'key:' .. old
        end
        for _, each in ipairs({'key:' .. ARGV[i], sum(index, ARGV[i + 1]), slot, ARGV[i]}) do
            written[#written + 1] = each
        end
    end
end
-- Nothing is removed: this checks the right to do so below.
if #gone > 0 then redis.call('HDEL', key, '') end
redis.call('HSET', key, 'index', reached, node, number .. ' ' .. reached, 'dropped', dropped,
    'keys', string.format('%.0f', count), unpack(written))
if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
return {'done', reached}
"""
)
"""Moves the index, in one write with the keys; what can fail comes before it. The ring has more
slots than a batch has keys, so a batch never overwrites its own keys."""

SETTLE: Final = (
    COMMON
    + """
local node, number = unpack(ARGV)
if not index then return {'missing'} end
local record = redis.call('HGET', key, node)
if not record then return {'gone'} end
local last, reached = string.match(record, '^(%d+) (%d+)')
if not last then return {'invalid'} end
if higher(last, number) then return {'gone'} end
if last ~= number then reached = '0' end
-- Written in either case: the confirmations cover only writes of this connection.
redis.call('HSET', key, node, number .. ' ' .. reached)
return {'done', reached}
"""
)

MAKE: Final = (
    COMMON
    + """
if not index then return {'missing'} end
-- Its own record does not exist yet: removing it checks the right to do so.
redis.call('HDEL', key, unpack(ARGV))
redis.call('HSET', key, ARGV[1], '0 0')
return {'done', index}
"""
)

ASK: Final = (
    COMMON
    + """
if not index then return {'missing'} end
local record = redis.call('HGET', key, ARGV[1])
if not record then return {'gone'} end
redis.call('HSET', key, ARGV[1], record)
return {'done', index}
"""
)
"""The write makes the read durable: when it is confirmed, so is what was read."""

REMOVE: Final = (
    COMMON
    + """
for i = 1, #ARGV, 2 do
    if redis.call('HGET', key, ARGV[i]) == ARGV[i + 1] then redis.call('HDEL', key, ARGV[i]) end
end
return {'done', index}
"""
)

NO_RIGHT: Final = ("The user executing the script can't", "NOPERM", "ACL failure in script")
"""Texts in the error of a script that has reached a command or key it may not use."""

REFUSALS: Final = ("CLUSTERDOWN", "MISCONF", "NOREPLICAS", "script", "unknown command")
"""Texts in errors after which the server has certainly done nothing. Any other error may come from
a proxy, which does not know what the server has done."""

CREATE: Final = (
    COMMON
    + """
if index then return {'there', index} end
redis.call('HSET', key, 'index', ARGV[1], 'dropped', ARGV[1])
return {'done', ARGV[1]}
"""
)

SET_INDEX: Final = (
    COMMON
    + """
if not index then return {'missing'} end
if ARGV[2] == '1' or higher(ARGV[1], index) then
    redis.call('HDEL', key, '')
    redis.call('HSET', key, 'index', ARGV[1], 'dropped', ARGV[1])
    if redis.call('HGET', key, 'keys') then
        local fields = redis.call('HGETALL', key)
        for i = 1, #fields, 2 do
            local name = fields[i]
            if name == 'keys' or string.find(name, '^key:') or string.find(name, '^slot:') then
                redis.call('HDEL', key, name)
            end
        end
    end
end
return {'done', index}
"""
)


class RedisLink(Link):
    """A connection to the primary."""

    _connection: Connection

    def __init__(
        self, opener: "RedisOpener", record: uuid.UUID | None, connection: Connection
    ) -> None:
        self._key = KEY % opener.sequence
        self._node = f"node:{record}"
        self._scripts: dict[str, str] = {}
        super().__init__(opener, record, connection)

    def _begin(self) -> None:
        self._check_version()
        self._durability = self._read_durability()
        self.warnings = self._durability.warnings
        packed = self._connection.packed
        self._start = packed(("MULTI",))
        self._end = packed(("ROLE",), ("EXEC",), *self._durability.confirmations)

    def _check_version(self) -> None:
        try:
            reply = self._ask("HELLO", 2)
        except EngineUnavailableError:
            reply = [b"version", b"5.0 or earlier"]
        with self._explained():
            version = dict(zip(reply[::2], reply[1::2], strict=True))[b"version"].decode()
            is_too_old = tuple(map(int, re.findall("[0-9]+", version)[:2])) < OLDEST
        if is_too_old:
            raise EngineTooOldError(self._where, f"Redis {version}", ".".join(map(str, OLDEST)))

    def _read_durability(self) -> Durability:
        with self._explained():
            role, *replies = self._connection.ask(("ROLE",), *QUESTIONS)
            if isinstance(role, ResponseError):
                raise role
            if role[0] != PRIMARY:
                role = role[0].decode()
                raise EngineUnavailableError(self._where, f"it is a {role}, not the primary")
            return judge(replies)

    def is_as_it_was(self) -> bool:
        return self._read_durability() == self._durability

    def make(self, record: uuid.UUID, given_up: Sequence[uuid.UUID]) -> None:
        # This also checks the user's rights to everything that a batch does.
        self._run(MAKE, *(f"node:{each}" for each in (record, *given_up)))
        self._record, self._node = record, f"node:{record}"

    def commit(self, batch: Batch) -> int:
        conditions = ("" if each is None else each for each in (batch.expected, batch.limit))
        reply = self._ask_script(
            COMMIT, self._node, batch.number, batch.steps, *conditions, *keys_of(batch)
        )
        if reply[0] in (b"elsewhere", b"known") and self._durability.confirmations:
            # Wait until what was seen is durable too.
            self.read()
        index = self._index(reply[1])
        if reply[0] == b"known":
            with self._explained():
                names = map(bytes.fromhex, map(bytes.decode, reply[3::2]))
                made = dict(zip(names, map(int, reply[4::2]), strict=True))
                dropped = int(reply[2])
            check(batch.keys, made, index, dropped)
        if reply[0] != b"done":
            raise IndexConflictError(index)
        return index

    def settle(self, number: int) -> int:
        return self._run(SETTLE, self._node, number)[1]

    def read(self) -> int:
        if self._durability.confirmations and self._record is not None:
            return self._run(ASK, self._node)[1]
        return self._index(self._ask_primary("HGET", self._key, "index"))

    def create(self, index: int) -> int | None:
        how, there = self._run(CREATE, index)
        return None if how == b"done" else there

    def set_index(self, index: int, *, lower: bool) -> int:
        return self._run(SET_INDEX, index, int(lower))[1]

    def _run(self, script: str, *arguments: str | int) -> tuple[bytes, int]:
        """Run a script; return its result and an index."""
        reply = self._ask_script(script, *arguments)
        return reply[0], self._index(reply[1])

    def _ask_script(self, script: str, *arguments: str | int) -> list[bytes]:
        """Run a script, and wait until its writes are durable; return its reply."""
        if script not in self._scripts:
            self._scripts[script] = self._ask("SCRIPT", "LOAD", script).decode()
        reply: list[bytes] = self._ask_primary(
            "EVALSHA", self._scripts[script], 1, self._key, *arguments
        )
        match reply[0]:
            case b"missing":
                raise SequenceMissingError(self._where, self._sequence)
            case b"gone":
                raise RecordGoneError("the record of this process is gone")
            case b"invalid":
                raise DatabaseInvalidError(
                    self._where, f"{self._key} does not hold a valid index and record"
                )
        return reply

    def _ask_primary(self, *command: str | int) -> Any:
        """Run a command together with ``ROLE``, and wait until its writes are durable.

        A server that becomes a replica keeps its clients and answers them; if it is writable, it
        even accepts their writes. In one transaction the role is the one at the time of the
        command.
        """
        with self._explained():
            confirmations = self._durability.confirmations
            replies = self._connection.ask_packed(
                self._start + self._connection.packed(command) + self._end, 4 + len(confirmations)
            )
            for each in (*replies[:4], replies[3][0] if isinstance(replies[3], list) else None):
                if isinstance(each, ResponseError):
                    raise each
            # From here on the command was executed, whatever else has failed.
            reply, role = replies[3]
            if isinstance(role, ResponseError):
                raise ReplyLostError(str(role))
            if role[0] != PRIMARY:
                raise ReplyLostError("it is no longer the primary")
            for asked, kept in zip(confirmations, replies[4:], strict=True):
                if isinstance(kept, ResponseError):
                    raise ReplyLostError(str(kept))
                reached = kept if isinstance(kept, list) else [kept]
                if any(has < want for has, want in zip(reached, asked[1:], strict=False)):
                    raise ReplyLostError(f"the write is not confirmed as durable ({asked[0]})")
            return reply

    def _ask(self, *command: str | int) -> Any:
        """Run a command on whose reply no step depends."""
        with self._explained():
            (reply,) = self._connection.ask(command)
            if isinstance(reply, ResponseError):
                raise reply
            return reply

    def _index(self, text: bytes | None) -> int:
        if text is None:
            raise SequenceMissingError(self._where, self._sequence)
        if not text.isdigit():
            raise DatabaseInvalidError(self._where, f"{self._key} does not hold a valid index")
        return int(text)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Translate redis-py's errors into those of ``Link``."""
        try:
            yield
        except NoScriptError as error:
            # It was not run; a new connection loads it first.
            raise ReplyLostError(str(error)) from error
        except NoPermissionError as error:
            raise NoRightError(self._where, str(error)) from error
        except ResponseError as error:
            text = str(error)
            if any(each in text for each in NO_RIGHT):
                raise NoRightError(self._where, text) from error
            if "WRONGTYPE" in text:
                raise ForeignDatabaseError(self._where, f"{self._key} is not ours") from error
            if isinstance(error, (OutOfMemoryError, ReadOnlyError)) or any(
                each in text for each in REFUSALS
            ):
                raise EngineUnavailableError(self._where, text) from error
            raise ReplyLostError(text) from error
        except RedisError as error:
            raise ReplyLostError(str(error)) from error
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise ReplyLostError("its reply is not that of a Redis server") from error

    def records(self, after: str) -> tuple[Records, str]:
        cursor, found = self._ask(
            "HSCAN", self._key, after or "0", "MATCH", "node:*", "COUNT", PIECE
        )
        records = {}
        for field, text in pairs(found).items():
            name = field.removeprefix("node:")
            if RECORD.fullmatch(f"{name}={text}"):
                records[name] = text
        return records, "" if cursor == b"0" else cursor.decode()

    def remove(self, records: Records) -> None:
        self._run(
            REMOVE, *(each for name, held in records.items() for each in (f"node:{name}", held))
        )

    def forget(self) -> None:
        self._ask("HDEL", self._key, self._node)


def keys_of(batch: Batch) -> tuple[str | int, ...]:
    """The keys of a batch as arguments of its script."""
    if not batch.keys:
        return ()
    since = [key.since for key in batch.keys]
    pairs = (each for key, place in batch.keys.items() for each in (key.digest.hex(), str(place)))
    return (batch.keep, min(since), max(since), *pairs)


class RedisOpener(EngineOpener):
    """A sequence in the server at a URL in redis-py's format, or in that of ``sentinel``."""

    def _take(self, url: str) -> None:
        self._sentinels = Sentinels(url) if url.startswith(f"{SENTINEL}:") else None
        check_url(self._sentinels.url("host:0") if self._sentinels else url)

    def connect(self, process: uuid.UUID | None, record: uuid.UUID | None) -> RedisLink:
        url = self.url
        if self._sentinels is not None:
            url = self._sentinels.url(self._sentinels.primary(self.where))
        try:
            connection = Connection(url, f"fibcore-{process}")
        except (RedisError, ValueError) as error:
            # ValueError: redis-py's, for an invalid number.
            raise EngineUnavailableError(self.where, without_secrets(str(error), url)) from error
        return RedisLink(self, record, connection)
