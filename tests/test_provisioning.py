"""What provisioning does that needs no VM; tests/vm tries the rest in one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.servers import ServerProcess
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.processes

WAIT = Path(__file__).parents[1] / "install" / "wait_until_healthy.py"


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "127.0.0.2"])
def test_it_waits_for_the_server_where_the_service_was_told_to_listen(
    tmp_path: Path, host: str
) -> None:
    settings = {"FIB_HOST": host, "FIB_PORT": str(free_port())}
    with ServerProcess(tmp_path / "fibcore.db", settings=settings) as server:
        # Of systemd there is no more here than what the service's main process is.
        systemctl = tmp_path / "systemctl"
        asked = "show --property=MainPID --value fibcore"
        systemctl.write_text(f'#!/bin/sh\n[ "$*" = "{asked}" ] && echo {server.pid}\n')
        systemctl.chmod(0o755)
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        subprocess.run([sys.executable, WAIT], env=environment, timeout=PATIENCE, check=True)
        assert "serving from index 0" in server.log.text
