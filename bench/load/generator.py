"""The load generator: builds and starts load.c, and reads its records."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import machine
from bench.load import records
from bench.servers import Server


def build(folder: Path) -> Path:
    """Compile load.c, if it has not been compiled there."""
    program = folder / "load"
    if not program.exists():
        subprocess.run(
            [machine.tool("cc"), "-O2", "-Wall", "-o", program, machine.ROOT / "bench/load/load.c"],
            check=True,
        )
    return program


@dataclass(frozen=True, slots=True)
class Recorded:
    """The results of the generator: its own counts, and every record."""

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
    """Start load.c.

    Args:
        rate: requests per second of each stream; None for a closed loop.
        requests_sent: by stream, the request to send instead of the plainest one; load.c documents
            its placeholders.
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
    """Wait for the generator, and read its records."""
    output, _ = process.communicate(timeout=300)
    if process.returncode != 0:
        raise RuntimeError(f"the load generator exited with {process.returncode}")
    path = folder / f"records-{server.port}"
    recorded = Recorded(json.loads(output), records.read(path), tuple(streams))
    path.unlink()
    return recorded
