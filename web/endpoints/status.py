"""How the appliance is, in one small JSON answer, for a page that asks for it once a second.

Numbers that only grow count from when this process began: who asks twice has the rate. When they
fall, another process has taken over, and ``process`` says which.
"""

import json
import os
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from fibcore.histogram import Histogram
from fibcore.numbers.queue import MAX_QUEUED
from fibcore.stepper import Stepper
from fibcore.stores.files import backup_copy_path
from fibcore.stores.lock import is_waited_for
from web.http import answers
from web.http.answers import Answer, PlainAnswer
from web.http.request import Reply, Request
from web.service import Service

VERSION: Final = version("fibcore")

PAGE_SIZE: Final = os.sysconf("SC_PAGE_SIZE")
ENDS: Final = 60
"""Digits from each end of a number."""
SHED: Final = 503
REJECTED: Final = range(400, 500)


def status(service: Service, request: Request, reply: Reply) -> None:  # noqa: ARG001
    """Answer ``status_of``, as of the last quarter of a second."""

    def make() -> Answer:
        body = json.dumps(status_of(service)).encode()
        headers = (
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", answers.NO_CACHE),
        )
        return PlainAnswer(200, headers, body)

    reply(service.renderings.answer("status", make))


def status_of(service: Service) -> dict[str, Any]:
    """How the appliance is now, to be JSON: ``web.endpoints.schemas.STATUS`` says what each member
    is."""
    settings, stepper, snapshot = service.settings, service.stepper, service.snapshot
    admission, complaint = service.admission, service.complaint
    now = time.time()
    database = settings.database
    answered = [
        (path, code, count)
        for path, counts in service.answered.items()
        for code, count in enumerate(counts)
        if count
    ]
    return {
        "now": now,
        "version": VERSION,
        "healthy": complaint is None,
        "complaint": complaint,
        "index": None if snapshot is None else str(snapshot.index),
        "digits": None if snapshot is None else len(snapshot.current),
        "first": None if snapshot is None else snapshot.current[:ENDS].decode(),
        "last": None if snapshot is None else snapshot.current[ENDS:][-ENDS:].decode(),
        "max_index": str(settings.max_index),
        "steps": 0 if stepper is None else int(stepper.batch_sizes.total),
        "reads": sum(n for path, code, n in answered if path in READS and code < 400),
        "rejected": sum(n for _, code, n in answered if code in REJECTED),
        "unavailable": sum(n for _, code, n in answered if code == SHED),
        "shed": dict(admission.shed),
        **_histograms(stepper),
        "waiting": {
            "steps": 0 if stepper is None else stepper.pending,
            "limit": admission.max_waiting,
        },
        "keys": {
            "kept": None if stepper is None else stepper.kept_keys,
            "limit": settings.max_keys,
            "repeated": 0 if stepper is None else stepper.repeated,
        },
        "lookups": {"numbers": service.lookup.queued, "limit": MAX_QUEUED},
        "in_flight": {"bytes": admission.in_flight.used, "limit": admission.in_flight.limit},
        "connections": {
            "open": len(service.connections),
            "accepted": service.accepted,
            "limit": settings.max_connections,
        },
        "memory": {"bytes": memory()},
        "process": {"pid": os.getpid(), "began": service.began, "uptime": now - service.began},
        "takeovers": service.takeovers._asdict(),
        "backup_copy": None if database is None else _made(backup_copy_path(database)),
        "store": {
            "kind": settings.store.partition(":")[0],
            "sequence": settings.sequence if database is None else None,
            "synchronous": None if database is None else settings.synchronous,
            "integers": settings.integers,
            "warnings": service.warnings,
        },
        "standby": None if database is None else is_waited_for(database),
    }


READS: Final = ("/current", "/previous", "/numbers/{index}")


def _histograms(stepper: Stepper | None) -> dict[str, Any]:
    if stepper is None:
        return {"batches": None, "commit": None, "latency": None}
    return {
        "batches": _histogram(stepper.batch_sizes),
        "commit": _histogram(stepper.commit_seconds),
        "latency": _histogram(stepper.wait_seconds),
    }


def _histogram(histogram: Histogram) -> dict[str, Any]:
    return {
        "bounds": histogram.bounds,
        "counts": list(histogram.counts),
        "sum": histogram.total,
    }


def _made(path: Path) -> dict[str, float] | None:
    try:
        return {"at": path.stat().st_mtime}
    except OSError:
        return None


def memory() -> int:
    """The resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_SIZE
