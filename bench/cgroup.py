"""Limits each measured server to the size of the target machine.

A systemd scope limits the server and all its children to 512 MB, including swap; taskset gives them
one core. Without systemd the memory is not limited, and the figures say so.

`python -m bench.cgroup` prints the limit of the scope in which it runs.
"""

import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LIMIT = 512 * 2**20  # bytes
SYSTEMD = Path("/run/systemd/system")  # exists if systemd runs this machine
SCOPES = Path("/sys/fs/cgroup")  # systemd's groups
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
def scoped(command: Sequence[str], limit: int = LIMIT) -> Iterator[list[str]]:
    """The command in a systemd scope, with the same pid; on exit, what still runs is killed."""
    manager = [] if os.geteuid() == 0 else ["--user"]
    unit = f"fibcore-bench-{os.getpid()}-{next(_numbers)}.scope"
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

    how: Literal["systemd scope", "none", "not ours"]
    reason: str = ""

    def __str__(self) -> str:
        if self.how == "not ours":
            return self.reason
        core = "one core by taskset"
        if self.how == "none":
            return f"{core}; memory is not limited: {self.reason}"
        return f"{core}, {LIMIT / 2**20:.0f} MB by {self.how}"

    def around(
        self, command: Sequence[str], limit: int = LIMIT
    ) -> contextlib.AbstractContextManager[list[str]]:
        """The command, in its own scope if memory is limited. Exit after the command has ended."""
        if self.how == "systemd scope":
            return scoped(command, limit)
        return contextlib.nullcontext(list(command))

    def peak_bytes(self, pid: int) -> int | None:
        """The peak memory of the scope of a running process, including page cache.

        None without a scope, or if the kernel does not report it (before Linux 5.19).
        """
        return scope_bytes(pid, "memory.peak") if self.how == "systemd scope" else None


def unlimited(reason: str) -> MemoryLimit:
    return MemoryLimit("none", reason=" ".join(reason.split()))


def find() -> MemoryLimit:
    """The limit that this machine offers, tested on a program in it."""
    if not SYSTEMD.exists():
        return unlimited("systemd does not run here")
    try:
        with scoped([sys.executable, "-m", "bench.cgroup"]) as command:
            done = subprocess.run(
                command,
                cwd=Path(__file__).parent.parent,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=20,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        return unlimited(str(error))
    if done.stdout.strip() != str(LIMIT):
        reason = done.stderr.strip() or f"a program in it has the limit {done.stdout.strip()}"
        return unlimited(f"systemd scope: {reason}")
    return MemoryLimit("systemd scope")


if __name__ == "__main__":
    print(scope_bytes("self", "memory.max"))
