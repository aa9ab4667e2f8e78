"""The load generator as a process: how load.c is built, started, and read out."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import machine
from bench.load import records
from bench.servers import Server


def build(folder: Path) -> Path:
    """Compiles load.c."""
    program = folder / "load"
    if not program.exists():
        subprocess.run(
            [machine.tool("cc"), "-O2", "-Wall", "-o", program, machine.ROOT / "bench/load/load.c"],
            check=True,
        )
    return program


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the generator did: its own counts, and every record."""

    counts: dict[str, int]
    records: list[records.Record]
    streams: tuple[str, ...]


def start(
    folder: Path,
    server: Server,
    streams: Sequence[str],
    *,
    connections: int,
    seconds: float,
    rate: float | Mapping[str, float] | None = None,
    requests: int | None = None,
    check_every: int = 1,
    requests_sent: Mapping[str, bytes] | None = None,
) -> subprocess.Popen[str]:
    """Starts load.c; `rate` is of each stream, a second; without it the loop is closed.

    `requests_sent` has for a stream what it sends instead of the plainest request; load.c says
    what may stand in it.
    """
    command: list[str | Path] = [
        build(folder),
        *("--port", str(server.port), "--connections", str(connections)),
        *("--seconds", str(seconds), "--check-every", str(check_every)),
        *("--records", folder / f"records-{server.port}"),
    ]
    for stream in streams:
        each = rate[stream] if isinstance(rate, Mapping) else rate
        command += ["--stream", f"/{stream}" + (f":{each}" if each is not None else "")]
        if requests_sent and stream in requests_sent:
            sent = folder / f"request-{server.port}-{stream}"
            sent.write_bytes(requests_sent[stream])
            command += ["--request", sent]
    if requests is not None:
        command += ["--requests", str(requests)]
    if server.integers == "uint64":
        command.append("--uint64")
    return subprocess.Popen(
        machine.pinned(machine.LOAD_CORE, command), stdout=subprocess.PIPE, text=True
    )


def finish(
    folder: Path, server: Server, streams: Sequence[str], process: subprocess.Popen[str]
) -> Recorded:
    """Waits for the generator and reads what it recorded."""
    output, _ = process.communicate(timeout=300)
    if process.returncode != 0:
        raise RuntimeError(f"the load generator ended with {process.returncode}")
    path = folder / f"records-{server.port}"
    recorded = Recorded(json.loads(output), records.read(path), tuple(streams))
    path.unlink()
    return recorded
