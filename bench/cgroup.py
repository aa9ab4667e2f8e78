"""Limits each measured server to the size of the target machine.

A memory cgroup limits the server and all its children to 512 MB, including swap; taskset gives it
one core. Where systemd runs, it is asked for a scope. Without it, a group of version 1 is created
under the one that --cgroup names; in version 2 a process can't do so from within its own group.

`python -m bench.cgroup` prints the limit of the scope in which it runs.
"""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

LIMIT = 512 * 2**20  # bytes
SYSTEMD = Path("/run/systemd/system")  # exists if systemd runs this machine
SCOPES = Path("/sys/fs/cgroup")  # systemd's groups
NAME = f"fibcore-bench-{os.getpid()}-"
_numbers = itertools.count()


def scope_bytes(pid: int | str, name: str, proc: Path = Path("/proc")) -> int | None:
    """A size of a process's scope, from the kernel; None without a scope, or a limit."""
    try:
        groups = (proc / str(pid) / "cgroup").read_text().splitlines()
        path = next(line[3:] for line in groups if line.startswith("0::"))
        text = (SCOPES / path.lstrip("/") / name).read_text().strip()
    except (OSError, StopIteration):
        return None
    return int(text) if text.isdecimal() else None


@contextlib.contextmanager
def made(parent: Path, limit: int = LIMIT) -> Iterator[Path]:
    """A group with the limit under `parent`; on exit it is removed, with what still runs in it.

    Raises OSError if it can't be created.
    """
    if not (parent / "memory.limit_in_bytes").exists():
        raise FileNotFoundError(f"{parent} is not a memory cgroup of version 1")
    group = parent / f"{NAME}{next(_numbers)}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(limit))
        swap = group / "memory.memsw.limit_in_bytes"
        if swap.exists():  # if the kernel accounts swap
            swap.write_text(str(limit))
        yield group
    finally:
        remove(group)


def remove(group: Path, seconds: float = 5) -> None:
    """Kill what still runs in the group, and remove it. Raises OSError if it stays in use."""
    deadline = time.monotonic() + seconds
    while True:
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        try:
            group.rmdir()
        except OSError:  # a killed process keeps it in use until it has been waited for
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def joining(group: Path, command: Sequence[str]) -> list[str]:
    """The command, in the group from its first instruction on, with the same pid."""
    script = 'echo $$ > "$0" && exec "$@"'
    return ["/bin/sh", "-c", script, str(group / "cgroup.procs"), *command]


@contextlib.contextmanager
def scoped(command: Sequence[str], limit: int = LIMIT) -> Iterator[list[str]]:
    """The command in a systemd scope, with the same pid; on exit, what still runs is killed."""
    manager = [] if os.geteuid() == 0 else ["--user"]
    unit = f"{NAME}{next(_numbers)}.scope"
    limits = ["-p", f"MemoryMax={limit}", "-p", "MemorySwapMax=0"]
    options = ["--scope", f"--unit={unit}", "--collect", "--quiet", "--no-ask-password"]
    try:
        yield ["systemd-run", *manager, *options, *limits, "--", *command]
    finally:
        # It fails if the scope is gone with its last process, which is the usual case.
        kill = ["systemctl", *manager, "kill", "--signal=KILL", "--no-ask-password", unit]
        subprocess.run(kill, stdin=subprocess.DEVNULL, capture_output=True, check=False)


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """How the memory of servers is limited.

    `reason`: why it is not ("none"), or which server is measured ("not ours").
    """

    how: Literal["systemd scope", "cgroup v1", "none", "not ours"]
    parent: Path | None = None
    reason: str = ""

    def __str__(self) -> str:
        if self.how == "not ours":
            return self.reason
        core = "one core by taskset"
        if self.how == "none":
            return f"{core}; memory is not limited: {self.reason}"
        return f"{core}, {LIMIT / 2**20:.0f} MB by {self.how}"

    @contextlib.contextmanager
    def around(self, command: Sequence[str], limit: int = LIMIT) -> Iterator[list[str]]:
        """The command in its own cgroup. Exit the context after the command has ended."""
        if self.parent is not None:
            with made(self.parent, limit) as group:
                yield joining(group, command)
        elif self.how == "systemd scope":
            with scoped(command, limit) as scope:
                yield scope
        else:
            yield list(command)

    def peak_bytes(self, pid: int) -> int | None:
        """The peak memory of the cgroup of a running process, including page cache.

        None without a cgroup, or if the kernel does not report it (for scopes, before Linux 5.19).
        """
        if self.how == "systemd scope":
            return scope_bytes(pid, "memory.peak")
        for group in self.parent.glob(f"{NAME}*") if self.parent else ():
            if str(pid) in (group / "cgroup.procs").read_text().split():
                return int((group / "memory.max_usage_in_bytes").read_text())
        return None

    def as_json(self) -> dict[str, Any]:
        return {
            "memory": self.how,
            "limit bytes": None if self.how in ("none", "not ours") else LIMIT,
            "processor": None if self.how == "not ours" else "taskset",
            "reason": self.reason,
        }


def unlimited(reason: str) -> MemoryLimit:
    return MemoryLimit("none", reason=" ".join(reason.split()))


def find(parent: Path | None = None) -> MemoryLimit:
    """The limit that this machine offers, tested; under `parent` if given."""
    if parent is None and not SYSTEMD.exists():
        return unlimited("systemd does not run here, and --cgroup names no group to use instead")
    try:
        if parent is None:
            return _tried(MemoryLimit("systemd scope"))
        with made(parent):
            return MemoryLimit("cgroup v1", parent)
    except (OSError, subprocess.TimeoutExpired) as error:
        return unlimited(str(error))


def _tried(limit: MemoryLimit) -> MemoryLimit:
    """The limit, if it applies to a program in it."""
    with limit.around([sys.executable, "-m", "bench.cgroup"]) as command:
        done = subprocess.run(
            command,
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
    if done.stdout.strip() != str(LIMIT):
        reason = done.stderr.strip() or f"a program in it has the limit {done.stdout.strip()}"
        return unlimited(f"{limit.how}: {reason}")
    return limit


if __name__ == "__main__":
    print(scope_bytes("self", "memory.max"))
