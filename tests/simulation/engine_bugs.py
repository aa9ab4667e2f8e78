"""Defects to plant in the shared stepper, the engine stores, and the HTTP protocol."""

from typing import Final

from fibcore.shared_stepper import SharedStepper
from fibcore.stepper import Stepper
from fibcore.stores import postgresql, redis
from fibcore.stores.engine import EngineStore
from fibcore.stores.etcd import EtcdLink
from fibcore.stores.postgresql import PostgresqlLink
from fibcore.stores.redis import RedisLink
from tests.simulation.bug import Bug
from web.endpoints import next as stepping
from web.http.connection import Connection
from web.http.protocol import Protocol

IN_DOUBT: Final = "if self.doubt is None and not (is_sent and isinstance(error, ReplyLostError)):"
REDIS: Final = ("redis",)
ETCD: Final = ("etcd",)
POSTGRESQL: Final = ("postgresql",)
KEYED: Final = ("keyed",)

NOT_POLLED: Final = Bug(
    EngineStore, "_has_changed", "return not link.is_as_it_was()", "return False"
)
"""The poll of settings each second hides most effects of a reply without its basis."""

SAME_NUMBER: Final = Bug(
    EngineStore, "_done", "batch = batch._replace(number=self._number)", "pass"
)
"""A batch is sent again under the number of the first copy."""

LEAVES_OTHERS: Final = Bug(
    PostgresqlLink, "_begin", "self._ask(END_OTHERS, name_of(self._process))", "pass"
)
"""Statements of a process's earlier connections are not ended."""

ENGINE_BUGS: Final = {
    "acknowledges_before_the_commit": Bug(
        SharedStepper,
        "_inquire",
        "index = self._store.advance(steps, expected, self._max_index, keys)",
        """index = self.sequence.index + question.steps
                self._loop.call_soon_threadsafe(self._take_reply, index, False)
                self._store.advance(steps, expected, self._max_index, keys)
                return lambda: None""",
    ),
    "acknowledges_uncommitted_steps": Bug(
        SharedStepper,
        "_take_reply",
        "if elsewhere or not (steps or expected in (None, index)):",
        "if False:",
    ),
    "rejects_steps_based_on_a_stale_index": Bug(
        SharedStepper,
        "_take_reply",
        "if elsewhere or not (steps or expected in (None, index)):",
        "if elsewhere:",
    ),
    "acknowledges_rejected_steps": Bug(Stepper, "_answer", "if not failures:", "if True:"),
    "advances_the_sequence_before_answering": Bug(
        SharedStepper,
        "_inquire",
        "advance_to(self.sequence, start)",
        "advance_to(self.sequence, index)",
    ),
    "reads_from_memory": Bug(
        SharedStepper,
        "read",
        "self._waiting_reads.append(deliver)",
        "self._loop.call_soon(deliver, self.sequence.snapshot)\n        return",
    ),
    "answers_a_read_with_an_older_reply": Bug(
        SharedStepper,
        "_answer_reads",
        "reads, self._asked_reads = self._asked_reads, []",
        "reads = self._asked_reads + self._waiting_reads; "
        "self._asked_reads, self._waiting_reads = [], []",
        combination="late replies",
    ),
    "forgets_waiting_reads": Bug(
        SharedStepper, "_go_on", "if self._waiting_reads and not self._waiting:", "if False:"
    ),
    "never_retries": Bug(
        SharedStepper,
        "_ask_unasked",
        "self._unasked = self._loop.call_later(wait, self._ask_unasked)",
        "pass",
    ),
    "never_clears_a_problem": Bug(SharedStepper, "_take_reply", "self.problem = None", "pass"),
    "rejects_a_batch_in_flight": Bug(
        SharedStepper,
        "_lose_patience",
        "self._reject_waiting()",
        "self._waiting[:0], self._batch = self._batch, []\n        self._reject_waiting()",
    ),
    "treats_an_unknown_outcome_as_undone": Bug(
        SharedStepper,
        "_inquire",
        "except (StoreUnavailableError, DatabaseInvalidError) as error:",
        "except Exception as error:",
        combination="record removed in doubt",
    ),
    "batches_have_no_identity": Bug(
        EngineStore,
        "_done",
        "if reached := link.settle(batch.number):",
        "if reached := 0:",
        combination="lost replies",
    ),
    "a_batch_rejected_in_doubt_may_step_later_in_redis": Bug(
        redis,
        "SETTLE",
        "redis.call('HSET', key, node, number .. ' ' .. reached)",
        "redis.call('HSET', key, node, record)",
        REDIS,
        combination="late requests",
        client_kinds=("ahead", "stepper"),
        also=(SAME_NUMBER,),
    ),
    "a_batch_rejected_in_doubt_may_step_later_in_postgresql": Bug(
        postgresql,
        "SETTLE",
        "batch = $3, ",
        "",
        POSTGRESQL,
        combination="late requests",
        client_kinds=("ahead", "stepper"),
        also=(SAME_NUMBER, LEAVES_OTHERS),
    ),
    "new_identity_at_each_connect": Bug(
        EngineStore,
        "_connected",
        "if self._identity.record is None:",
        "if True:",
        combination="lost replies",
    ),
    "keeps_a_connection_that_owes_a_reply": Bug(
        EngineStore,
        "_dropping_if_it_fails",
        "# Another host may have taken over.\n            self._drop()",
        "pass",
        combination="late requests",
    ),
    "one_number_for_all_batches": Bug(
        EngineStore, "advance", "self._number += 1", "self._number = 1"
    ),
    "expected_is_ignored": Bug(
        EngineStore, "advance", "steps, expected, limit, keys", "steps, None, limit, keys"
    ),
    "the_limit_is_ignored": Bug(
        EngineStore, "advance", "steps, expected, limit, keys", "steps, expected, None, keys"
    ),
    "a_lost_reply_counts_as_undone": Bug(
        EngineStore,
        "_done",
        IN_DOUBT,
        "if isinstance(error, ReplyLostError):\n"
        "                    raise EngineUnavailableError(self.where, str(error)) from error\n"
        "                if self.doubt is None:",
        combination="lost replies",
    ),
    "unavailability_after_a_lost_reply_counts_as_undone": Bug(
        EngineStore,
        "_done",
        IN_DOUBT,
        "if isinstance(error, EngineUnavailableError) or self.doubt is None and not ("
        "is_sent and isinstance(error, ReplyLostError)):",
        combination="lost replies",
    ),
    "lost_permission_after_a_lost_reply_counts_as_undone": Bug(
        EngineStore,
        "_done",
        IN_DOUBT,
        "if type(error).__name__ == 'NoRightError' or self.doubt is None and not ("
        "is_sent and isinstance(error, ReplyLostError)):",
        combination="permission lost in doubt",
    ),
    "a_removed_record_counts_as_undone": Bug(
        EngineStore,
        "_dropping_if_it_fails",
        "if self.doubt is None:",
        "self.doubt = None\n            if True:",
        combination="record removed in doubt",
    ),
    "a_late_batch_is_accepted": Bug(
        redis,
        "COMMIT",
        "if not higher(number, last) then return {'elsewhere', index} end",
        "",
        REDIS,
        combination="late requests and a restart",
    ),
    "a_retried_batch_is_applied_again": Bug(
        redis,
        "SETTLE",
        "if last ~= number then reached = '0' end",
        "reached = '0'",
        REDIS,
        combination="lost replies",
    ),
    "a_batch_needs_no_record": Bug(
        redis,
        "COMMIT",
        "if not record then return {'gone'} end",
        "record = record or '0 0'",
        REDIS,
        combination="late requests and a restart",
    ),
    "the_index_is_moved_before_the_limit_is_checked": Bug(
        redis,
        "COMMIT",
        "reached = sum(index, steps)",
        "reached = sum(index, steps) redis.call('HSET', key, 'index', reached)",
        REDIS,
    ),
    "replication_is_not_confirmed": Bug(
        RedisLink,
        "_ask_primary",
        "if any(has < want for has, want in zip(reached, asked[1:], strict=False)):",
        "if False:",
        REDIS,
        combination="failover",
    ),
    "the_role_of_the_server_is_ignored": Bug(
        RedisLink,
        "_ask_primary",
        "if role[0] != PRIMARY:",
        "if False:",
        REDIS,
        combination="handovers",
        client_kinds=("cross_reader",),
        variant="handover",
    ),
    "reads_unsynced_steps_in_redis": Bug(
        RedisLink,
        "read",
        "if self._durability.confirmations and self._record is not None:",
        "if False:",
        REDIS,
        combination="power",
        client_kinds=("cross_reader",),
        variant="everysec",
    ),
    "the_index_is_not_compared": Bug(
        EtcdLink, "_put", "for key, value in seen]", "for key, value in seen[1:]]", ETCD
    ),
    "reads_from_a_member_that_is_behind": Bug(
        EtcdLink,
        "_ranges",
        '{"request_range": each}',
        '{"request_range": {**each, "serializable": True}}',
        ETCD,
    ),
    "no_space_counts_as_undone": Bug(
        EtcdLink, "commit", "if not (reached := self._reached_by(batch)):", "if True:", ETCD
    ),
    "an_unanswerable_query_counts_as_undone": Bug(
        EtcdLink,
        "_reached_by",
        "(StoreProblem, RecordGoneError)",
        "(EngineUnavailableError, DatabaseInvalidError, RecordGoneError)",
        ETCD,
        "permission lost after no space",
        ("stepper",),
    ),
    "a_warning_counts_as_a_confirmation": Bug(
        PostgresqlLink,
        "_take_notice",
        'self._has_doubts |= source is None or source.endswith("syncrep.c")',
        "pass",
        POSTGRESQL,
        combination="failover",
    ),
    "the_basis_of_a_reply_is_ignored": Bug(
        PostgresqlLink,
        "_reply",
        "if basis != self._basis:",
        "if False:",
        POSTGRESQL,
        combination="an attached standby takes over",
        client_kinds=("cross_reader", "stepper"),
        variant="standby attached later",
        also=(NOT_POLLED,),
    ),
    "reads_unconfirmed_steps": Bug(
        PostgresqlLink,
        "read",
        "if self._confirms and self._record is not None:",
        "if False:",
        POSTGRESQL,
        combination="failover after a crash",
    ),
    "a_resolved_doubt_is_not_confirmed": Bug(
        PostgresqlLink,
        "commit",
        "self._confirms and self._ask(TOUCH, self._sequence, self._record) is None",
        "False",
        POSTGRESQL,
        combination="failover",
        client_kinds=("twins", "conditional", "keyed"),
        variant="with a standby",
    ),
    "a_key_is_kept_after_its_step_in_redis": Bug(
        RedisLink,
        "commit",
        "reply = self._ask_script(\n"
        "            COMMIT, self._node, batch.number, batch.steps, *conditions, *keys_of(batch)\n"
        "        )",
        """for key in batch.keys:
            made = self._ask_primary("HGET", self._key, f"key:{key.digest.hex()}")
            check([key], {key.digest: int(made)} if made else {}, self.read(), 0)
        reply = self._ask_script(COMMIT, self._node, batch.number, batch.steps, *conditions)
        start = int(reply[1]) - batch.steps
        for key, place in batch.keys.items() if reply[0] == b"done" else ():
            if place:
                self._ask_primary("HSET", self._key, f"key:{key.digest.hex()}", start + place)""",
        REDIS,
        client_kinds=KEYED,
        variant="always",
    ),
    "a_key_is_not_looked_up_in_redis": Bug(
        redis, "COMMIT", "if made then", "if false then", REDIS, client_kinds=KEYED
    ),
    "a_dropped_key_is_not_recorded_in_redis": Bug(
        redis,
        "COMMIT",
        "if was and higher(was, dropped) then dropped = was end",
        "",
        REDIS,
        client_kinds=KEYED,
    ),
    "a_dropped_key_counts_as_new_in_redis": Bug(
        redis, "COMMIT", "or higher(dropped, lowest)", "", REDIS, client_kinds=KEYED
    ),
    "permissions_for_keys_are_checked_after_the_writes": Bug(
        redis,
        "COMMIT",
        "redis.call('HDEL', key, '')",
        "",
        REDIS,
        combination="no permission for keys",
        client_kinds=("keyed", "stepper"),
    ),
    "a_key_is_kept_after_its_step_in_etcd": Bug(
        EtcdLink,
        "commit",
        "**self._values_of(made, index, wanted),\n                    }\n                )",
        """}
                )
                if revision is not None:
                    puts = self._values_of(made, index, wanted).items()
                    self._ask("kv/txn", {"success": [put(*each) for each in puts]})""",
        ETCD,
        client_kinds=KEYED,
    ),
    "keys_are_only_in_the_memory_of_a_node_in_etcd": Bug(
        EtcdLink,
        "_values_of",
        'values = {f"{self._keys_folder}{wanted:019}": " ".join(pairs)}',
        "values = {}",
        ETCD,
        client_kinds=KEYED,
    ),
    "the_keys_of_other_nodes_are_not_read_in_etcd": Bug(
        EtcdLink, "_take_in", "self._kept.add(self._seen, made)", "pass", ETCD, client_kinds=KEYED
    ),
    "the_second_page_of_keys_is_not_read_in_etcd": Bug(
        EtcdLink, "_take_in", "if is_behind:", "if False:", ETCD, client_kinds=KEYED
    ),
    "a_dropped_key_counts_as_new_in_etcd": Bug(
        EtcdLink,
        "_take_in",
        "self._kept.drop(int(self._dropped.text or self._index.text or 0))",
        "pass",
        ETCD,
        client_kinds=KEYED,
    ),
    "keys_are_dropped_before_that_is_recorded_in_etcd": Bug(
        EtcdLink,
        "drop_keys",
        "put(self._dropped_key, str(up_to))",
        'put(self._dropped_key, self._dropped.text or "0")',
        ETCD,
        client_kinds=KEYED,
    ),
    "a_key_is_kept_after_its_step_in_postgresql": Bug(
        PostgresqlLink,
        "_try_keys",
        "return self._try(COMMIT_KEYS, batch, *more)\n            except (SequenceMissing",
        """conflict = self._conflict(batch, 0)
                if isinstance(conflict, KeyConflictError):
                    raise conflict
                row = self._try(COMMIT, batch)
                if row is not None:
                    start = int(row[0]) - batch.steps
                    made = [str(start + place) for place in batch.keys.values()]
                    self._ask("KEEP_KEYS", names_of(batch.keys), ",".join(made))
                return row
            except (SequenceMissing""",
        POSTGRESQL,
        client_kinds=KEYED,
    ),
    "keys_are_lost_at_a_failover_of_postgresql": Bug(
        postgresql,
        "KEYS_SCHEMA",
        "CREATE TABLE IF NOT EXISTS fibcore_key",
        "CREATE UNLOGGED TABLE IF NOT EXISTS fibcore_key",
        POSTGRESQL,
        combination="failover",
        client_kinds=KEYED,
        variant="with a standby",
    ),
    "a_key_is_not_looked_up_in_postgresql": Bug(
        postgresql,
        "COMMIT_KEYS",
        "AND NOT EXISTS (SELECT FROM fibcore_key WHERE sequence = $1 AND key = ANY ($7::uuid[]))",
        "",
        POSTGRESQL,
        client_kinds=KEYED,
    ),
    "a_key_is_not_kept_in_postgresql": Bug(
        postgresql, "COMMIT_KEYS", "INSERT INTO fibcore_key", "", POSTGRESQL, client_kinds=KEYED
    ),
    "a_dropped_key_counts_as_new_in_postgresql": Bug(
        postgresql,
        "COMMIT_KEYS",
        "AND coalesce(s.dropped, s.n) <= $9::bigint",
        "AND true",
        POSTGRESQL,
        client_kinds=KEYED,
    ),
    "a_dropped_key_is_not_recorded_in_postgresql": Bug(
        postgresql, "DROP_KEYS", "SET dropped", "SET n", POSTGRESQL, client_kinds=KEYED
    ),
    "conditions_are_ignored": Bug(
        stepping,
        "_step",
        "_condition(service, request) if request.conditional else None",
        "None",
    ),
    "drops_the_second_part_of_a_head": Bug(
        Protocol,
        "data_received",
        "elif self.phase is ARRIVING:",
        "elif False:",
    ),
    "answers_only_the_last_pipelined_request": Bug(
        Protocol,
        "_take",
        "if self.phase in (ANSWERING, SENDING):",
        "if self.phase is SENDING:",
    ),
    "forgets_a_slow_reader": Bug(
        Connection,
        "resume_writing",
        "if self.phase is SENDING:",
        "if False:",
    ),
    "closes_unanswered_connections_at_a_stop": Bug(
        Connection,
        "shutdown",
        "if self.phase not in (ANSWERING, SENDING):",
        "if True:",
        combination="restarts",
    ),
}
