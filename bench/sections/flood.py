"""Steps beside a flood of requests for the dearest numbers, each at another index."""

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
FLOOD_CONNECTIONS = 100  # more than may wait: some are shed
LARGEST = 10_000_000
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
    """Ask for the dearest numbers for so long, from when many wait until it is left."""
    script = folder / "flood.lua"
    script.write_text(SCRIPT % LARGEST)
    flood = [machine.tool("wrk"), "-t1", f"-c{FLOOD_CONNECTIONS}", f"-d{seconds}s"]
    flood += ["--timeout", f"{seconds}s", "-s", str(script), f"http://127.0.0.1:{server.port}"]
    process = subprocess.Popen(machine.pinned(machine.LOAD_CORE, flood), stdout=subprocess.DEVNULL)

    def is_there() -> bool:
        lookups = json.loads(server.get("/status")[2])["lookups"]
        return bool(lookups["numbers"] == lookups["limit"])

    try:
        machine.wait_until(is_there, 30, "as many numbers wait as may")
        yield
    finally:
        process.kill()
        process.wait()


def flood(suite: Suite) -> None:
    """In turn without and with it, on a server of its own each time."""
    suite.say(f"flood: /next beside {FLOOD_CONNECTIONS} clients that ask for F({LARGEST:,}), ...")
    seconds = suite.effort.wrk_seconds + 1
    for number in range(suite.effort.rounds):
        with servers.fibcore(suite.folder, 1_000, "exact") as server:
            for section in (BEFORE, BESIDE):
                run = Run(
                    section, server.peer, "next", CONNECTIONS, "wrk", "exact", "full", round=number
                )
                # wrk's own time, and what is sampled and settles around it.
                beside = flooded(server, suite.folder, seconds + 60)
                with beside if section is BESIDE else contextlib.nullcontext():
                    suite.add(loads.wrk(run, server, seconds))
                    used = machine.pss_bytes(server.pids()) / 2**20
            suite.flood["PSS MB"] = max(used, suite.flood.get("PSS MB", 0.0))
