"""What provisioning does that needs no VM; tests/vm tries the rest in one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.implementations import serving
from tests.support.ports import free_port
from tests.support.servers import ServerProcess
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
WAIT = ROOT / "deploy" / "systemd" / "wait_until_healthy.py"


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "127.0.0.2"])
def test_it_waits_for_the_server_where_that_listens(tmp_path: Path, host: str) -> None:
    settings = {"FIB_HOST": host, "FIB_PORT": str(free_port())}
    # One whose environment can be read: that of a fork is where it was forked from.
    command = ("env", sys.executable, "-m", "web")
    with ServerProcess(tmp_path / "fibcore.db", settings=settings, command=command) as server:
        # Of systemd there is no more here than what the service's main process is.
        systemctl = tmp_path / "systemctl"
        asked = "show --property=MainPID --value fibcore"
        systemctl.write_text(f'#!/bin/sh\n[ "$*" = "{asked}" ] && echo {server.pid}\n')
        systemctl.chmod(0o755)
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        subprocess.run([sys.executable, WAIT], env=environment, timeout=PATIENCE, check=True)
        assert "serving from index 0" in server.log.text


def test_the_vm_answers_for_its_addresses_and_its_name_alone(tmp_path: Path) -> None:
    drop_in = (ROOT / "deploy" / "vagrant" / "vm.conf").read_text()
    # %H is the host's name, as systemd.unit(5) has it.
    lines = re.findall(r"^Environment=(\w+)=(.*)$", drop_in, re.MULTILINE)
    settings = {name: value.replace("%H", "Bookworm") for name, value in lines}
    assert settings.keys() == {"FIB_HOST", "FIB_ALLOWED_HOSTS"}
    with serving(tmp_path, 7, **settings) as client:
        reached = ("127.0.0.1:8080", "localhost:8080", "[::1]:8080", "10.0.2.15", "bookworm:8080")
        for host in reached:
            assert client.get("/current", {"Host": host}).status == 200
        for host in ("fib.example.com", "bookworm.example.com:8080"):
            assert client.get("/next", {"Host": host}).status == 421
        assert client.index == 7
