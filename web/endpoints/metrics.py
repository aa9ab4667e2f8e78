"""``/metrics``: the record of ``web.endpoints.record`` in Prometheus's text format or OpenMetrics.

This runs only at a scrape, at most four times a second: the server counts in plain integers, which
are turned into metric families here. Counters start at 0 in each process, so they drop at a
takeover, as Prometheus expects of a new process; OpenMetrics carries the time of creation.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import Field, fields, is_dataclass
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

from web.endpoints.record import Histogram, Status, Takeovers, gather
from web.http import answers
from web.http.answers import Answer
from web.http.origins import CORS
from web.http.request import REPRESENTATION, Reply, Request
from web.http.routing import Content, Description, Endpoint
from web.service import Service


def _metrics(service: Service, request: Request, reply: Reply) -> None:
    """Answer all metrics, at most a quarter of a second old, in the form that ``Accept``
    prefers."""
    encode, content_type = _form(request.accept)

    def make() -> Answer:
        registry = CollectorRegistry()
        record = gather(service)
        registry.register(_Collector(record, "openmetrics" in content_type))
        ProcessCollector(registry=registry)
        metrics = registry if record.store.sequence is None else _Counts(registry, record)
        return answers.ok(content_type.encode(), encode(metrics), answers.VARY)

    reply(service.renderings.answer(content_type, make))


PLAIN, PLAIN_1, OPENMETRICS = (
    choose_encoder(accept)
    for accept in ("", "text/plain;version=1.0.0", "application/openmetrics-text;version=1.0.0")
)
"""The supported forms. Another version or escaping would change only the answer's Content-Type, and
a client could force a rendering for each one that it invents."""


def _form(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    try:
        _, wanted = choose_encoder(accept)
    except (TypeError, ValueError):  # The version in Accept is invalid.
        return PLAIN
    if wanted.startswith("application/openmetrics-text"):
        return OPENMETRICS
    return PLAIN if wanted == PLAIN[1] else PLAIN_1


class _Collector(Collector):
    """The metrics of a record.

    Args:
        record: the record to render.
        created: whether to add creation times, which only OpenMetrics has.
    """

    def __init__(self, record: Status, created: bool) -> None:
        self._record = record
        self._created = record.process.began if created else None

    def describe(self) -> Iterable[Metric]:
        """Nothing: no other collector can have the same names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The metric of each member that has one, and a value."""
        return self._families(self._record)

    def _families(self, record: Any) -> Iterator[Metric]:
        for each in fields(record):
            value = getattr(record, each.name)
            if each.metadata["metric"] is not None and value is not None:
                yield self._family(each, value, record)
            elif is_dataclass(value):
                yield from self._families(value)

    def _family(self, each: Field[Any], value: Any, record: Any) -> Metric:
        metadata = each.metadata
        name, text = f"fibcore_{metadata['name'] or each.name}", metadata["description"]
        if metadata["metric"] == "info":
            facts = vars(value) if is_dataclass(value) else {each.name: value}
            known = {key: fact or "" for key, fact in facts.items() if not isinstance(fact, list)}
            return InfoMetricFamily(name, text, known)
        if isinstance(value, Histogram):
            observed = HistogramMetricFamily(name, text)
            observed.add_metric([], _buckets(value), value.sum)
            return observed
        family: CounterMetricFamily | GaugeMetricFamily
        add: Callable[[list[str], float], None]
        if metadata["metric"] == "counter":
            family = CounterMetricFamily(name, text, labels=metadata["labels"])
            # Takeovers are counted across processes, so they have no creation time.
            created = None if isinstance(record, Takeovers) else self._created
            add = functools.partial(family.add_metric, created=created)
        else:
            family = GaugeMetricFamily(name, text, labels=metadata["labels"])
            add = family.add_metric
        if metadata["labels"] and not isinstance(value, Mapping):
            value = {getattr(record, metadata["labels"][0]): value}
        for labels, number in _flat(value):
            add(labels, float(number))
        return family


class _Counts(Collector):
    """Metrics whose counts are labelled with their process.

    The processes of a node of a shared store serve side by side at one address. Without the label,
    a scrape of the other one would be a counter that falls, which Prometheus takes for a restart.

    Args:
        metrics: all metrics.
        record: the record of the process.
    """

    def __init__(self, metrics: Collector, record: Status) -> None:
        self._metrics = metrics
        self._pid = str(record.process.pid)

    def collect(self) -> Iterator[Metric]:
        """The metrics."""
        for family in self._metrics.collect():
            if family.type in ("counter", "histogram"):
                family.samples = [
                    each._replace(labels={**each.labels, "pid": self._pid})
                    for each in family.samples
                ]
            yield family


def _flat(value: Any) -> Iterator[tuple[list[str], Any]]:
    """The values of nested mappings, each with its keys."""
    if not isinstance(value, Mapping):
        yield [], value
        return
    for key, inner in value.items():
        for keys, found in _flat(inner):
            yield [key, *keys], found


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Cumulative buckets: each counts all observations up to its bound, as Prometheus expects."""
    total, buckets = 0, []
    bounds = (*map(str, histogram.bounds), "+Inf")
    for bound, count in zip(bounds, histogram.counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets


_EXAMPLE: Final = """\
# HELP fibcore_steps_total Steps committed by this process.
# TYPE fibcore_steps_total counter
fibcore_steps_total 7.0
"""


METRICS: Final = Endpoint(
    "/metrics",
    ("GET", "HEAD"),
    _metrics,
    answers.NO_CACHE,
    REPRESENTATION | CORS,
    description=Description(
        "metrics",
        "Metrics for Prometheus.",
        "All metrics, each with its description (HELP) and type (TYPE), in Prometheus's text "
        "format or in OpenMetrics, whichever Accept prefers.",
        {
            "text/plain": Content(
                {"type": "string", "pattern": "^# HELP fibcore_[^$]*\\n$"}, _EXAMPLE
            ),
            "application/openmetrics-text": Content(
                {"type": "string", "pattern": "^# HELP fibcore_[^$]*\\n# EOF\\n$"},
                f"{_EXAMPLE.replace('_total S', ' S').replace('_total c', ' c')}# EOF\n",
            ),
        },
    ),
)
