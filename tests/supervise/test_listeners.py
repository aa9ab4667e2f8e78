"""What watchdog and backup have in common as programs of supervisord."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.processes


@pytest.mark.parametrize(("program", "argument"), [("backup", "5"), ("watchdog", "web")])
def test_listeners_log_as_configured_and_exit_with_supervisord(program: str, argument: str) -> None:
    environment = os.environ | {"FIB_LOG_FORMAT": "json", "FIB_PORT": "many"}
    command = [sys.executable, "-m", f"supervise.{program}", argument]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == os.EX_CONFIG
    assert json.loads(done.stderr)["event"] == "invalid"
    read, nobody_reads = os.pipe()
    os.close(read)
    environment["SUPERVISOR_ENABLED"] = "1"
    gone = subprocess.run(command, env=environment, stdout=nobody_reads, check=False)
    os.close(nobody_reads)
    assert gone.returncode == 0
