"""``make run`` with a shared store: both of its processes serve."""

import json
import os
import signal
import urllib.request
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from fibcore.appliance.settings import Settings
from fibcore.stores.engine import EngineOpener
from tests.conftest import Engines
from tests.support.checkout import checkout, command, restart, running, said
from tests.support.engines import Redis
from tests.support.load import Load
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.processes


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkout(tmp_path_factory.mktemp("run"))


@pytest.fixture
def settings(engines: Engines) -> dict[str, str]:
    """An existing sequence."""
    settings = {"FIB_STORE": engines(Redis).url, "FIB_SEQUENCE": f"test-{uuid.uuid4()}"}
    opener(settings).create(0)
    return settings


def opener(settings: dict[str, str]) -> EngineOpener:
    found = Settings.from_environ(settings).opener()
    assert isinstance(found, EngineOpener)
    return found


def process_at(port: int) -> int:
    """The process that answered."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=PATIENCE) as answer:
        return int(json.loads(answer.read())["process"]["pid"])


def both_serve(port: int) -> Callable[[], bool]:
    seen: set[int] = set()

    def look() -> bool:
        seen.add(process_at(port))
        return len(seen) == 2

    return look


def test_both_processes_serve_through_kills_and_restarts(
    home: Path, settings: dict[str, str]
) -> None:
    """With the JSON log; test_run restarts with the text log."""
    with (home / "fibcore.conf").open("a") as conf:
        conf.writelines(f"{name}={value}\n" for name, value in settings.items())
    with running(home, FIB_LOG_FORMAT="json") as port:
        until(both_serve(port), "both processes answer")
        assert "index            0\n" in command(home, "fibcore", "show")
        with Load(port, rate=300) as load:
            load.wait_for_steps(50)
            os.kill(process_at(port), signal.SIGKILL)
            load.wait_for_steps(50)
            until(lambda: said(home).count("serving from index") == 3, "another one serves")
            before = dict(load.errors)
            done = restart(home)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.count(" restarted") == 4
            load.wait_for_steps(50)
        assert said(home).count("serving from index") == 5
        assert (load.refused, dict(load.errors)) == (0, before)
    with closing(opener(settings).open()) as store:
        load.check(first=0, last=store.read())
