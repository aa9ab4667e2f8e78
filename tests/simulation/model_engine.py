"""The model of an engine: one sequence, a primary, a replica that confirms, and their faults.

``Rows`` is what an engine must do: one method for each request of a ``Link``, each a transaction.
A reply is sent when the replica has everything that the primary had done by then, so a failover
loses only what nobody was answered.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Literal, cast
from uuid import UUID

from fibcore.problems import (
    EngineUnavailableError,
    KeysUnavailableError,
    NoRightError,
    StoreProblem,
)
from fibcore.stores import IndexConflictError, Store
from tests.simulation.network import Network, Stream
from tests.simulation.process import Process, calling_process
from tests.simulation.product import (
    Batch,
    EngineOpener,
    EngineStore,
    KeyConflictError,
    Link,
    RecordGoneError,
    ReplyLostError,
    check,
    made_by,
)
from tests.simulation.session import LinkFaults, Session
from tests.simulation.world import World

WHERE: Final = "postgresql://engine/fib"
REPLY_SECONDS: Final = 2.0


class Rows:
    """What the engine holds, and its transactions."""

    def __init__(self, max_keys: int) -> None:
        self.index = 0
        self.dropped = 0
        """No key of a step past this index has been dropped."""
        self.made: dict[bytes, int] = {}
        """The indexes of the last keyed steps, by the digests of their keys."""
        self.records: dict[str, tuple[int, int]] = {}
        """By process: the number of its last batch, and the index that it reached, or 0."""
        self.max_keys = max_keys
        self.rejects_dropped = self.rejects_copies = True

    def copy(self) -> "Rows":
        copied = copy.copy(self)
        copied.made, copied.records = dict(self.made), dict(self.records)
        return copied

    def record_of(self, process: str) -> tuple[int, int]:
        if process not in self.records:
            raise RecordGoneError("there is no such record")
        return self.records[process]

    def make(self, process: str, given_up: Sequence[str]) -> None:
        for each in given_up:
            self.records.pop(each, None)
        self.records.setdefault(process, (0, 0))

    def commit(self, process: str, batch: Batch) -> int:
        number, _ = self.record_of(process)
        if batch.number <= number and self.rejects_copies:
            raise IndexConflictError(self.index)
        check(batch.keys, self.made, self.index, self.dropped if self.rejects_dropped else 0)
        after = self.index + batch.steps
        if batch.expected not in (None, self.index) or after > (batch.limit or after):
            raise IndexConflictError(self.index)
        if batch.steps:
            self.made |= made_by(batch.keys, self.index)
            self.index = after
            self.records[process] = batch.number, after
            self.drop_keys()
        return after

    def drop_keys(self) -> None:
        """Drop the oldest keys above the limit, half of them at a time."""
        if len(self.made) > self.max_keys + self.max_keys // 2:
            for digest, index in list(self.made.items())[: -self.max_keys]:
                self.dropped = max(self.dropped, index)
                del self.made[digest]

    def settle(self, process: str, number: int) -> int:
        last, reached = self.record_of(process)
        if last < number:
            self.records[process] = number, 0
        return reached if last == number else 0

    def read(self) -> int:
        return self.index

    def forget(self, process: str) -> None:
        self.records.pop(process, None)

    def set_index(self, index: int) -> None:
        self.index = self.dropped = index
        self.made.clear()


class EngineServer:
    """A server of the engine, on a machine of its own.

    Args:
        engine: whose server it is.
        name: its host name.
    """

    def __init__(self, engine: "ModelEngine", name: str) -> None:
        self.engine = engine
        self.network = engine.network
        self.world: World = engine.network.world
        self.name = name
        self.link_faults = engine.link_faults
        self.is_up = True
        self.is_stopped = False
        self.sessions: list[Session] = []
        self.rows = Rows(engine.max_keys)
        self.replica: EngineServer | None = None
        """Set in a primary that waits for its confirmations."""
        self._done = self._confirmed = 0
        """The number of changes made here, and of those that the replica has."""
        self._to_replica: Stream
        self._to_primary: Stream
        self._unsent: list[tuple[int, Session, object]] = []
        """Replies that wait for the replica."""
        self._held: list[tuple[Session, Any, bool]] = []

    def log(self, what: str) -> None:
        """Write a line to the trace."""
        self.world.log(self.name, what)

    def arrived(self, session: Session, request: Any, *, is_copy: bool = False) -> None:
        """Execute a request, unless the server is stopped; nobody waits for the reply to a copy."""
        if self.is_stopped:
            self._held.append((session, request, is_copy))
        elif self.is_up and (is_copy or not session.is_over):
            reply = self._execute(*request)
            self._done += 1
            self._replicate()
            if not is_copy:
                self._unsent.append((self._done, session, reply))
            self._send_confirmed()

    def _execute(self, name: str, *arguments: Any) -> object:
        engine, reads = self.engine, name == "read"
        if self is not engine.primary and self.replica is None:
            return ReplyLostError("this server is not the primary")
        if engine.refuses_keys and name == "commit" and arguments[1].keys:
            return KeysUnavailableError(WHERE, "there is no table of keys")
        if engine.refuses == "all" or (engine.refuses == "writes" and not reads):
            return NoRightError(WHERE, "permission denied")
        if engine.is_full and not reads:
            return EngineUnavailableError(WHERE, "no space left")
        before = self.rows.copy()
        try:
            return getattr(self.rows, name)(*arguments)
        except (IndexConflictError, KeyConflictError, RecordGoneError) as error:
            self.rows = before
            return error

    # Replication.

    def follow(self, primary: "EngineServer") -> None:
        """Become the replica of ``primary``, with all that it has."""
        self.log(f"follows {primary.name}")
        self.replica, self.rows = None, primary.rows.copy()
        self.disconnect()
        primary.replica = self
        primary._confirmed = self._done = primary._done
        names = (primary.name, self.name), (self.name, primary.name)
        primary._to_replica = Stream(self.network, *names[0], partial(self._take_changes, primary))
        self._to_primary = Stream(self.network, *names[1], primary._take_confirmation)

    def _replicate(self) -> None:
        if self.replica is not None:
            self._to_replica.send((self._done, self.rows.copy()))

    def _take_changes(self, primary: "EngineServer", changes: tuple[int, Rows]) -> None:
        number, rows = changes
        if self.is_up and primary.replica is self and self is not self.engine.primary:
            if number > self._done:
                self._done, self.rows = number, rows
            self._to_primary.send(number)

    def _take_confirmation(self, number: int) -> None:
        self._confirmed = max(self._confirmed, number)
        self._send_confirmed()

    def _send_confirmed(self) -> None:
        waits = self.replica is not None and self.engine.waits_for_replica
        unsent, self._unsent = self._unsent, []
        for number, session, reply in unsent:
            if waits and number > self._confirmed:
                self._unsent.append((number, session, reply))
            else:
                session.reply(reply)

    # Faults.

    def disconnect(self) -> None:
        """Reset all sessions."""
        self._unsent.clear()
        self._held.clear()
        for each in list(self.sessions):
            each.reset()

    def kill(self) -> None:
        """Crash; ``start`` restarts it with what it had: the model's disk loses nothing."""
        if self.is_up:
            self.log("is killed")
            self.is_up = self.is_stopped = False
            self.disconnect()

    def start(self) -> None:
        """Restart."""
        self.is_up = True
        # What a replica missed meanwhile it gets with the next change.
        self._replicate()

    def stop(self) -> None:
        """Stop as by SIGSTOP."""
        if self.is_up and not self.is_stopped:
            self.log("is stopped")
            self.is_stopped = True

    def resume(self) -> None:
        """Continue as by SIGCONT."""
        self.is_stopped = False
        held, self._held = self._held, []
        for session, request, is_copy in held:
            self.arrived(session, request, is_copy=is_copy)


class ModelEngine:
    """An engine with a primary, and a replica if ``replicated``.

    Args:
        network: connects it with the nodes.
        max_keys: how many keys it keeps at least.
    """

    def __init__(self, network: Network, max_keys: int, *, replicated: bool) -> None:
        self.network = network
        self.max_keys = max_keys
        self.link_faults = LinkFaults()
        self.refuses: Literal["", "writes", "all"] = ""
        """For what the nodes have no right."""
        self.refuses_keys = self.is_full = False
        self.waits_for_replica = True
        """Whether nobody is answered before the replica has confirmed."""
        self.primary = EngineServer(self, "engine0")
        self.servers = [self.primary]
        if replicated:
            self.servers.append(EngineServer(self, "engine1"))
            self.servers[1].follow(self.primary)

    def set_index(self, index: int) -> None:
        """Set it as an operator does, who waits until that is done everywhere."""
        server = self.primary
        server.rows.set_index(index)
        server._done += 1
        for each in self.servers:
            each._done, each.rows = server._done, server.rows.copy()

    def fail_over(self, *, kills: bool) -> None:
        """Promote the replica, which may lack what it has not confirmed."""
        old, new = self.primary, self.primary.replica
        if new is not None and new.is_up and not new.is_stopped:
            new.log("is promoted")
            self.primary = new
            if kills:
                old.kill()

    def restore(self) -> None:
        """Start and resume all servers, and heal the links between them."""
        for each in self.servers:
            for other in self.servers:
                self.network.heal(each.name, other.name)
            if each is not self.primary and self.primary.replica is not each:
                each.follow(self.primary)
            each.start()
            each.resume()


class ModelLink(Link):
    """A link over a ``Session``: each call is one request."""

    _connection: Session

    def _begin(self) -> None:
        """Nothing: the primary is found by its reply to the first request."""

    def _ask(self, name: str, *arguments: object) -> Any:
        try:
            reply = self._connection.ask((name, *arguments), REPLY_SECONDS)
        except (ConnectionError, TimeoutError) as error:
            raise ReplyLostError(f"no reply: {error}") from error
        if isinstance(reply, Exception):
            raise reply
        return reply

    def make(self, record: UUID, given_up: Sequence[UUID]) -> None:
        self._ask("make", str(record), [str(each) for each in given_up])
        self._record = record

    def commit(self, batch: Batch) -> int:
        return int(self._ask("commit", str(self._record), batch))

    def settle(self, number: int) -> int:
        return int(self._ask("settle", str(self._record), number))

    def read(self) -> int:
        return int(self._ask("read"))

    def records(self, after: str) -> tuple[dict[str, str], str]:  # noqa: ARG002
        return {}, ""  # Nothing to clean: see tests/stores.

    def remove(self, records: Any) -> None:
        raise NotImplementedError

    def forget(self) -> None:
        self._ask("forget", str(self._record))

    def create(self, index: int) -> int | None:
        raise NotImplementedError

    def set_index(self, index: int, *, lower: bool) -> int:
        raise NotImplementedError


class ModelOpener(EngineOpener):
    """The sequence in ``engine``.

    Args:
        engine: where it is.
        wrap_link, wrap_store: put a sabotage in place of a link or a store.
    """

    def __init__(
        self,
        engine: ModelEngine,
        wrap_link: Callable[[Link], Link],
        wrap_store: Callable[[Store], Store],
    ) -> None:
        self.engine = engine
        self._wrap_link, self._wrap_store = wrap_link, wrap_store
        super().__init__(WHERE, "default")

    def _take(self, url: str) -> None:
        pass

    def open(self) -> EngineStore:
        return cast("EngineStore", self._wrap_store(super().open()))

    def connect(self, process: UUID | None, record: UUID | None) -> Link:  # noqa: ARG002
        """Connect to the first server that says that it is the primary."""
        here: Process = calling_process()
        problem: Exception | None = None
        for server in self.engine.servers:
            try:
                session = Session(here, server, REPLY_SECONDS)
            except (ConnectionError, TimeoutError) as error:
                problem = error
                continue
            link = ModelLink(self, record, session)
            try:
                link.read()
            except (ReplyLostError, StoreProblem) as error:
                link.close()
                problem = error
            else:
                return self._wrap_link(link)
        if isinstance(problem, StoreProblem):
            raise problem
        raise EngineUnavailableError(WHERE, str(problem))
