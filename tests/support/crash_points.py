"""Crash points: the files that a program leaves when it is killed at any line.

As the power stays on, no disk is needed: the files are in memory if there is room, where syncs are
free.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

KILLER: Final = """
import os, shutil, signal, sys, time, zlib
from contextlib import closing
from pathlib import Path
from fibcore.stores import sqlite_opener
from fibcore.stores.sqlite_opener import SqliteOpener
from fibcore.stores import files, sqlite_file

original, traced, program = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

def run_in_a_copy(name, at_line):
    "Run the program in a new process, which calls at_line at each line with its number."
    copy = original.with_name(name)
    shutil.copytree(original, copy)
    database = copy / "fibcore.db"
    if not (pid := os.fork()):
        lines = 0
        def trace(frame, event, _):
            nonlocal lines
            if not frame.f_code.co_filename.startswith(traced):
                return None
            if event == "line":
                at_line(lines, copy)
                lines += 1
            return trace
        sys.settrace(trace)
        exec(program)
        sys.settrace(None)
        at_line(lines, copy)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -signal.SIGKILL), status

def fingerprints(folder):
    "Yield what identifies a change of files, except the lock and what SQLite rebuilds."
    for path in sorted(folder.iterdir()):
        if not path.name.endswith((".lock", "-shm")):
            status = path.stat()
            # Timestamps may have a resolution of some milliseconds.
            fresh = abs(time.time() - status.st_mtime) < 1
            content = zlib.crc32(path.read_bytes()) if fresh else None
            yield path.name, status.st_ino, status.st_size, status.st_mtime_ns, content

last = None
moments = original.with_name("moments")
def note_changes(line, folder):
    global last
    if (now := [*fingerprints(folder)]) != last:
        last = now
        with moments.open("a") as file:
            print(line, file=file)

def kill_at(wanted):
    def at_line(line, _):
        if line == wanted:
            os.kill(os.getpid(), signal.SIGKILL)
    return at_line

run_in_a_copy("whole", note_changes)
for line in map(int, moments.read_text().split()):
    run_in_a_copy(f"killed at line {line}", kill_at(line))
moments.unlink()
"""


def killed_at_each_line(original: Path, traced: Path, program: str, *, least: int) -> list[Path]:
    """Run ``program`` on copies of ``original``, killed after each change of the files.

    It is killed before the first line, and before each line that finds changed files: other lines
    leave the same files.

    Args:
        original: a folder; the copies are made beside it.
        traced: the file or folder whose lines count.
        program: may use ``database``, ``SqliteOpener`` and ``sqlite_file``.
        least: the files are known to change more often than this.

    Returns:
        The database in each copy, including that of a complete run.
    """
    subprocess.run(
        [sys.executable, "-c", KILLER, original, traced, program], check=True, timeout=300
    )
    copies = sorted(path for path in original.parent.iterdir() if path != original)
    assert len(copies) > least, "tracing found too few changes"
    return [copy / "fibcore.db" for copy in copies]
