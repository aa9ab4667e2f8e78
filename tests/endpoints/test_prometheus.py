"""Prometheus's own tools: promtool, and a Prometheus that scrapes through a takeover."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support import requires
from tests.support.implementations import serving
from tests.support.prometheus import OPS, Prometheus, scraping
from tests.support.servers import ServerProcess, listening_socket
from tests.support.waiting import until

pytestmark = pytest.mark.processes

DASHBOARD: Final = json.loads((OPS.parent / "grafana" / "fibcore.json").read_text())
PANELS: Final[list[dict[str, Any]]] = DASHBOARD["panels"]
VARIABLES: Final = {
    "$instance": ".*",
    "$__rate_interval": "1m",
    "$__range": "1h",
    "$__interval": "1m",
}
TAKEN_OVER: Final = "FibcoreTakenOver"


def promtool(*arguments: str | Path, given: bytes = b"") -> None:
    command = [requires.program("promtool"), *map(str, arguments)]
    done = subprocess.run(command, input=given, capture_output=True, cwd=OPS, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


def test_promtool_accepts_the_metrics(tmp_path: Path) -> None:
    with serving(tmp_path, 7) as client:
        promtool("check", "metrics", given=client.get("/metrics").body)


def test_promtool_accepts_the_configuration() -> None:
    """Its own tests show when each alert fires."""
    promtool("check", "config", "--lint-fatal", "prometheus.yml")
    promtool("test", "rules", "fibcore.test.yml")


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has scraped a server after 50 steps, and 20 steps of its successor."""
    folder = tmp_path_factory.mktemp("prometheus")
    database = folder / "fibcore.db"
    with (
        listening_socket() as listener,
        ServerProcess(database, listener, name="first") as first,
        ServerProcess(first.wait_until_it_serves().database, listener, name="second") as second,
        scraping(first.client, folder) as prometheus,
    ):
        second.wait_until_it_stands_by()
        for _ in range(50):
            first.client.get("/next")
        until(lambda: prometheus.value("fibcore_steps_total") == 50, "the steps are scraped")
        assert TAKEN_OVER not in prometheus.firing()  # The control.
        first.signal(signal.SIGKILL)
        for _ in range(20):
            first.client.get("/next")
        until(lambda: prometheus.value("fibcore_steps_total") == 20, "the successor is scraped")
        yield prometheus


def test_prometheus_scrapes_and_alerts_through_a_takeover(prometheus: Prometheus) -> None:
    until(lambda: TAKEN_OVER in prometheus.firing(), "the alert fires")
    # The counter fell, and Prometheus knows that it was reset.
    assert prometheus.value("resets(fibcore_steps_total[5m])") == 1
    increase = prometheus.value("increase(fibcore_steps_total[5m])")
    assert increase is not None
    assert 20 <= increase < 150
    assert prometheus.value("fibcore_takeovers_total") == 1
    # The committing thread counts a step a moment before the sequence moves.
    until(lambda: prometheus.value("fibcore_index") == 70, "the index is scraped")
    last = prometheus.value('fibcore_last_takeover_timestamp_seconds{after="killed"}')
    assert last is not None


def query_of(target: dict[str, Any]) -> str:
    """The query that Grafana sends to Prometheus for ``target``, with its variables filled in."""
    query: str = target["expr"]
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return query


def test_every_query_of_the_dashboard_has_a_result(prometheus: Prometheus) -> None:
    queries = [query_of(target) for panel in PANELS for target in panel["targets"]]
    queries += [query_of(each) for each in DASHBOARD["annotations"]["list"]]
    for query in queries:
        if "backup_copy" in query:  # There is no backup process.
            prometheus.value(query)
        else:
            until(lambda query=query: prometheus.value(query) is not None, query)  # type: ignore[misc]
