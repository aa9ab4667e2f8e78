"""Runs a real Prometheus with the configuration of ``deploy/prometheus``."""

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.support import requires
from tests.support.ports import free_port
from tests.support.servers import Client
from tests.support.waiting import until

OPS: Final = Path(__file__).parents[2] / "deploy" / "prometheus"


class Prometheus:
    """A running Prometheus; scrapes more often than configured in ``deploy``."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1/"

    def ask(self, what: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self._url}{what}?{query}", timeout=30) as answer:
            return json.load(answer)["data"]

    def is_ready(self) -> bool:
        try:
            return bool(self.ask("status/buildinfo"))
        except OSError:
            return False

    def value(self, query: str) -> float | None:
        found = self.ask("query", query=query)["result"]
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> set[str]:
        alerts = self.ask("alerts")["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}


@contextmanager
def scraping(client: Client, folder: Path) -> Iterator[Prometheus]:
    program = requires.program("prometheus")
    configuration = (OPS / "prometheus.yml").read_text()
    assert configuration.count("interval: 15s") == 2
    configuration = configuration.replace("interval: 15s", "interval: 200ms")
    configuration = configuration.replace("127.0.0.1:8080", f"{client.host}:{client.port}")
    (folder / "prometheus.yml").write_text(configuration)
    (folder / "fibcore.rules.yml").write_text((OPS / "fibcore.rules.yml").read_text())
    port = free_port()
    command = [program, "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    with subprocess.Popen(command, cwd=folder) as process:
        prometheus = Prometheus(port)
        try:
            until(prometheus.is_ready, "Prometheus is ready")
            yield prometheus
        finally:
            process.kill()
