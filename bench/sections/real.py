"""Real clients end to end, one at a time: the processor time per request of each server.

Such a client makes a thousand or two requests a second, so that it is the bottleneck. Therefore the
servers are compared by their processor time per request.
"""

import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

from bench import heads, machine, servers
from bench.heads.drivers import CLIENTS, READS, MissingError
from bench.load import loads
from bench.load.loads import Run
from bench.load.workloads import of_clients
from bench.servers import Server
from bench.suite import Suite

REAL: Final = ("requests", "httpx", "node-fetch", "chromium-fetch")
PATHS: Final = ("current", "next")


def real(suite: Suite) -> None:
    """Each client on each server, and the plainest head, also on one connection."""
    suite.say("real: real clients, one at a time, by the server's processor time per request")
    names = [name for name in REAL if name in (suite.clients or REAL)]
    for start in (servers.fibcore, servers.reference, servers.stock):
        # Chromium and pip write files into their folder.
        with (
            start(suite.folder, 90, "uint64") as server,
            tempfile.TemporaryDirectory(prefix="clients-") as folder,
        ):
            for path in PATHS:
                _plainest(suite, server, path)
                for name in names:
                    _one(suite, server, name, path, Path(folder))


def _plainest(suite: Suite, server: Server, path: str) -> None:
    request = next(a.request for a in of_clients([heads.PLAINEST]) if a.what == path)
    run = Run.of("real", server, path, 1, client=heads.PLAINEST, asked=path)
    seconds = suite.effort.real_seconds
    loads.recorded_load(suite.folder, run, server, [path], seconds=seconds, request=request)
    suite.add(run)


def _one(suite: Suite, server: Server, name: str, path: str, folder: Path) -> None:
    """A loop in the client itself, during which the server does little else."""
    run = Run.of("real", server, path, 1, name, client=name, asked=path)
    run.first_index = loads.where(server)
    case = next(case for case in READS if f"/{path}" in case)
    begin, before = time.monotonic(), machine.cpu_seconds(server.pids())
    try:
        run.requests = CLIENTS[name].drive(
            folder, f"http://127.0.0.1:{server.port}", [case], suite.effort.real_seconds
        )
    except (MissingError, subprocess.SubprocessError, OSError) as error:
        suite.say(f"{name} was not measured: {error}")
        return
    used = machine.cpu_seconds(server.pids()) - before
    run.seconds = time.monotonic() - begin
    run.per_second = run.requests / suite.effort.real_seconds
    run.server_busy = used / suite.effort.real_seconds
    steps = run.requests if path == "next" else 0
    # The other requests of a browser make no steps.
    loads.account(run, server, steps, steps)
    suite.add(run)
