"""A checkout, as far as it matters to a user who types ``make run`` in it, and what runs there."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.ports import free_port
from tests.support.supervised import ROOT
from tests.support.waiting import PATIENCE, until


def checkout(folder: Path) -> Path:
    """Make ``folder`` one; its path is short enough for a Unix socket."""
    folder.joinpath(".venv").symlink_to(sys.prefix)
    for name in ("supervisord.conf", "fibcore.conf", "Makefile"):
        shutil.copyfile(ROOT / name, folder / name)
    return folder


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    # Without what a make hands down to the make that it runs: nobody's shell has that.
    foreign = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FIB_", "MAKE", "MFLAGS"))
    }
    return foreign | dict(settings)


def run(home: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """``make run`` where it does not come to serving."""
    return subprocess.run(
        [sys.executable, "-m", "supervise.run"],
        cwd=home,
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@contextlib.contextmanager
def running(home: Path, **settings: str) -> Iterator[int]:
    """``make run`` on a free port, which is given."""
    port = free_port()
    with home.joinpath("terminal").open("w") as terminal:
        process = subprocess.Popen(
            [sys.executable, "-m", "supervise.run"],
            cwd=home,
            env=environment({"FIB_PORT": str(port), **settings}),
            stdout=terminal,
            stderr=terminal,
        )
    try:
        until(lambda: "serving from" in said(home) or process.poll() is not None, "it serves")
        assert process.poll() is None, said(home)
        yield port
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0


def said(home: Path) -> str:
    return home.joinpath("terminal").read_text()


def ended(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a program in the folder, without a variable, to its end."""
    return subprocess.run(
        words,
        cwd=home,
        env=environment({}),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def restart(home: Path) -> subprocess.CompletedProcess[str]:
    """``make restart`` in the folder."""
    return ended(home, sys.executable, "-m", "supervise.restart")


def command(home: Path, name: str, *arguments: str) -> str:
    """What a user types in the folder, without a variable."""
    return ended(home, f"{sys.prefix}/bin/{name}", *arguments).stdout
