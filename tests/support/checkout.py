"""A folder in which ``make run`` works as in a checkout, and the commands that run in it."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support import requires
from tests.support.ports import free_port
from tests.support.supervised import ROOT
from tests.support.waiting import PATIENCE, until


def checkout(folder: Path) -> Path:
    """Prepare ``folder``, whose path must be short enough for a Unix socket."""
    folder.joinpath(".venv").symlink_to(sys.prefix)
    for name in ("supervisord.conf", "fibcore.conf", "Makefile"):
        shutil.copyfile(ROOT / name, folder / name)
    return folder


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    # Without the variables that make passes to a nested make.
    foreign = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FIB_", "MAKE", "MFLAGS"))
    }
    return foreign | dict(settings)


def run(home: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run ``make run`` where it fails before it serves."""
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
    """Run ``make run`` on a free port; yield the port."""
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
    """Run a program in the folder, without settings, to its end."""
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
    """Run ``make restart`` in the folder, whose environment is not renewed."""
    return ended(home, requires.program("make"), "--old-file=.venv/.run", "restart")


def command(home: Path, name: str, *arguments: str) -> str:
    """Return the output of an installed command in the folder, without settings."""
    return ended(home, f"{sys.prefix}/bin/{name}", *arguments).stdout
