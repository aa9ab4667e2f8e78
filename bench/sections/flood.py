"""Steps beside a flood of requests for the most expensive numbers, each at another index."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench import machine, servers
from bench.load import loads
from bench.load.loads import Run
from bench.servers import Server
from bench.suite import Suite

CONNECTIONS = 100
FLOOD_CONNECTIONS = 100  # more than may wait, so that some requests are shed
LARGEST = 10_000_000
FIRST = 1_000
STEPS = 100_000  # in each run, so that all have the same numbers, whatever their rate
SECONDS = 60  # limit for these steps
BEFORE, BESIDE = "before a flood", "beside a flood"

SCRIPT = """
local index = %d
request = function()
    index = index - 1
    return wrk.format("GET", "/numbers/" .. index)
end
"""


@contextlib.contextmanager
def flooded(server: Server, folder: Path, seconds: int) -> Iterator[None]:
    """Request the most expensive numbers; entered when as many wait as may."""
    script = folder / "flood.lua"
    script.write_text(SCRIPT % LARGEST)
    flood = [machine.tool("wrk"), "-t1", f"-c{FLOOD_CONNECTIONS}", f"-d{seconds}s"]
    flood += ["--timeout", f"{seconds}s", "-s", str(script), f"http://127.0.0.1:{server.port}"]
    process = subprocess.Popen(machine.pinned(machine.LOAD_CORE, flood), stdout=subprocess.DEVNULL)

    def is_there() -> bool:
        now = json.loads(server.get("/status")[2])
        return bool(now["waiting_numbers"] == now["limit"]["numbers"])

    try:
        machine.wait_until(is_there, 30, "the queue of numbers is full")
        yield
    finally:
        process.kill()
        process.wait()


def flood(suite: Suite) -> None:
    """The same steps without and with the flood, each time on a new server."""
    suite.log(f"flood: /next beside {FLOOD_CONNECTIONS} clients that request F({LARGEST:,}), ...")
    for number in range(suite.effort.rounds):
        for section in (BEFORE, BESIDE):
            with servers.fibcore(suite.folder, FIRST, "exact") as server:
                run = Run.of(section, server, "next", CONNECTIONS, round=number)
                beside = flooded(server, suite.folder, 3 * SECONDS)
                with beside if section is BESIDE else contextlib.nullcontext():
                    loads.recorded_load(
                        suite.folder,
                        run,
                        server,
                        ["next"],
                        seconds=SECONDS,
                        requests=STEPS,
                        check_every=16,
                    )
                    used = machine.pss_bytes(server.pids()) / 2**20
                if run.last_index != FIRST + STEPS:
                    run.problems.append(f"it did not make {STEPS:,} steps in {SECONDS} s")
                suite.add(run)
            suite.flood["PSS MB"] = max(used, suite.flood.get("PSS MB", 0.0))
