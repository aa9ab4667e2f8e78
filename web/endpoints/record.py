"""The state of the appliance in one record, which ``/status`` and ``/metrics`` render.

Counters start at 0 with this process; two reads give a rate. A counter that drops means that
another process has taken over: ``process`` identifies it.
"""

import os
import time
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal, Self, get_args

from fibcore import histogram as histograms
from fibcore.admission import Bound
from fibcore.appliance.takeover_history import Ending
from fibcore.numbers.queue import MAX_QUEUED
from fibcore.stores.files import backup_copy_path
from fibcore.stores.lock import waiting_for
from web.endpoints.schemas import NATURAL, counter, gauge, histogram, member
from web.http.hub import MAX_PAGES
from web.service import Service

VERSION: Final = version("fibcore")
PAGE_SIZE: Final = os.sysconf("SC_PAGE_SIZE")
ENDS: Final = 60
"""Digits shown of each end of a number."""
READS: Final = ("/current", "/previous", "/numbers/{index}")

Reason = Literal["malformed", "origin", "path", "method", "conflict", "condition", "host"]

REASONS: Final[dict[int, Reason]] = {
    HTTPStatus.BAD_REQUEST: "malformed",
    HTTPStatus.FORBIDDEN: "origin",
    HTTPStatus.NOT_FOUND: "path",
    HTTPStatus.METHOD_NOT_ALLOWED: "method",
    HTTPStatus.CONFLICT: "conflict",
    HTTPStatus.PRECONDITION_FAILED: "condition",
    HTTPStatus.MISDIRECTED_REQUEST: "host",
}
"""Why requests with each status were rejected."""


@dataclass(frozen=True)
class Histogram:
    """Observations by size."""

    bounds: list[float] = member("The upper bounds of the buckets.", [0.001, 0.0025])
    counts: list[int] = member("Observations in each bucket, and past all bounds.", [1, 0, 0])
    sum: float = member("The sum of all observations.", 0.00046)

    @classmethod
    def of(cls, counted: histograms.Histogram) -> Self:
        """A copy, since another thread may observe meanwhile."""
        return cls(list(counted.bounds), list(counted.counts), counted.total)


@dataclass(frozen=True)
class Process:
    """The serving process."""

    node: str = member(
        "The ID of its node, as in the log; a process that takes over keeps it.", "3fa9c1d2"
    )
    pid: int = member("Its process ID.", 4711, minimum=1)
    began: float = gauge(
        "When this process began to serve.", 1795569789.7, name="start_time_seconds"
    )
    uptime: float = member("How long it has been serving.", 60.0)


@dataclass(frozen=True)
class Takeovers:
    """Takeovers of the database, across processes."""

    number: int = counter("Takeovers since the database was created.", 1, name="takeovers")
    at: float | None = gauge(
        "The time of the last takeover, by how the previous server ended.",
        1795569789.7,
        name="last_takeover_timestamp_seconds",
        labels=("after",),
    )
    after: Ending | None = member(
        "How the previous server ended: stopped on request, failed in a commit, hung and was ended "
        "by the watchdog, or killed (or crashed).",
        "killed",
    )
    seconds: float | None = gauge(
        "Seconds from the last answer of the previous server, as far as known, to the takeover.",
        0.012,
        name="last_takeover_seconds",
    )


@dataclass(frozen=True)
class BackupCopy:
    """The backup copy of the database."""

    at: float = gauge(
        "When the backup copy was made.", 1795569846.2, name="backup_copy_timestamp_seconds"
    )


@dataclass(frozen=True)
class Store:
    """The store and its durability."""

    kind: str = member("Its kind, such as sqlite.", "sqlite")
    sequence: str | None = member("The sequence's name in a shared store.", None)
    synchronous: str | None = member("The level of durability; null in a shared store.", "full")
    integers: Literal["exact", "uint64"] = member("exact, or uint64: modulo 2^64.", "exact")
    warnings: list[str] = member("Risks to acknowledged steps, one sentence each.", [])


@dataclass(frozen=True)
class Status:
    """Durations are in seconds, times in seconds since 1970. Counters start with the process."""

    now: float = member("When this was measured.", 1795569849.7)
    version: str = member("The version.", "1.0.0", metric="info", name="build")
    healthy: bool = gauge("Whether the store is usable.", True)
    reason: str | None = member("Why the store is unusable, as a sentence.", None)
    index: str | None = gauge("The index; null until the store is open.", "8", pattern=NATURAL)
    digits: int | None = gauge("Digits of the current number.", 2, minimum=1)
    first: str | None = member("The first 60 of these digits, or fewer.", "21")
    last: str | None = member(
        "The last 60 digits, or fewer: those of ``first`` are not repeated.", ""
    )
    max_index: str = gauge("The largest index that a step may reach.", "10000000", pattern=NATURAL)
    steps: int = counter("Steps committed by this process.", 1)
    reads: int = member("Successful reads of /current, /previous and /numbers.", 3)
    requests: dict[str, dict[str, int]] = counter(
        "Requests answered, by the path of the endpoint and by status.",
        {"/next": {"200": 1}},
        labels=("endpoint", "status"),
    )
    rejected_requests: dict[Reason, int] = counter(
        "Requests answered 4xx, by the reason.",
        dict.fromkeys(REASONS.values(), 0),
        labels=("reason",),
    )
    unavailable: int = member("Requests answered 503.", 0)
    shed_requests: dict[Bound, int] = counter(
        "Requests answered 503 because of a bound, by the bound.",
        dict.fromkeys(get_args(Bound), 0),
        labels=("bound",),
    )
    limit: dict[Bound, int] = gauge(
        "The limit of each bound.", dict.fromkeys(get_args(Bound), 64), labels=("bound",)
    )
    batch_steps: Histogram | None = histogram("Steps in each commit.")
    commit_seconds: Histogram | None = histogram("Duration of each commit.")
    batch_wait_seconds: Histogram | None = histogram(
        "How long the first step of each batch waited for its answer; the others waited less."
    )
    commit_under_way_seconds: float | None = gauge(
        "How long the commit under way has taken so far; 0 without one.", 0.0
    )
    waiting_steps: int = gauge("Steps that wait for a commit.", 0)
    waiting_numbers: int = gauge("Numbers that wait to be computed for /numbers.", 0)
    kept_keys: int | None = gauge("Idempotency keys kept, if known.", 12)
    max_keys: int = member("How many steps' idempotency keys are kept.", 10000, minimum=1)
    repeated_steps: int = counter("Steps answered again for the same idempotency key.", 1)
    number_cache_bytes: int = gauge("Bytes of numbers kept for /numbers.", 0)
    in_flight_bytes: int = gauge("Bytes of numbers in answers not yet sent, or being computed.", 0)
    connections: int = gauge("Open connections.", 1)
    accepted_connections: int = counter("Connections accepted.", 4)
    memory_bytes: int = member("Resident memory of this process.", 40165376, minimum=1)
    process: Process = member("The serving process.")
    takeovers: Takeovers = member("Takeovers of the database.")
    backup_copy: BackupCopy | None = member("The backup copy of the database, if there is one.")
    backup_failing: bool | None = gauge(
        "Whether the last attempt to make a backup copy failed; null in a shared store.", False
    )
    store: Store = member("The store and its durability.", metric="info")
    standby: bool | None = gauge("Whether a process stands by; null if unknown.", True)


def gather(service: Service) -> Status:
    """The record of ``service`` now."""
    settings, stepper, snapshot = service.settings, service.stepper, service.snapshot
    admission, reason, database = service.admission, service.reason, service.settings.database
    waiting = None if database is None else waiting_for(database)
    requests = {
        path: {str(status): count for status, count in enumerate(counts) if count}
        for path, counts in service.answered.items()
    }
    by_status = [sum(counts) for counts in zip(*service.answered.values(), strict=True)]
    by_status = by_status or [0] * 600
    now = time.time()
    return Status(
        now=now,
        version=VERSION,
        healthy=reason is None,
        reason=reason,
        index=None if snapshot is None else str(snapshot.index),
        digits=None if snapshot is None else len(snapshot.current),
        first=None if snapshot is None else snapshot.current[:ENDS].decode(),
        last=None if snapshot is None else snapshot.current[ENDS:][-ENDS:].decode(),
        max_index=str(settings.max_index),
        steps=0 if stepper is None else int(stepper.batch_steps.total),
        reads=sum(sum(service.answered[path][:400]) for path in READS if path in service.answered),
        requests=requests,
        rejected_requests={reason: by_status[status] for status, reason in REASONS.items()},
        unavailable=by_status[HTTPStatus.SERVICE_UNAVAILABLE],
        shed_requests=dict(admission.shed),
        limit={
            "waiting": admission.max_waiting,
            "in_flight": admission.in_flight.limit,
            "connections": settings.max_connections,
            "pages": MAX_PAGES,
            "numbers": MAX_QUEUED,
        },
        batch_steps=None if stepper is None else Histogram.of(stepper.batch_steps),
        commit_seconds=None if stepper is None else Histogram.of(stepper.commit_seconds),
        batch_wait_seconds=None if stepper is None else Histogram.of(stepper.batch_wait_seconds),
        commit_under_way_seconds=None if stepper is None else stepper.stalled_for(),
        waiting_steps=0 if stepper is None else stepper.pending,
        waiting_numbers=service.lookup.queued,
        kept_keys=None if stepper is None else stepper.kept_keys,
        max_keys=settings.max_keys,
        repeated_steps=0 if stepper is None else stepper.repeated,
        number_cache_bytes=service.lookup.kept_bytes,
        in_flight_bytes=admission.in_flight.used,
        connections=len(service.connections),
        accepted_connections=service.accepted,
        memory_bytes=memory(),
        process=Process(service.node, os.getpid(), service.began, now - service.began),
        takeovers=Takeovers(*service.takeovers),
        backup_copy=None if database is None else _backup_copy(database),
        backup_failing=None if database is None else service.backup_problem is not None,
        store=Store(
            kind=settings.store.partition(":")[0],
            sequence=settings.sequence if database is None else None,
            synchronous=None if database is None else settings.synchronous,
            integers=settings.integers,
            warnings=service.warnings,
        ),
        standby=None if waiting is None else bool(waiting),
    )


def _backup_copy(database: Path) -> BackupCopy | None:
    try:
        return BackupCopy(backup_copy_path(database).stat().st_mtime)
    except OSError:
        return None


def memory() -> int:
    """The resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_SIZE
