"""The machine: its cores and its disk, and the resources that processes use."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent

_CORES: Final = sorted(os.sched_getaffinity(0))
SERVER_CORE: Final = _CORES[0]
"""Each server has this core alone, as on the target machine."""
LOAD_CORE: Final = _CORES[-1]
ENGINE_CORE: Final = _CORES[len(_CORES) > 1]
"""Of two cores, an engine shares that of the load."""


def pinned(core: int, *command: str | Path) -> list[str]:
    """The command, run on this core only."""
    return ["taskset", "-c", str(core), *map(str, command)]


def tree(pid: int) -> list[int]:
    """The process and all its running descendants."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
                found.extend(map(int, children.read_text().split()))
    return found


def cpu_seconds(pids: Sequence[int]) -> float:
    """The processor time of running processes so far, to the nanosecond."""
    total = 0.0
    for pid in pids:
        # clock_getcpuclockid(3): /proc/PID/stat counts only hundredths of a second.
        with suppress(OSError):  # it has exited
            total += time.clock_gettime(~pid << 3 | 2)
    return total


def busy_seconds() -> float:
    """The time that all processors together have worked so far."""
    values = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    ticks = [int(value) for value in values]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def pss_bytes(pids: Sequence[int]) -> int:
    """The proportional set size of all processes together, which counts shared pages once."""
    total = 0
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def sync_microseconds(folder: Path, times: int = 100) -> float:
    """The median time of pwrite and fdatasync of 4 KiB in that folder."""
    path = folder / "sync-probe"
    taken = []
    fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        for i in range(times):
            start = time.perf_counter()
            os.pwrite(fd, b"x" * 4096, 4096 * i)
            os.fdatasync(fd)
            taken.append((time.perf_counter() - start) * 1e6)
    finally:
        os.close(fd)
        path.unlink()
    return median(taken)


def file_system(folder: Path) -> str:
    """The type of the file system that the folder is on."""
    return _first_line("stat", "-f", "-c", "%T", str(folder))


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    except FileNotFoundError:
        return "unknown"
    text = (done.stdout or done.stderr).strip()
    return text.splitlines()[0].strip() if text else "unknown"


def describe(folder: Path) -> str:
    """The machine and its programs, in one line."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return ", ".join(
        (
            f"{(models or ['unknown'])[0]}, {len(_CORES)} cores",
            f"Linux {platform.release()}",
            f"Python {sys.version.split()[0]}",
            _first_line("/usr/sbin/nginx", "-v").removeprefix("nginx version: "),
            f"a sync of 4 KiB on {file_system(folder)} {sync_microseconds(folder):.0f} us",
            f"commit {_first_line('git', 'describe', '--always', '--dirty')}",
        )
    )
