"""``/metrics``, in both formats."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import Engines
from tests.support.engines import Redis
from tests.support.implementations import serving
from tests.support.nodes import Nodes
from tests.support.servers import Client, listening_socket
from tests.support.waiting import until

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0"
ACCEPT: Final = {
    "Accept": f"{OPENMETRICS.replace(' ', '')},text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
}
"""The Accept header of Prometheus 2.42."""


@pytest.fixture
def client(
    processes: None,  # noqa: ARG001
    tmp_path: Path,
) -> Iterator[Client]:
    with serving(tmp_path, 30_000) as client:
        yield client


def families(client: Client) -> dict[str, Metric]:
    answer = client.get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"] == TEXT
    parsed = text_string_to_metric_families(answer.body.decode())
    return {each.name: each for each in parsed}


def values(family: Metric) -> dict[tuple[str, ...], float]:
    """Values by label values, in the order of the labels' names."""
    return {
        tuple(each.labels[name] for name in sorted(each.labels)): each.value
        for each in family.samples
    }


def test_requests_are_counted_by_endpoint_and_status(client: Client) -> None:
    for path in ("/next", "/next", "/current", "/numbers/5", "/numbers/x", "/nowhere", "/health"):
        client.get(path)
    client.get("/current", {"If-None-Match": "*"})
    client.get("/next", {"If-Match": '"x"'})
    client.get("/next", {"Sec-Fetch-Site": "cross-site"})
    client.request("PUT", "/previous")
    client.get("/metrics")
    until(lambda: ("/metrics", "200") in values(families(client)["fibcore_requests"]), "it is new")
    found = families(client)
    assert values(found["fibcore_requests"]) == {
        ("/next", "200"): 2,
        ("/next", "403"): 1,
        ("/next", "412"): 1,
        ("/current", "200"): 1,
        ("/current", "304"): 1,
        ("/previous", "405"): 1,
        ("/numbers/{index}", "200"): 1,
        ("/numbers/{index}", "400"): 1,
        ("/health", "200"): 1,
        ("/metrics", "200"): values(found["fibcore_requests"])["/metrics", "200"],
        ("other", "404"): 1,
    }
    rejected = {reason: n for (reason,), n in values(found["fibcore_rejected_requests"]).items()}
    reasons = ("origin", "condition", "method", "malformed", "path")
    assert {reason: n for reason, n in rejected.items() if n} == dict.fromkeys(reasons, 1)
    assert set(values(found["fibcore_shed_requests"]).values()) == {0}


def test_steps_and_their_commits_are_counted(client: Client) -> None:
    for _ in range(3):
        client.get("/next")
    found = families(client)
    for name, value in (("index", 30_003), ("digits", 6270), ("steps", 3), ("waiting_steps", 0)):
        assert values(found[f"fibcore_{name}"]) == {(): value}
    for name in ("batch_steps", "commit_seconds", "batch_wait_seconds"):
        samples = {
            (each.name.rpartition("_")[2], each.labels.get("le")): each.value
            for each in found[f"fibcore_{name}"].samples
        }
        assert samples["count", None] == samples["bucket", "+Inf"] == 3
        buckets = [each for (kind, _), each in samples.items() if kind == "bucket"]
        assert buckets == sorted(buckets)
    assert samples["sum", None] > 0
    limits = values(found["fibcore_limit"])
    # Every bound that can shed has its value.
    assert limits.keys() == values(found["fibcore_shed_requests"]).keys()
    assert limits["in_flight",] == 64 * 2**20
    assert min(limits.values()) > 0


def test_metrics_identify_the_server_and_its_store(client: Client) -> None:
    found = families(client)
    for name in ("healthy", "standby", "takeovers", "start_time_seconds"):
        assert name in {each.removeprefix("fibcore_") for each in found}
    assert values(found["fibcore_build_info"]) == {("1.0.0",): 1}
    assert values(found["fibcore_store_info"]) == {("exact", "sqlite", "", "full"): 1}
    assert values(found["process_resident_memory_bytes"])[()] > 10e6


def test_counts_of_one_of_several_processes_have_its_pid(engines: Engines, tmp_path: Path) -> None:
    """Scrapes of a node of a shared store reach either process: a common counter would fall."""
    with ExitStack() as stack:
        nodes = Nodes(engines(Redis), tmp_path, stack)
        listener = stack.enter_context(listening_socket())
        both = [nodes.start(listener=listener) for _ in range(2)]
        for each in both:
            each.wait_until_it_serves()
        steps: dict[str, float] = {}

        def all_are_counted() -> bool:
            both[0].client.get("/next")
            counted = [
                sample
                for family in families(both[0].client).values()
                if family.type in ("counter", "histogram")
                for sample in family.samples
            ]
            (pid,) = {sample.labels["pid"] for sample in counted}
            assert {"fibcore_steps_total", "process_cpu_seconds_total"} <= {
                sample.name for sample in counted
            }
            (now,) = (each.value for each in counted if each.name == "fibcore_steps_total")
            assert now >= steps.get(pid, 0)
            steps[pid] = now
            return steps.keys() == {str(each.pid) for each in both}

        until(all_are_counted, "both processes are scraped")
        gauges = families(both[0].client)["fibcore_index"].samples
        assert gauges[0].labels == {}


def test_openmetrics_has_the_time_of_creation(client: Client) -> None:
    client.get("/next")
    answer = client.get("/metrics", ACCEPT)
    assert answer.headers["content-type"].startswith(OPENMETRICS)
    assert answer.headers["vary"] == "accept"
    text = answer.body.decode()
    parsed = openmetrics.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    found = {each.name: each for each in parsed}
    began = values(found["fibcore_start_time_seconds"])[()]
    created = {
        each.value
        for family in found.values()
        for each in family.samples
        if each.name.endswith("_created")
    }
    assert created == {began}
    assert "_created" not in client.get("/metrics").body.decode()
