"""The machine: tools, cores, disk, and the resources that processes use."""

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"

# The server has a core of its own, as on the target machine; the load has another.
_CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = _CORES[0], _CORES[-1]
# A shared store has a third core, and each further node another one, as far as there are any.
# Of two cores, it shares that of the load, which needs less of it.
STORE_CORE = _CORES[len(_CORES) > 1]
NODE_CORES = [core for core in _CORES if core not in (STORE_CORE, LOAD_CORE)] or _CORES[:1]

PACKAGES = {
    "cc": "gcc libc6-dev",
    "go": "golang-go golang-github-julienschmidt-httprouter-dev golang-github-gomodule-redigo-dev",
    "nginx": "nginx-light",
    "taskset": "util-linux",
    "wrk": "wrk",
}
GO_PATH = Path("/usr/share/gocode")


class MissingError(Exception):
    """A tool is missing; the message names its packages."""


def _which(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")


def tool(name: str) -> str:
    """The path of a program. Raises MissingError, which names the Debian packages with it."""
    found = _which(name)
    if found is None:
        raise MissingError(f"{name} is missing: apt-get install {PACKAGES[name]}")
    return found


def check_tools(sections: Collection[str]) -> None:
    """Raises MissingError if tools of these sections (all are named) or cores are missing."""
    needed = {"taskset"} if set(sections) == {"locust"} else set(PACKAGES)
    packages = [PACKAGES[name] for name in sorted(needed) if _which(name) is None]
    if packages:
        raise MissingError(f"Tools are missing: apt-get install {' '.join(packages)}")
    if SERVER_CORE == LOAD_CORE:
        raise MissingError("The server and the load need a core each, and there is only one.")


def pinned(core: int, command: Sequence[str | Path]) -> list[str]:
    """The command, run on this core only."""
    return [tool("taskset"), "-c", str(core), *map(str, command)]


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for the condition. Raises TimeoutError, which names ``what``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.002)


def tree(pid: int) -> list[int]:
    """The process and all its running descendants."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found.extend(map(int, children.read_text().split()))
            except FileNotFoundError:  # the thread has ended
                continue
    return found


def cpu_seconds(pids: Sequence[int]) -> float:
    """The processor time of running processes so far, to the nanosecond."""
    total = 0.0
    for pid in pids:
        # clock_getcpuclockid(3): /proc/PID/stat counts only hundredths of a second.
        with suppress(OSError):  # it has exited
            total += time.clock_gettime(~pid << 3 | 2)
    return total


def pss_bytes(pids: Sequence[int]) -> int:
    """The proportional set size of all processes together, which counts shared pages once."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def sync_microseconds(folder: Path, times: int = 200) -> tuple[float, float]:
    """Median and 99th percentile of pwrite and fdatasync of 4 KiB in that folder."""
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
    taken.sort()
    return taken[times // 2], taken[times * 99 // 100]


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    except FileNotFoundError:
        return "unknown"
    text = (done.stdout or done.stderr).strip()
    return text.splitlines()[0].strip() if text else "unknown"


def describe(folder: Path) -> dict[str, object]:
    """The machine and its programs, for readers of the figures."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    median, p99 = sync_microseconds(folder)
    return {
        "processor": model,
        "cores": len(_CORES),
        "server core": SERVER_CORE,
        "load core": LOAD_CORE,
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "go": _first_line("go", "version"),
        "nginx": _first_line(_which("nginx") or "nginx", "-v"),
        "commit": _first_line("git", "describe", "--always", "--dirty"),
        "database on": _first_line("stat", "-f", "-c", "%T", str(folder)),
        "sync of 4 KiB, median us": round(median),
        "sync of 4 KiB, p99 us": round(p99),
    }
