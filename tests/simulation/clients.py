"""Simulated clients, by kind, and the history of their requests and answers, for ``judge``."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.simulation.network import ClientSocket, Listener
from tests.simulation.plan import ClientPlan
from tests.simulation.process import Process, Queue
from tests.simulation.world import Violation
from tests.support.checker import ENDPOINTS, Endpoint, Operation, index_of, residue_of

TIMEOUT_SECONDS: Final = 30.0
"""Longest time to wait for an answer on an intact connection."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    index: int | None
    """From the ETag, if there is one."""
    body: bytes


class History:
    """The answers that the clients of a run received.

    Args:
        max_keys: how many keys are kept.
        may_drop: whether the servers may drop more.
    """

    def __init__(self, max_keys: int = 1_000, *, may_drop: bool = False) -> None:
        self._max_keys = max_keys
        self._may_drop = may_drop
        self.operations: list[Operation] = []
        self.errors: list[tuple[float, str, Answer]] = []
        """Error answers other than 412: when, to whom, and the answer."""
        self.timeouts: list[tuple[float, float, str]] = []
        """Requests that timed out: from when to when, and whose."""
        self.broken_connections = 0
        """How often a connection broke before the answer arrived."""
        self.skipped = 0
        """By how much an operator has raised the index."""
        self.pending_keys: dict[str, float] = {}
        """Unresolved idempotency keys, and when each was first sent."""
        self.key_answers: dict[str, Answer | None] = {}
        """The first definite answer to each key."""
        self.final_statuses: list[int] = []
        """The statuses of the final requests; 0 for no answer."""
        self.in_flight: dict[str, tuple[float, Endpoint | None]] = {}
        """Outstanding requests by client: since when, and to which endpoint; None: with a key."""

    def record_key_answer(self, key: str, answer: Answer) -> None:
        """Record and check a definite answer to a key.

        Raises:
            Violation: a key made more than one step, or its answer changed while it was kept.
        """
        first = self.key_answers[key]
        if is_dropped(answer):
            if len(self.key_answers) <= self._max_keys and not self._may_drop:
                raise Violation(
                    f"the key {key} was dropped, but is one of the last {self._max_keys}: {answer}"
                )
        elif first is None:
            since = int(key.partition(":")[0])
            if answer.status == 200 and (answer.index or 0) <= since:
                raise Violation(
                    f"the key {key} was answered with a step older than the key: {answer}"
                )
            if b'"ahead"' in answer.body:
                raise Violation(
                    f"the key {key} was rejected as ahead of its own sequence: {answer}"
                )
            self.key_answers[key] = answer
        elif answer.status != first.status or (answer.status == 200 and answer != first):
            raise Violation(f"the key {key} was answered {first}, then {answer}")

    def record_unknown(self, start: float) -> None:
        """Record a step that may have been made at any time since ``start``."""
        self.operations.append(Operation("next", start))

    def skip_indexes(self, when: float, steps: int) -> None:
        """Record skipped indexes, as if that many steps had got no answer."""
        self.skipped += steps
        self.operations += [Operation("next", when) for _ in range(steps)]


class LostAnswerError(Exception):
    """The connection ended before the answer was complete."""


class Client:
    """A client in a thread of ``process``; ``KINDS`` has the scripts.

    Args:
        process: the process of all clients.
        name: for the trace.
        listeners: where it connects; of several, a random one for each request.
        history: records its answers.
        all_listeners: those of all nodes.
    """

    def __init__(
        self,
        process: Process,
        name: str,
        listeners: Sequence[Listener],
        history: History,
        *,
        all_listeners: Sequence[Listener] = (),
    ) -> None:
        self.process = process
        self.name = name
        self.listeners = listeners
        self.all_listeners = all_listeners
        self.history = history
        self.timeout = TIMEOUT_SECONDS
        self.since = 0.0
        """The earliest time at which its last request can have been processed."""
        self._socket: ClientSocket | None = None
        self._received = b""

    def start(self, script: Callable[["Client"], object]) -> None:
        """Run ``script`` in a new thread."""
        self.process.spawn(lambda: script(self))

    # One request.

    def ask(self, endpoint: Endpoint, expected: int | None = None) -> Answer | None:
        """Send a request and record its answer; return the answer, or None."""
        answer = self.exchange(endpoint, expected)
        self.record(endpoint, expected, self.since, answer)
        return answer

    def exchange(
        self, endpoint: Endpoint, expected: int | None = None, key: str | None = None
    ) -> Answer | None:
        """Send a request; return its answer, or None."""
        world = self.process.world
        start = world.now
        if world.tracing:
            condition = "" if expected is None else f" if it is at {expected}"
            by = "" if key is None else f" with the key {key}"
            world.log(self.name, f"requests {endpoint}{condition}{by}")
        answer: Answer | None = None
        # A keyed step is recorded once for all of its requests.
        self.history.in_flight[self.name] = start, endpoint if key is None else None
        try:
            self.send(endpoint, expected, key)
            answer = self.receive_answer()
        except TimeoutError:
            self.history.timeouts.append((start, world.now, self.name))
            world.log(self.name, "gets no answer in time")
            self.close()
        except (ConnectionError, LostAnswerError) as error:
            world.log(self.name, f"gets no answer: {error!r}")
            self.history.broken_connections += 1
            self.close()
        del self.history.in_flight[self.name]
        self.since = self._earliest_start(start)
        if len(self.listeners) > 1:
            self.close()
        return answer

    def send(self, endpoint: Endpoint, expected: int | None = None, key: str | None = None) -> None:
        """Send a request on the current connection or a new one."""
        self.socket.send(request(endpoint, expected, key))

    @property
    def socket(self) -> ClientSocket:
        """The connection, opened if necessary."""
        if self._socket is None:
            listener = self.listeners[0]
            if len(self.listeners) > 1:
                listener = self.process.world.random.choice(self.listeners)
            self._socket = ClientSocket(self.process, listener)
            self._received = b""
        return self._socket

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def receive_answer(self) -> Answer:
        """Receive the next answer."""
        end = self.process.world.now + self.timeout
        while (at := self._received.find(b"\r\n\r\n")) < 0:
            self._receive(end)
        head = self._received[:at].lower()
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        size = int(fields.get(b"content-length", b"0"))
        status = int(head[9:12])
        if status in (204, 304):
            size = 0
        while len(self._received) < at + 4 + size:
            self._receive(end)
        body = self._received[at + 4 : at + 4 + size]
        self._received = self._received[at + 4 + size :]
        etag = fields.get(b"etag")
        return Answer(status, None if etag is None else index_of(etag.decode()), body)

    def _receive(self, end: float) -> None:
        received = self.socket.receive(max(0.0, end - self.process.world.now))
        if not received:
            raise LostAnswerError
        self._received += received

    def _earliest_start(self, start: float) -> float:
        """The earliest time at which a request of ``start`` can have been processed."""
        return start if self._socket is None else max(start, self._socket.accepted_at)

    def record(
        self, endpoint: Endpoint, expected: int | None, start: float, answer: Answer | None
    ) -> None:
        """Record a request and its answer."""
        world, history = self.process.world, self.history
        if answer is None:
            history.operations.append(Operation(endpoint, start, expected=expected))
            return
        if world.tracing:
            world.log(self.name, f"gets {answer.status}, index {answer.index}")
        if answer.status == 200:
            assert answer.index is not None
            history.operations.append(
                Operation(
                    endpoint,
                    start,
                    world.now,
                    answer.index,
                    residue_of(endpoint, answer.body),
                    expected,
                )
            )
        elif (answer.status == 412 and expected is not None) or is_not_new(answer):
            # Such an answer is a read: it carries the current index.
            assert answer.index not in (None, expected), (
                "412 although the index is the expected one"
            )
            history.operations.append(Operation("current", start, world.now, answer.index))
        else:
            history.errors.append((world.now, self.name, answer))

    def probe(self) -> None:
        """Send a request without recording it."""
        with contextlib.suppress(TimeoutError, ConnectionError, LostAnswerError):
            self.send("current")
            self.receive_answer()
            return
        self.close()

    def ask_until(self, endpoint: Endpoint, expected: int | None) -> Answer:
        """Repeat a request until it gets an answer other than 503."""
        while (answer := self.ask(endpoint, expected)) is None or answer.status == 503:
            self.pause(1.0)
        return answer

    def pause_randomly(self, plan: ClientPlan) -> None:
        """Wait up to the planned pause."""
        if plan.pause:
            self.pause(plan.pause * self.process.world.random.random())

    def pause(self, seconds: float) -> None:
        self.process.sleep(seconds)


# Scripts, by kind of client.


def stepper(client: Client, plan: ClientPlan) -> None:
    for _ in range(plan.requests):
        client.ask("next")
        client.pause_randomly(plan)


def cross_reader(client: Client, plan: ClientPlan) -> None:
    """Step on one node, then read on any."""
    reader = Client(client.process, f"{client.name}'s", client.all_listeners, client.history)
    for _ in range(plan.requests):
        client.ask("next")
        reader.ask("current")
        client.pause_randomly(plan)


def mixed(client: Client, plan: ClientPlan) -> None:
    for _ in range(plan.requests):
        client.ask(client.process.world.random.choice(ENDPOINTS))
        client.pause_randomly(plan)


def conditional(client: Client, plan: ClientPlan) -> None:
    """Step from the last index seen, which may be outdated."""
    index = 0
    for _ in range(plan.requests):
        answer = client.ask("next", index)
        if answer is not None and answer.index is not None:
            index = answer.index
        client.pause_randomly(plan)


def retrier(client: Client, plan: ClientPlan) -> None:
    """Step as the README recommends: repeat a step whose answer was lost."""
    answer = client.ask_until("current", None)
    index = answer.index
    for _ in range(plan.requests):
        while (answer := client.ask_until("next", index)).status == 412:
            index = answer.index
        if answer.status == 200:
            assert answer.index == (index or 0) + 1, "the step was made from another index"
            index = answer.index
        client.pause_randomly(plan)


def keyed(client: Client, plan: ClientPlan) -> None:
    """Step with idempotency keys; repeat each until it is answered, and some much later."""
    step_by_key(client, plan, [client])


def twins(client: Client, plan: ClientPlan) -> None:
    """Two clients, on any nodes, that send the same keys at once."""
    twin = Client(client.process, f"{client.name}'s twin", client.all_listeners, client.history)
    step_by_key(client, plan, [client, twin])


def ahead(client: Client, plan: ClientPlan) -> None:
    """It sends keys once each, with an index that the sequence may reach soon."""
    world, history = client.process.world, client.history
    index = 0
    for _ in range(plan.requests):
        since = index + world.random.choice((0, 1, 2, 4, 9))
        key = f"{since}:{world.random.getrandbits(96):024x}"
        start = history.pending_keys[key] = world.now
        history.key_answers[key] = None
        answer = client.exchange("next", None, key)
        del history.pending_keys[key]
        client.record("next", None, start, answer)
        if answer is not None and answer.index is not None:
            index = answer.index
            if answer.status == 200 and index <= since:
                raise Violation(
                    f"the key {key} was answered with a step older than the key: {answer}"
                )
        client.pause_randomly(plan)


def step_by_key(client: Client, plan: ClientPlan, askers: Sequence[Client]) -> None:
    """Make keyed steps; all ``askers`` send each key at once."""
    world, history = client.process.world, client.history
    random = world.random
    since = 0
    asked: list[tuple[str, int | None]] = []
    for _ in range(plan.requests):
        key = f"{since}:{random.getrandbits(96):024x}"
        expected = since if random.random() < 0.2 else None
        start = history.pending_keys[key] = world.now
        history.key_answers[key] = None
        asked.append((key, expected))
        answers = ask_until_resolved(askers, key, expected)
        del history.pending_keys[key]
        if all(map(is_dropped, answers)):  # The outcome is unknown.
            history.record_unknown(start)
        else:
            first = next(answer for answer in answers if not is_dropped(answer))
            client.record("next", expected, start, first)
        since = max(since, *(answer.index or 0 for answer in answers))
        if random.random() < 0.3:
            ask_until_resolved([client], key, expected)
        client.pause_randomly(plan)
    for key, expected in random.sample(asked, min(len(asked), 3)):
        ask_until_resolved(askers[-1:], key, expected)


def ask_until_resolved(askers: Sequence[Client], key: str, expected: int | None) -> list[Answer]:
    """Have each client repeat a keyed step until it gets a definite answer; return those."""
    answers = Queue(askers[0].process.world)

    def ask(client: Client) -> None:
        random = client.process.world.random
        while (answer := client.exchange("next", expected, key)) is None or is_unresolved(answer):
            # The long pause is a client that was switched off meanwhile.
            if (seconds := random.choice((0.5, 6.0)) * random.random()) > 1.0:
                client.close()
            client.pause(seconds)
        client.history.record_key_answer(key, answer)
        answers.put(answer)

    for each in askers[1:]:
        each.start(ask)
    ask(askers[0])
    found = [answers.get() for _ in askers]
    if len(askers) > 1:
        # A server may close as idle the connections of those answered early.
        for each in askers:
            each.close()
    return found


def is_unresolved(answer: Answer) -> bool:
    """Whether an answer leaves the outcome of a keyed step open."""
    return answer.status == 503 or (answer.status == 409 and b'"outstanding"' in answer.body)


def is_not_new(answer: Answer) -> bool:
    """Whether nothing has stepped because the key can't count as new."""
    return is_dropped(answer) or (answer.status == 409 and b'"ahead"' in answer.body)


def is_dropped(answer: Answer) -> bool:
    """Whether the key is no longer kept."""
    return answer.status == 409 and b'"dropped"' in answer.body


def abandoner(client: Client, plan: ClientPlan) -> None:
    """Step, and disconnect without waiting for the answer."""
    for _ in range(plan.requests):
        start = client.process.world.now
        client.send("next")
        client.record("next", None, start, None)
        client.pause(0.02 * client.process.world.random.random())
        client.close()
        client.pause_randomly(plan)


def crowd(client: Client, plan: ClientPlan) -> None:
    """Many clients at once, with one request each."""
    for number in range(3 * plan.requests):
        one = Client(client.process, f"{client.name}.{number}", client.listeners, client.history)
        one.start(lambda one: one.ask("next"))


KINDS: Final[dict[str, Callable[..., None]]] = {
    each.__name__: each
    for each in (
        stepper,
        cross_reader,
        mixed,
        conditional,
        retrier,
        keyed,
        twins,
        ahead,
        abandoner,
        crowd,
    )
}


KEYED: Final = frozenset({"keyed", "twins", "ahead"})
"""Kinds that use idempotency keys."""


def request(endpoint: Endpoint, expected: int | None = None, key: str | None = None) -> bytes:
    fields = b"" if expected is None else b'If-Match: "%d"\r\n' % expected
    if key is not None:
        fields += b'Idempotency-Key: "%b"\r\n' % key.encode()
    return b"GET /%b HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (endpoint.encode(), fields)
