"""A simulated Redis: commands on one hash, an append-only file, and a replica.

The store's scripts run unchanged, in Lua. The client is as much of redis-py as the store uses, over
a session; commands sent in one round trip are one request.
"""

import contextlib
import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from lupa import lua51
from redis.exceptions import ConnectionError as NoConnectionError
from redis.exceptions import NoPermissionError, NoScriptError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as NoReplyError

from fibcore.stores.deadline import Deadline
from fibcore.stores.redis_connection import CONNECT_SECONDS, REPLY_SECONDS, Command
from tests.simulation.engine import EngineServer, LinkFaults, Session
from tests.simulation.network import Network
from tests.simulation.process import calling_process
from tests.simulation.world import EPOCH

SYNC_INTERVAL: Final = 0.5
"""``appendfsync everysec``, halved, so that several requests in a row are still prompt."""

SYNC_SECONDS: Final = 0.002
"""Longest duration of a sync."""

WRITE_COMMANDS: Final = {b"HSET", b"HDEL"}

LUA: Final = lua51.LuaRuntime(encoding=None)
_scripts: Final[dict[bytes, Any]] = {}


class Redis(EngineServer):
    """A server.

    Args:
        settings: the configuration for ``CONFIG GET``.
        version: the server version.
    """

    def __init__(
        self,
        network: Network,
        name: str,
        link_faults: LinkFaults,
        settings: Mapping[str, str],
        version: str = "7.0.0",
    ) -> None:
        super().__init__(network, name, link_faults)
        self.settings = dict(settings)
        self.version = version
        self.role = "master"
        self.replicas: list[Redis] = []
        self.hash: dict[bytes, bytes] = {}
        """The value of the only key."""
        self.offset = 0
        """Replication offset: the number of changes."""
        self.synced: dict[bytes, bytes] = {}
        """The hash on the disk, and its offset."""
        self.synced_offset = 0
        self._sync_due = 0.0
        self.denied: set[bytes] = set()
        """Commands that the user may not run."""
        self.scripts: dict[str, bytes] = {}
        self._changed = False

    # Faults.

    def kill(self) -> None:
        """Crash; the page cache keeps what was written."""
        super().kill()
        self.scripts.clear()

    def lose_power(self) -> None:
        """Crash, and lose unsynced data."""
        self.kill()
        self.hash, self.offset = self.synced, self.synced_offset

    def promote(self) -> None:
        """Make a replica the primary."""
        self.log("becomes the primary")
        self.role = "master"

    def demote(self, primary: "Redis") -> None:
        """Make it a replica of ``primary``, with the primary's data."""
        self.log(f"becomes a replica of {primary.name}")
        self.role = "slave"
        self.hash, self.offset = primary.hash, primary.offset
        self.synced, self.synced_offset = self.hash, self.offset
        self.replicas.clear()
        primary.replicas = [self]

    def do_by_hand(self, hash_: dict[bytes, bytes]) -> None:
        """Replace the hash, as an operator does."""
        if self.is_up and self.role == "master":
            self.hash = hash_
            offset = self._note_write()
            if self.settings.get("appendfsync") == "always":
                self._sync(offset, hash_)

    # Commands.

    def take(self, session: Session, request: tuple[Command, ...]) -> None:
        self._changed = False
        replies: list[Any] = []
        queued: list[list[bytes]] | None = None
        for command in request:
            words = [as_bytes(each) for each in command]
            if words[0] == b"MULTI":
                queued = []
                replies.append(b"OK")
            elif words[0] == b"EXEC":
                assert queued is not None
                if any(isinstance(each, ResponseError) for each in replies):
                    replies.append(ResponseError("EXECABORT Transaction discarded"))
                else:
                    replies.append([self._try_command(each) for each in queued])
                queued = None
            elif queued is not None:
                # Permissions are checked when a command is queued, all else at execution.
                denied = words[0] in self.denied
                replies.append(no_permission(words[0]) if denied else b"QUEUED")
                queued.append(words)
            else:
                replies.append(self._try_command(words))
        seconds = 0.0
        if self._changed:
            session.written_offset = self._note_write()
            if self.settings.get("appendfsync") == "always":
                seconds = SYNC_SECONDS * self.world.random.random()
        offset, state = self.offset, self.hash

        def leave() -> None:
            if session.is_over:
                return
            if seconds:
                self._sync(offset, state)
            longest = max((int(each[-1]) / 1000 for each in request if waits(each)), default=0.0)
            self._wait(session, request, replies, self.world.now + longest)

        self.world.after(seconds, None, leave)

    def _note_write(self) -> int:
        """Replicate a change; return its offset."""
        self.offset += 1
        for replica in self.replicas:
            self.world.after(self.network.delay(), None, self._replicate, replica)
        return self.offset

    def _sync(self, offset: int, state: dict[bytes, bytes]) -> None:
        if offset > self.synced_offset:
            self.synced, self.synced_offset = state, offset

    def _wait(
        self, session: Session, request: tuple[Command, ...], replies: list[Any], end: float
    ) -> None:
        """Reply when ``WAIT`` and ``WAITAOF`` are satisfied, or at their timeout."""
        if session.is_over:
            return
        random = self.world.random.random
        kept = sum(
            each.offset >= session.written_offset and self._reaches(each) for each in self.replicas
        )
        if self.world.now >= self._sync_due:
            self._sync_due = self.world.now + SYNC_INTERVAL
            self._sync(self.offset, self.hash)
        aof = int(self.synced_offset >= session.written_offset)
        sent: list[Any] = []
        satisfied = True
        for command, reply in zip(request, replies, strict=True):
            if not waits(command):
                sent.append(reply)
            elif self.role != "master":
                sent.append(ResponseError("UNBLOCKED force unblock from blocking operation"))
            elif command[0] == "WAIT":
                satisfied = satisfied and kept >= int(command[1])
                sent.append(kept)
            else:
                satisfied = satisfied and aof >= int(command[1]) and kept >= int(command[2])
                sent.append([aof, kept])
        if satisfied or self.world.now >= end:
            session.reply(sent)
        else:
            seconds = 0.2 * random()
            self.world.after(seconds, None, self._wait, session, request, replies, end)

    def _reaches(self, replica: "Redis") -> bool:
        return replica.is_up and not self.network.is_cut(replica.name, self.name)

    def _replicate(self, replica: "Redis") -> None:
        """Copy the data to ``replica``, now or when it is reachable."""
        if replica not in self.replicas or not self.is_up:
            return
        if self.network.is_cut(self.name, replica.name) or replica.is_stopped or not replica.is_up:
            self.world.after(0.2, None, self._replicate, replica)
        else:
            replica.hash, replica.offset = self.hash, self.offset
            replica._sync(self.offset, self.hash)

    def _try_command(self, command: list[bytes]) -> Any:
        try:
            return self._execute(command)
        except ResponseError as error:
            return error

    def _execute(self, command: list[bytes]) -> Any:
        name = command[0].upper()
        self._check(name)
        match name:
            case b"HELLO":
                return [b"server", b"redis", b"version", self.version.encode()]
            case b"ROLE":
                return [self.role.encode(), 0, []]
            case b"CONFIG":
                prefix = command[2].decode()
                return [
                    each.encode()
                    for pair in self.settings.items()
                    for each in pair
                    if pair[0] == prefix or pair[0].startswith(prefix.partition("*")[0])
                ]
            case b"INFO":
                return (
                    f"redis_version:{self.version}\r\nconnected_slaves:{len(self.replicas)}\r\n"
                    f"role:{self.role}\r\n"
                ).encode()
            case b"SCRIPT":
                sha = hashlib.sha1(command[2], usedforsecurity=False).hexdigest()
                self.scripts[sha] = command[2]
                return sha.encode()
            case b"EVALSHA":
                script = self.scripts.get(command[1].decode())
                if script is None:
                    raise NoScriptError("NOSCRIPT No matching script.")
                return self._run(script, command[3:])
            case b"WAIT" | b"WAITAOF":
                return None
            case b"PING":
                return True
        return self._hash_command(name, command)

    def _check(self, name: bytes) -> None:
        if name in self.denied:
            raise no_permission(name)
        if name in WRITE_COMMANDS and self.role != "master":
            raise ReadOnlyError("READONLY You can't write against a read only replica.")

    def _hash_command(self, name: bytes, command: list[bytes]) -> Any:
        hash_ = self.hash
        match name:
            case b"HGET":
                return hash_.get(command[2])
            case b"HMGET":
                return [hash_.get(each) for each in command[2:]]
            case b"HSCAN":
                found = [each for each in hash_.items() if each[0].startswith(b"node:")]
                return [b"0", [each for pair in found for each in pair]]
            case b"HGETALL":
                return [each for pair in hash_.items() for each in pair]
            case b"HLEN":
                return len(hash_)
            case b"HEXISTS":
                return int(command[2] in hash_)
            case b"HSET":
                self._change()
                for key, value in zip(command[2::2], command[3::2], strict=True):
                    self.hash[key] = value
                return 1
            case b"HDEL":
                self._change()
                return sum(self.hash.pop(each, None) is not None for each in command[2:])
        raise ResponseError(f"ERR unknown command '{name.decode()}'")

    def _change(self) -> None:
        if not self._changed:
            self._changed = True
            # Replicas and the disk share the old dict.
            self.hash = dict(self.hash)

    def _run(self, script: bytes, arguments: list[bytes]) -> Any:
        compiled = _scripts.get(script)
        if compiled is None:
            compiled = _scripts[script] = LUA.compile(script)
        lua = LUA.globals()
        lua[b"redis"] = LUA.table_from({b"call": self._call})
        lua[b"KEYS"] = LUA.table(arguments[0])
        lua[b"ARGV"] = LUA.table(*arguments[1:])
        try:
            result = compiled()
        except lua51.LuaError as error:
            raise ResponseError(f"ERR {error}") from error
        return [as_bytes(each) for each in result.values()]

    def _call(self, *command: Any) -> Any:
        name, *rest = (as_bytes(each) for each in command)
        name = name.upper()
        self._check(name)
        if name == b"TIME":
            now = EPOCH + self.world.now + self.clock
            return LUA.table(b"%d" % now, b"0")
        result = self._hash_command(name, [name, *rest])
        if result is None:
            return False
        return LUA.table_from(result) if isinstance(result, list) else result


def as_bytes(value: Any) -> Any:
    """Encode an argument or a reply."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return b"%d" % value
    return value


def no_permission(name: bytes) -> NoPermissionError:
    """Return the error for a command that the user may not run."""
    return NoPermissionError(f"this user has no permissions to run the '{name.decode()}'")


def waits(command: Command) -> bool:
    """Whether a command waits for earlier writes of its connection."""
    return command[0] in ("WAIT", "WAITAOF")


class Connection:
    """``redis_connection.Connection``, over a session."""

    hosts: ClassVar[Mapping[str, EngineServer]]
    """Servers by host name; a failover changes these."""

    def __init__(self, url: str, name: str) -> None:
        self._deadline = Deadline()
        server = self.hosts[urlsplit(url).hostname or ""]
        try:
            self._session = Session(calling_process(), server, CONNECT_SECONDS)
        except ConnectionError as error:
            raise NoConnectionError(str(error)) from error
        except TimeoutError as error:
            raise NoReplyError("Timeout connecting to server") from error
        self._session.name = name

    def in_one(self) -> contextlib.AbstractContextManager[None]:
        return self._deadline.within(REPLY_SECONDS)

    def ask(self, *commands: Command) -> list[Any]:
        """Send commands in one request; return their replies."""
        try:
            with self.in_one():
                replies = self._session.ask(commands, self._deadline.left())
        except ConnectionError as error:
            raise NoConnectionError(str(error)) from error
        except TimeoutError as error:
            raise NoReplyError("Timeout reading from server") from error
        assert isinstance(replies, list)
        return replies

    def packed(self, *commands: Command) -> tuple[Command, ...]:
        """Return the commands for ``ask_packed``."""
        return commands

    def ask_packed(self, commands: tuple[Command, ...], count: int) -> list[Any]:
        assert len(commands) == count
        return self.ask(*commands)

    def has_input(self) -> bool:
        return self._session.has_input()

    def close(self) -> None:
        self._session.close()
