"""The load tools of docs/benchmarks.md: each line works as shown."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.support import requires
from tests.support.documents import block
from tests.support.raw_clients import serving
from tests.support.servers import listening_socket
from tests.support.supervised import ROOT
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.processes

LINES: Final = block(ROOT / "docs" / "benchmarks.md", "sh").splitlines()
FAILURES: Final = re.compile(r"Failed requests: +[1-9]|Non-2xx|Error distribution|Socket errors")


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split()[0])
def test_a_load_tool_steps_and_counts_no_failures(line: str, database: Path) -> None:
    shorter = line.replace("10000", "200").replace("-d 10", "-d 1")
    with listening_socket() as listener, serving(database, listener) as server:
        program, *rest = shlex.split(shorter.replace(":8080", f":{server.client.port}"))
        command = [requires.program(program), *rest]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
        assert FAILURES.search(done.stdout) is None, done.stdout
        assert server.client.index >= 200
