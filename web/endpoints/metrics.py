"""``/metrics``: what Prometheus scrapes, in its text form or OpenMetrics', whichever it asks for.

Nothing here runs but at a scrape, four times a second at the most: the server counts in plain
integers, wherever something happens, and these are put into families only now. Counters begin at 0
with each process, so that they fall at a takeover, as Prometheus expects of a process that is new;
OpenMetrics says when that was.
"""

from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from fibcore.histogram import Histogram
from fibcore.numbers.queue import MAX_QUEUED
from web.endpoints.status import status_of
from web.http import answers
from web.http.answers import Answer, PlainAnswer
from web.http.request import Reply, Request
from web.service import Service

REASONS: Final = {
    HTTPStatus.BAD_REQUEST: "malformed",
    HTTPStatus.FORBIDDEN: "origin",
    HTTPStatus.NOT_FOUND: "path",
    HTTPStatus.METHOD_NOT_ALLOWED: "method",
    HTTPStatus.CONFLICT: "conflict",
    HTTPStatus.PRECONDITION_FAILED: "condition",
    HTTPStatus.MISDIRECTED_REQUEST: "host",
}
"""What each status rejects a request for."""

ELSEWHERE: Final = "other"
"""The endpoint of what is at none of the table's paths."""


def metrics(service: Service, request: Request, reply: Reply) -> None:
    """Answer all metrics as of the last quarter of a second, in the form ``Accept`` likes best."""
    encode, content_type = _form(request.accept)

    def make() -> Answer:
        registry = CollectorRegistry()
        registry.register(_Collector(service, "openmetrics" in content_type))
        ProcessCollector(registry=registry)
        body = encode(registry)
        headers = (
            (b"content-type", content_type.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", answers.NO_CACHE),
            answers.VARY,
        )
        return PlainAnswer(200, headers, body)

    reply(service.renderings.answer(content_type, make))


PLAIN, PLAIN_1, OPENMETRICS = (
    choose_encoder(accept)
    for accept in ("", "text/plain;version=1.0.0", "application/openmetrics-text;version=1.0.0")
)
"""The forms that there are. A later version, or another escaping, would change nothing but what the
answer says of itself, and have it rendered for each who makes one up."""


def _form(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    try:
        _, wanted = choose_encoder(accept)
    except (TypeError, ValueError):  # What it gives as a version is none.
        return PLAIN
    if wanted.startswith("application/openmetrics-text"):
        return OPENMETRICS
    return PLAIN if wanted == PLAIN[1] else PLAIN_1


class _Collector(Collector):
    """What the server has counted, when it is asked for.

    Args:
        service: the one that counts.
        created: whether to say since when, which is for OpenMetrics alone.
    """

    def __init__(self, service: Service, created: bool) -> None:
        self._service = service
        self._created = service.began if created else None

    def describe(self) -> Iterable[Metric]:
        """Nothing: no other collector is beside it with the same names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Everything, as it stands now."""
        now = status_of(self._service)
        yield from self._requests()
        yield from self._steps(now)
        yield from self._load(now)
        yield from self._process(now)

    def _counter(self, name: str, text: str, label: str, counts: dict[str, int]) -> Metric:
        family = CounterMetricFamily(f"fibcore_{name}", text, labels=[label])
        for value, count in counts.items():
            family.add_metric([value], count, created=self._created)
        return family

    def _requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "fibcore_requests",
            "Requests answered, by the path of the endpoint and by status.",
            labels=["endpoint", "status"],
        )
        rejected = dict.fromkeys(REASONS.values(), 0)
        for path, counts in self._service.answered.items():
            for code, count in enumerate(counts):
                if count:
                    labels = [path or ELSEWHERE, str(code)]
                    requests.add_metric(labels, count, created=self._created)
                    if code in REASONS:
                        rejected[REASONS[HTTPStatus(code)]] += count
        yield requests
        yield self._counter(
            "rejected_requests", "Requests answered 4xx, by what for.", "reason", rejected
        )
        shed = {str(bound): count for bound, count in self._service.admission.shed.items()}
        yield self._counter(
            "shed_requests", "Requests answered 503, by the bound reached.", "bound", shed
        )

    def _steps(self, now: dict[str, Any]) -> Iterator[Metric]:
        if now["index"] is not None:
            yield _gauge("index", "Where the sequence stands.", int(now["index"]))
            yield _gauge("digits", "Digits of the current number.", now["digits"])
        largest = int(now["max_index"])
        yield _gauge("largest_index", "The largest index that a step may lead to.", largest)
        yield CounterMetricFamily(
            "fibcore_steps", "Steps committed.", now["steps"], created=self._created
        )
        yield CounterMetricFamily(
            "fibcore_repeated_steps",
            "Steps that were answered again, for the same idempotency key.",
            now["keys"]["repeated"],
            created=self._created,
        )
        if now["keys"]["kept"] is not None:
            kept = now["keys"]["kept"]
            yield _gauge("kept_keys", "Idempotency keys that are kept.", kept)
        stepper = self._service.stepper
        if stepper is None:
            return
        for name, text, histogram in (
            ("batch_steps", "Steps of each commit.", stepper.batch_sizes),
            ("commit_seconds", "How long each commit took.", stepper.commit_seconds),
            (
                "step_wait_seconds",
                "How long the first step of each batch waited for its answer.",
                stepper.wait_seconds,
            ),
        ):
            family = HistogramMetricFamily(f"fibcore_{name}", text)
            family.add_metric([], _buckets(histogram), histogram.total)
            yield family
        yield _gauge(
            "commit_under_way_seconds",
            "How long the commit under way has taken; 0 when there is none.",
            stepper.stalled_for(),
        )

    def _load(self, now: dict[str, Any]) -> Iterator[Metric]:
        lookup = self._service.lookup
        limits = GaugeMetricFamily("fibcore_limit", "What each bound allows.", labels=["bound"])
        for bound, limit in (
            ("waiting", now["waiting"]["limit"]),
            ("in_flight", now["in_flight"]["limit"]),
            ("connections", now["connections"]["limit"]),
            ("numbers", MAX_QUEUED),
        ):
            limits.add_metric([bound], limit)
        yield limits
        yield _gauge("waiting_steps", "Steps that wait for a commit.", now["waiting"]["steps"])
        yield _gauge(
            "in_flight_bytes",
            "Bytes of numbers in answers not yet sent, or being worked out.",
            now["in_flight"]["bytes"],
        )
        yield _gauge("connections", "Open connections.", now["connections"]["open"])
        yield CounterMetricFamily(
            "fibcore_accepted_connections",
            "Connections accepted.",
            now["connections"]["accepted"],
            created=self._created,
        )
        yield _gauge("waiting_numbers", "Numbers that wait to be worked out.", lookup.queued)
        yield _gauge("kept_number_bytes", "Bytes of numbers kept for /numbers.", lookup.kept_bytes)

    def _process(self, now: dict[str, Any]) -> Iterator[Metric]:
        yield _gauge("healthy", "Whether the store can be used.", float(now["healthy"]))
        if now["standby"] is not None:
            yield _gauge("standby", "Whether a process stands by.", float(now["standby"]))
        takeovers = now["takeovers"]
        yield CounterMetricFamily(
            "fibcore_takeovers", "Takeovers since the database was made.", takeovers["number"]
        )
        if takeovers["at"] is not None:
            last = GaugeMetricFamily(
                "fibcore_last_takeover_timestamp_seconds",
                "When the last takeover was, by how the server before ended.",
                labels=["after"],
            )
            last.add_metric([takeovers["after"]], takeovers["at"])
            yield last
            yield _gauge(
                "last_takeover_seconds",
                "Seconds from the last answer of the server before to the takeover's end.",
                takeovers["seconds"],
            )
        if now["backup_copy"] is not None:
            yield _gauge(
                "backup_copy_timestamp_seconds",
                "When the backup copy was made.",
                now["backup_copy"]["at"],
            )
        yield _gauge("start_time_seconds", "When this process began to serve.", self._service.began)
        yield InfoMetricFamily("fibcore_build", "The version.", {"version": now["version"]})
        store = {name: now["store"][name] or "" for name in STORE}
        yield InfoMetricFamily("fibcore_store", "The store and its durability.", store)


STORE: Final = ("kind", "synchronous", "integers")


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"fibcore_{name}", text, value)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """As they are exposed: each counts all that is not past its bound."""
    total, buckets = 0, []
    bounds = (*map(str, histogram.bounds), "+Inf")
    for bound, count in zip(bounds, histogram.counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets
