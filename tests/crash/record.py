"""What a process does to the files of one folder, and what it reports, recorded by strace."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from tests.support import requires

CALLS: Final = (
    "openat,pwrite64,write,ftruncate,fallocate,fsync,fdatasync,rename,unlink,mkdir,link,symlink,"
    "writev,pwritev,pwritev2,truncate,renameat,renameat2,unlinkat,linkat,sendfile,copy_file_range,"
    "clock_nanosleep"
)
SYNCS: Final = ("fsync", "fdatasync")
KILLED_IN_ITS_PAUSE: Final = "inject=clock_nanosleep:signal=KILL"

LINE: Final = re.compile(r"^(\w+)\((.*)\) += (-?\d+)(?:<.*>)?(.*)$")
FD: Final = re.compile(r"^\d+<([^>]*)>")
TEXT: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


class Operation(NamedTuple):
    """One change of the folder, or one line of the process's report."""

    kind: str
    """``create``, ``replace`` (it is empty then), ``write``, ``truncate``, ``sync``,
    ``failed sync``, ``rename``, ``unlink``; of the report: see ``images.Promise``."""
    name: str
    """Of the file in the folder; ``.`` is the folder itself."""
    at: int = 0
    """The offset, the size, or the index."""
    data: bytes = b""
    target: str = ""
    """The new name."""


def _decode(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _reported(line: str) -> Operation:
    kind, name, value = line.split()
    if kind == "page":
        return Operation("write", name, 0, bytes.fromhex(value))
    return Operation(kind, name, int(value))


def _operation(
    call: str, arguments: str, returned: int, note: str, folder: str
) -> Operation | None:
    """What a call means for the folder; None if nothing."""
    texts = [_decode(each) for each in TEXT.findall(arguments)]
    found = FD.match(arguments)
    path = _decode(found[1]).decode() if found else texts[0].decode() if texts else ""
    if path != folder and Path(path).parent != Path(folder):
        return None
    name = "." if path == folder else Path(path).name
    if call in SYNCS:
        if "INJECTED" in note:
            # No such sync: it returned what strace made of it.
            return Operation("failed sync", name) if returned else None
        return Operation("sync", name)
    if returned < 0 or "deleted" in arguments:
        return None
    numbers = re.findall(r", (\d+)", TEXT.sub("", arguments))
    match call:
        case "openat":
            kind = "replace" if "O_TRUNC" in arguments else "create"
            return Operation(kind, name) if "O_CREAT" in arguments else None
        case "pwrite64":
            return Operation("write", name, int(numbers[-1]), texts[0][:returned])
        case "ftruncate":
            return Operation("truncate", name, int(numbers[0]))
        case "rename":
            return Operation("rename", name, target=Path(texts[1].decode()).name)
        case "unlink":
            return Operation("unlink", name)
        case "write":
            # Of Python's own files; each is written once, from its start.
            return Operation("write", name, 0, texts[0][:returned])
        case "fallocate":
            return None
    raise AssertionError(f"{call} changes {name}, and no image knows of it")


def record(
    database: Path, level: str, *commands: str, faults: Sequence[str] = ()
) -> list[Operation]:
    """Run the workload's ``commands`` at this level of durability; return what it did.

    Args:
        faults: options of strace, such as ``inject=fsync:retval=0``.
    """
    return traced(database, "tests.crash.workload", str(database), level, *commands, faults=faults)


def record_backup(database: Path) -> list[Operation]:
    """Run the program of the backup copy until its first pause; return what it did."""
    return traced(database, "supervise.backup", "1", faults=(KILLED_IN_ITS_PAUSE,))


def traced(database: Path, *module: str, faults: Sequence[str]) -> list[Operation]:
    folder = str(database.parent)
    options = [each for option in (f"trace={CALLS}", *faults) for each in ("-e", option)]
    with TemporaryDirectory() as made:
        trace = Path(made, "trace")
        strace: list[str | Path] = [
            requires.program("strace"),
            "-o",
            trace,
            "-y",
            "-xx",
            "-s",
            "1000000",
            *options,
        ]
        ended = subprocess.run(
            [*strace, sys.executable, "-m", *module],
            check=False,
            capture_output=True,
            env={**os.environ, "FIB_STATE": str(database)},
        )
        if not faults and ended.returncode not in (0, -signal.SIGKILL):
            raise AssertionError(ended.stderr.decode())
        lines = trace.read_text().splitlines()
    operations: list[Operation] = []
    for line in lines:
        if (call := LINE.match(line)) is None:
            continue
        name, arguments, returned, note = call.groups()
        if name == "write" and arguments.startswith("1<"):
            operations += map(_reported, _decode(TEXT.findall(arguments)[0]).decode().splitlines())
        elif found := _operation(name, arguments, int(returned), note, folder):
            operations.append(found)
    return operations
