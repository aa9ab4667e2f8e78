"""``make run`` with a shared store: both of its processes serve."""

import json
import os
import signal
import uuid

import pytest

from tests.conftest import Engines
from tests.supervise.clients import Clients
from tests.support.checkout import checkout, command, restart, running, said
from tests.support.engines import Redis
from tests.support.servers import Client
from tests.support.waiting import until


@pytest.mark.processes
def test_both_processes_serve_through_kills_and_restarts(
    engines: Engines, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = checkout(tmp_path_factory.mktemp("run"))
    settings = {"FIB_STORE": engines(Redis).url, "FIB_SEQUENCE": f"test-{uuid.uuid4()}"}
    with (home / "fibcore.conf").open("a") as conf:
        conf.writelines(f"{name}={value}\n" for name, value in settings.items())
    assert "at index 0" in command(home, "fibcore", "init")
    with running(home) as port:
        client = Client(f"http://127.0.0.1:{port}")
        seen: set[int] = set()

        def both_have_answered() -> bool:
            seen.add(json.loads(client.get("/status").body)["process"]["pid"])
            return len(seen) == 2

        until(both_have_answered, "both processes answer")
        with Clients(client) as clients:
            clients.wait_for_steps()
            os.kill(seen.pop(), signal.SIGKILL)
            clients.wait_for_steps()
            until(lambda: said(home).count("serving from index") == 3, "another one serves")
            done = restart(home)
            assert (done.returncode, done.stderr) == (0, "")
            clients.wait_for_steps()
        clients.check()
        assert said(home).count("serving from index") == 5
        index = client.index
    assert f"index            {index}\n" in command(home, "fibcore", "show")
