"""The dashboard for Grafana: every panel shows something that a server exports.

Its form is that of https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.implementations import serving
from tests.support.prometheus import scraping
from tests.support.waiting import until

ROOT: Final = Path(__file__).parents[2]
DASHBOARD: Final = json.loads((ROOT / "deploy" / "grafana" / "fibcore.json").read_text())
PANELS: Final[list[dict[str, Any]]] = DASHBOARD["panels"]
VARIABLES: Final = {
    "$instance": ".*",
    "$__rate_interval": "1m",
    "$__range": "1h",
    "$__interval": "1m",
}


def query_of(target: dict[str, Any]) -> str:
    """The query that Grafana sends to Prometheus for ``target``, with its variables filled in."""
    query: str = target["expr"]
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return query


@pytest.mark.processes
def test_every_query_of_the_dashboard_finds_something(tmp_path: Path) -> None:
    queries = [query_of(target) for panel in PANELS for target in panel["targets"]]
    queries += [query_of(each) for each in DASHBOARD["annotations"]["list"]]
    # These have no value yet: there was no takeover, and there is no backup process.
    absent = ("backup_copy", "changes(")
    with serving(tmp_path, 7) as client, scraping(client, tmp_path) as prometheus:
        for _ in range(3):
            client.get("/next")
        for query in queries:
            if not any(each in query for each in absent):
                until(lambda query=query: prometheus.value(query) is not None, query)  # type: ignore[misc]
            else:
                prometheus.value(query)  # Understood, at least: an error would be raised.
