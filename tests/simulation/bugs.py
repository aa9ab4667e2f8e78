"""Defects that are planted, to see that seeds find them: each is a small change of the source.

python -m tests.simulation --bug no_identity --seeds 1000
"""

import contextlib
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from fibcore.shared_stepper import SharedStepper
from fibcore.stepper import Stepper
from fibcore.stores import redis
from fibcore.stores.engine import EngineStore
from fibcore.stores.etcd import EtcdLink
from fibcore.stores.postgresql import PostgresqlLink
from fibcore.stores.redis import RedisLink
from tests.simulation.plan import Plan, plan_of
from web.endpoints import sequence
from web.http.connection import Connection
from web.http.protocol import Protocol


class Bug(NamedTuple):
    """A defect."""

    owner: Any
    """Of what is changed: a class or a module."""
    name: str
    """A function, or a text that is sent to an engine."""
    before: str
    after: str
    engines: tuple[str, ...] = ("etcd", "postgresql", "redis")
    """Where it shows."""
    faults_of: str | None = None
    """The faults that bring it out; see ``plan.TOGETHER``."""

    def plan_of(self, seed: int) -> Plan:
        """The plan with which a seed is to find it."""
        return plan_of(seed, self.engines, self.faults_of)


IN_DOUBT: Final = "if self.doubt is None and not (is_sent and isinstance(error, ReplyLostError)):"
REDIS: Final = ("redis",)
ETCD: Final = ("etcd",)
POSTGRESQL: Final = ("postgresql",)

BUGS: Final = {
    "answers_before_the_commit": Bug(
        SharedStepper,
        "_inquire",
        "index = self._store.advance(steps, expected, self._max_index, keys)",
        """index = self.sequence.index + question.steps
                self._loop.call_soon_threadsafe(self._take_reply, index, False, 0.0)
                self._store.advance(steps, expected, self._max_index, keys)
                return lambda: None""",
    ),
    "answers_what_was_not_committed": Bug(
        SharedStepper,
        "_take_reply",
        "if elsewhere or not (steps or expected in (None, index)):",
        "if False:",
    ),
    "turns_steps_down_by_what_it_knew_before": Bug(
        SharedStepper,
        "_take_reply",
        "if elsewhere or not (steps or expected in (None, index)):",
        "if elsewhere:",
    ),
    "answers_steps_that_were_turned_down": Bug(Stepper, "_answer", "if not failures:", "if True:"),
    "moves_the_sequence_before_it_answers": Bug(
        SharedStepper,
        "_inquire",
        "advance_to(self.sequence, start)",
        "advance_to(self.sequence, index)",
    ),
    "reads_from_memory": Bug(
        SharedStepper,
        "look",
        "self._looking.append(deliver)",
        "self._loop.call_soon(deliver, self.sequence.snapshot)\n        return",
    ),
    "forgets_the_reads_that_wait": Bug(
        SharedStepper, "_go_on", "if self._looking and not self._waiting:", "if False:"
    ),
    "tries_nothing_again": Bug(
        SharedStepper,
        "_ask_unasked",
        "self._unasked = self._loop.call_later(wait, self._ask_unasked)",
        "pass",
    ),
    "never_says_that_trouble_is_over": Bug(
        SharedStepper, "_take_reply", "self.trouble = None", "pass"
    ),
    "turns_a_batch_away_that_is_under_way": Bug(
        SharedStepper,
        "_lose_patience",
        "self._turn_away()",
        "self._waiting[:0], self._batch = self._batch, []\n        self._turn_away()",
    ),
    "takes_what_nobody_can_know_for_undone": Bug(
        SharedStepper,
        "_inquire",
        "except (StoreUnavailableError, DatabaseInvalidError) as error:",
        "except Exception as error:",
        faults_of="a record removed in doubt",
    ),
    "no_identity": Bug(
        EngineStore,
        "_done",
        "return link.commit(batch)",
        "self._number += 1\n                    "
        "return link.commit(batch._replace(number=self._number))",
        faults_of="lost replies",
    ),
    "a_new_identity_at_each_connect": Bug(
        EngineStore,
        "_connected",
        "if self._identity.record is None:",
        "if True:",
        faults_of="lost replies",
    ),
    "one_number_for_all_batches": Bug(
        EngineStore, "advance", "self._number += 1", "self._number = 1"
    ),
    "expected_is_ignored": Bug(
        EngineStore, "advance", "steps, expected, limit)", "steps, None, limit)"
    ),
    "the_limit_is_not_passed_on": Bug(
        EngineStore, "advance", "steps, expected, limit)", "steps, expected, None)"
    ),
    "nothing_has_stepped_when_a_reply_is_lost": Bug(
        EngineStore,
        "_done",
        IN_DOUBT,
        "if isinstance(error, ReplyLostError):\n"
        "                    raise EngineUnavailableError(self.where, str(error)) from error\n"
        "                if self.doubt is None:",
        faults_of="lost replies",
    ),
    "nothing_has_stepped_when_it_is_unavailable_then": Bug(
        EngineStore,
        "_done",
        IN_DOUBT,
        "if isinstance(error, StoreUnavailableError) or self.doubt is None and not ("
        "is_sent and isinstance(error, ReplyLostError)):",
        faults_of="lost replies",
    ),
    "nothing_has_stepped_when_a_right_is_gone_then": Bug(
        EngineStore,
        "_done",
        IN_DOUBT,
        "if isinstance(error, DatabaseInvalidError) or self.doubt is None and not ("
        "is_sent and isinstance(error, ReplyLostError)):",
        faults_of="a right lost in doubt",
    ),
    "nothing_has_stepped_when_the_record_is_gone": Bug(
        EngineStore,
        "_dropping_if_it_fails",
        "if self.doubt is None:",
        "self.doubt = None\n            if True:",
        faults_of="a record removed in doubt",
    ),
    "a_late_batch_is_accepted": Bug(
        redis,
        "COMMIT",
        "if higher(last, number) then return {'elsewhere', index} end",
        "",
        REDIS,
        faults_of="late beside a restart",
    ),
    "a_batch_that_is_asked_about_is_done_again": Bug(
        redis,
        "COMMIT",
        "if last == number then",
        "if false then",
        REDIS,
        faults_of="lost replies",
    ),
    "a_batch_needs_no_record": Bug(
        redis,
        "COMMIT",
        "if not record then return {'gone'} end",
        "record = record or '0 0'",
        REDIS,
        faults_of="late beside a restart",
    ),
    "the_index_is_moved_before_the_limit_is_looked_at": Bug(
        redis,
        "COMMIT",
        "reached = sum(index, steps)",
        "reached = sum(index, steps) redis.call('HSET', key, 'index', reached)",
        REDIS,
    ),
    "where_it_is_kept_is_not_asked": Bug(
        RedisLink,
        "_ask_primary",
        "if any(has < want for has, want in zip(reached, asked[1:], strict=False)):",
        "if False:",
        REDIS,
        faults_of="failover",
    ),
    "reads_what_may_be_lost_in_redis": Bug(
        RedisLink,
        "read",
        "if self._durability.confirmations:",
        "if False:",
        REDIS,
        faults_of="power",
    ),
    "the_index_is_not_compared": Bug(
        EtcdLink, "_put", "for key, value in seen\n", "for key, value in seen[1:]\n", ETCD
    ),
    "reads_from_a_member_that_is_behind": Bug(
        EtcdLink,
        "_ranges",
        '{"key": coded(key)}',
        '{"key": coded(key), "serializable": True}',
        ETCD,
    ),
    "takes_no_space_for_undone": Bug(
        EtcdLink, "commit", "if not self._has_been_done(batch):", "if True:", ETCD
    ),
    "takes_a_warning_for_a_confirmation": Bug(
        PostgresqlLink,
        "_hear",
        'self._has_doubts |= source is None or source.endswith("syncrep.c")',
        "pass",
        POSTGRESQL,
        faults_of="failover",
    ),
    "what_was_asked_about_is_not_confirmed": Bug(
        PostgresqlLink,
        "commit",
        "self._confirms and self._ask(TOUCH, self._sequence, self._record) is None",
        "False",
        POSTGRESQL,
        faults_of="failover",
    ),
    "conditions_are_not_looked_at": Bug(
        sequence,
        "step",
        "_condition(service, request) if request.conditional else None",
        "None",
    ),
    "drops_the_second_part_of_a_head": Bug(
        Protocol,
        "data_received",
        "elif self.phase is ARRIVING:",
        "elif False:",
    ),
    "answers_the_last_of_piped_requests_alone": Bug(
        Protocol,
        "_take",
        "if self.phase in (ANSWERING, SENDING):",
        "if self.phase is SENDING:",
    ),
    "forgets_a_client_that_reads_slowly": Bug(
        Connection,
        "resume_writing",
        "elif self.phase is SENDING:",
        "elif False:",
    ),
    "closes_at_a_stop_without_an_answer": Bug(
        Connection,
        "shutdown",
        "if self.phase not in (ANSWERING, SENDING):",
        "if True:",
        faults_of="restarts",
    ),
}


@contextlib.contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Have the defect of this name, if it is one, for as long as this lasts."""
    if name is None:
        yield
        return
    bug = BUGS[name]
    was = vars(bug.owner)[bug.name]
    if isinstance(was, str):
        setattr(bug.owner, bug.name, changed(was, bug))
        try:
            yield
        finally:
            setattr(bug.owner, bug.name, was)
    else:
        function = inspect.unwrap(was)
        code = function.__code__
        # In its place, as tables hold the function.
        function.__code__ = compiled(function, bug)
        try:
            yield
        finally:
            function.__code__ = code


def changed(text: str, bug: Bug) -> str:
    """The text with the defect in it."""
    if text.count(bug.before) != 1:
        raise ValueError(f"{bug.name} has {bug.before!r} in it {text.count(bug.before)} times")
    return text.replace(bug.before, bug.after)


def compiled(function: Callable[..., Any], bug: Bug) -> types.CodeType:
    """The code of the function with the defect in it."""
    source = changed(inspect.getsource(function), bug)
    made: dict[str, Any] = {}
    module = sys.modules[function.__module__]
    is_method = source.startswith(" ")
    if is_method:
        # What ``super()`` looks for is a variable around it.
        source = f"def make(__class__):\n{source}\n    return {function.__name__}"
    exec(compile(source, f"<{bug.name}>", "exec"), {**vars(module)}, made)
    found = inspect.unwrap(made["make"](bug.owner) if is_method else made[function.__name__])
    assert isinstance(found, types.FunctionType)
    return found.__code__
