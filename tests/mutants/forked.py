"""Runs pytest in a fork of this process, which has already imported slow third-party modules.

Starting Python and importing pytest, Hypothesis and the server's libraries would take longer than
most tests, and there is one run per mutant.
"""

import os
import select
import shlex
import signal
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import hypothesis.stateful
import hypothesis.strategies  # noqa: F401
import pytest
import starlette.applications  # noqa: F401
import uvicorn.protocols.http.httptools_impl  # noqa: F401
from cosmic_ray.work_item import TestOutcome


def run_tests(command: str, timeout: float, *, compiled: bool = False) -> tuple[TestOutcome, str]:
    """Run pytest in the current folder; return the outcome and the output.

    Args:
        command: pytest's arguments.
        timeout: seconds; a longer run counts as failed.
        compiled: whether to write bytecode files.
    """
    with tempfile.TemporaryFile("w+") as output:
        child = os.fork()
        if not child:
            _be_pytest(shlex.split(command), output.fileno(), compiled)
        os.setpgid(child, child)
        ended = os.pidfd_open(child)
        try:
            in_time = select.select([ended], [], [], timeout)[0]
        finally:
            os.close(ended)
            # Kill also the processes that the tests started.
            os.killpg(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        output.seek(0)
        passed = in_time and status == 0
        return TestOutcome.SURVIVED if passed else TestOutcome.KILLED, output.read()


def _be_pytest(arguments: list[str], output: int, compiled: bool) -> NoReturn:
    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.dont_write_bytecode = not compiled
        sys.path[0] = str(Path.cwd())
        tempfile.tempdir = None
        # Already imported test modules are not those of the copy.
        for name in list(sys.modules):
            if name.partition(".")[0] == "tests":
                del sys.modules[name]
        status = pytest.main(arguments)
        sys.stdout.flush()
    finally:
        os._exit(status)
