"""The box: what holds a server under measurement to the size of the machine that it is made for.

512 MB are a memory cgroup's limit around the server and all its children, swap included; the one
core is taskset's. A control group belongs to the program that made it, so a new one is made only
where that is allowed: by systemd, which is asked for a scope; without systemd at the root of what
this process sees, if it is there itself; or below the group given with --cgroup.

`python -m bench.box` prints the limit under which it runs itself.
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
from pathlib import Path, PurePosixPath
from typing import Any, Literal

LIMIT = 512 * 2**20  # bytes
SYSTEMD = Path("/run/systemd/system")  # there when systemd is what runs this machine
_numbers = itertools.count()


def _name() -> str:
    """Of a group that no other has."""
    return f"fibcore-bench-{os.getpid()}-{next(_numbers)}"


@dataclass(frozen=True, slots=True)
class Files:
    """What the memory controller calls its files."""

    limit: str
    swap: str
    peak: str


FILES = {
    1: Files("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max_usage_in_bytes"),
    2: Files("memory.max", "memory.swap.max", "memory.peak"),
}


@dataclass(frozen=True, slots=True)
class Place:
    """A process's memory group, and the mount below which it is seen."""

    mount: Path
    group: Path


def version(group: Path) -> Literal[1, 2]:
    """Of the cgroups. Raises FileNotFoundError where the folder is no group with memory in it."""
    if (group / FILES[1].limit).exists():
        return 1
    if "memory" in (group / "cgroup.controllers").read_text().split():
        return 2
    raise FileNotFoundError(f"{group} has no memory controller")


def place(pid: int | None = None, proc: Path = Path("/proc")) -> Place:
    """Where a process (this one for None) is. Raises FileNotFoundError where no group is seen."""
    process = proc / ("self" if pid is None else str(pid))
    paths: dict[str, str] = {}  # of each controller; "" is version 2
    for line in (process / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path))
    mine = paths.get("memory", paths.get("", ""))
    for line in (process / "mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        root, mount = before.split()[3:5]
        kind, _, options = after.split(" ", 2)
        if "memory" in paths:
            held = kind == "cgroup" and "memory" in options.split(",")
        else:
            held = kind == "cgroup2"
        if held and PurePosixPath(mine).is_relative_to(root) and ".." not in mine:
            return Place(Path(mount), Path(mount) / PurePosixPath(mine).relative_to(root))
    raise FileNotFoundError("no memory controller is mounted")


def _read(group: Path, name: str) -> int | None:
    """A size in bytes; None where there is no such file or no limit."""
    try:
        text = (group / name).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def limit_bytes(pid: int | None = None) -> int | None:
    """The limit of a process's own group, None without one."""
    try:
        group = place(pid).group
        return _read(group, FILES[version(group)].limit)
    except OSError:
        return None


@contextlib.contextmanager
def made(parent: Path, limit: int = LIMIT) -> Iterator[Path]:
    """A group with the limit below `parent`; left, it is removed, with what still runs in it.

    Raises OSError where it can't be made.
    """
    files = FILES[version(parent)]
    if version(parent) == 2:
        control = parent / "cgroup.subtree_control"
        if "memory" not in control.read_text().split():
            control.write_text("+memory")
    group = parent / _name()
    group.mkdir()
    try:
        (group / files.limit).write_text(str(limit))
        if (group / files.swap).exists():  # not where the kernel doesn't account swap
            (group / files.swap).write_text(str(limit if version(parent) == 1 else 0))
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
    unit = f"{_name()}.scope"
    limits = ["-p", f"MemoryMax={limit}", "-p", "MemorySwapMax=0"]
    options = ["--scope", f"--unit={unit}", "--collect", "--quiet", "--no-ask-password"]
    try:
        yield ["systemd-run", *manager, *options, *limits, "--", *command]
    finally:
        # It fails where the scope has gone with its last process, which is the rule.
        kill = ["systemctl", *manager, "kill", "--signal=KILL", "--no-ask-password", unit]
        subprocess.run(kill, stdin=subprocess.DEVNULL, capture_output=True, check=False)


@dataclass(frozen=True, slots=True)
class Box:
    """How servers are held to the memory.

    For "none" `reason` says why they are not; for "not ours" it says whose the server is.
    """

    how: Literal["systemd scope", "cgroup v1", "cgroup v2", "none", "not ours"]
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
        """The command that starts in a box of its own. Leave it when the command has ended."""
        if self.parent is not None:
            with made(self.parent, limit) as group:
                yield joining(group, command)
        elif self.how == "systemd scope":
            with scoped(command, limit) as scope:
                yield scope
        else:
            yield list(command)

    def peak_bytes(self, pid: int) -> int | None:
        """The most that was ever charged to the box of a running process, page cache included.

        None without a box, and where the kernel doesn't tell it (version 2 before Linux 5.19).
        """
        if self.how in ("none", "not ours"):
            return None
        group = place(pid).group
        return _read(group, FILES[version(group)].peak)

    def as_json(self) -> dict[str, Any]:
        return {
            "memory": self.how,
            "limit bytes": None if self.how in ("none", "not ours") else LIMIT,
            "processor": None if self.how == "not ours" else "taskset",
            "reason": self.reason,
        }


def unlimited(reason: str) -> Box:
    return Box("none", reason=" ".join(reason.split()))


def find(parent: Path | None = None) -> Box:
    """The box to be had here, tried out; below `parent` if given."""
    try:
        if parent is None and not SYSTEMD.exists():
            own = place()
            if own.group != own.mount:
                return unlimited(
                    f"{own.group} is the group of another program; "
                    "--cgroup names one below which groups may be made"
                )
            parent = own.group
        if parent is None:
            box = Box("systemd scope")
        else:
            box = Box("cgroup v1" if version(parent) == 1 else "cgroup v2", parent)
        return _tried(box)
    except (OSError, subprocess.TimeoutExpired) as error:
        return unlimited(str(error))


def _tried(box: Box) -> Box:
    """The box, if a program in it sees the limit."""
    with box.around([sys.executable, "-m", "bench.box"]) as command:
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
        return unlimited(f"{box.how}: {said}")
    return box


if __name__ == "__main__":
    print(limit_bytes())
