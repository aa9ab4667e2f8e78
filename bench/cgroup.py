"""The limits: what holds a server under measurement to the size of the machine that it is made for.

512 MB are a memory cgroup's limit around the server and all its children, swap included; the one
core is taskset's. A control group belongs to the program that made it, so systemd, where it runs
the machine, is asked for a scope. Without it a group is made below the one that --cgroup names, of
version 1; version 2 lets nobody do that from within the group that he is in himself.

`python -m bench.cgroup` prints the limit of the scope in which it runs itself.
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
SYSTEMD = Path("/run/systemd/system")  # there when systemd is what runs this machine
SCOPES = Path("/sys/fs/cgroup")  # where systemd's groups are seen
NAME = f"fibcore-bench-{os.getpid()}-"
_numbers = itertools.count()


def scope_bytes(pid: int | str, name: str, proc: Path = Path("/proc")) -> int | None:
    """A size that the kernel keeps of a process's scope; None where it has none, or no limit."""
    try:
        groups = (proc / str(pid) / "cgroup").read_text().splitlines()
        path = next(line[3:] for line in groups if line.startswith("0::"))
        text = (SCOPES / path.lstrip("/") / name).read_text().strip()
    except (OSError, StopIteration):
        return None
    return int(text) if text.isdecimal() else None


@contextlib.contextmanager
def made(parent: Path, limit: int = LIMIT) -> Iterator[Path]:
    """A group with the limit below `parent`; left, it is removed, with what still runs in it.

    Raises OSError where it can't be made.
    """
    if not (parent / "memory.limit_in_bytes").exists():
        raise FileNotFoundError(f"{parent} is no memory control group of version 1")
    group = parent / f"{NAME}{next(_numbers)}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(limit))
        swap = group / "memory.memsw.limit_in_bytes"
        if swap.exists():  # not where the kernel doesn't account swap
            swap.write_text(str(limit))
        yield group
    finally:
        remove(group)


def remove(group: Path, seconds: float = 5) -> None:
    """Ends what still runs in the group and removes it. Raises OSError if it stays in use."""
    deadline = time.monotonic() + seconds
    while True:
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        try:
            group.rmdir()
        except OSError:  # a process that has been ended holds it until it has been waited for
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def joining(group: Path, command: Sequence[str]) -> list[str]:
    """The command, to be run in the group from its first instruction on, with the same pid."""
    script = 'echo $$ > "$0" && exec "$@"'
    return ["/bin/sh", "-c", script, str(group / "cgroup.procs"), *command]


@contextlib.contextmanager
def scoped(command: Sequence[str], limit: int = LIMIT) -> Iterator[list[str]]:
    """The command in a scope of systemd's, with the same pid; left, what still runs there ends."""
    manager = [] if os.geteuid() == 0 else ["--user"]
    unit = f"{NAME}{next(_numbers)}.scope"
    limits = ["-p", f"MemoryMax={limit}", "-p", "MemorySwapMax=0"]
    options = ["--scope", f"--unit={unit}", "--collect", "--quiet", "--no-ask-password"]
    try:
        yield ["systemd-run", *manager, *options, *limits, "--", *command]
    finally:
        # It fails where the scope has gone with its last process, which is the rule.
        kill = ["systemctl", *manager, "kill", "--signal=KILL", "--no-ask-password", unit]
        subprocess.run(kill, stdin=subprocess.DEVNULL, capture_output=True, check=False)


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """How servers are held to the memory.

    For "none" `reason` says why they are not; for "not ours" it says whose the server is.
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
        """The command that starts in a cgroup of its own. Leave it when the command has ended."""
        if self.parent is not None:
            with made(self.parent, limit) as group:
                yield joining(group, command)
        elif self.how == "systemd scope":
            with scoped(command, limit) as scope:
                yield scope
        else:
            yield list(command)

    def peak_bytes(self, pid: int) -> int | None:
        """The most that was ever charged to the cgroup of a running process, page cache included.

        None without one, and where the kernel doesn't tell it (a scope's before Linux 5.19).
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
    """The limit to be had here, tried out; below `parent` if given."""
    if parent is None and not SYSTEMD.exists():
        return unlimited("there is no systemd to ask; --cgroup names a group to make others in")
    try:
        if parent is None:
            return _tried(MemoryLimit("systemd scope"))
        with made(parent):
            return MemoryLimit("cgroup v1", parent)
    except (OSError, subprocess.TimeoutExpired) as error:
        return unlimited(str(error))


def _tried(limit: MemoryLimit) -> MemoryLimit:
    """The limit, if a program in it sees the limit."""
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
        said = done.stderr.strip() or f"a program in it has the limit {done.stdout.strip()}"
        return unlimited(f"{limit.how}: {said}")
    return limit


if __name__ == "__main__":
    print(scope_bytes("self", "memory.max"))
