"""Runs programs to their end."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PATIENCE: Final = 600
OTHERS: Final = {k: v for k, v in os.environ.items() if not k.startswith(("FIB_", "PYTHON"))}


def run(
    *command: str | Path, cwd: Path, environ: Mapping[str, str] = OTHERS, fails: bool = False
) -> str:
    """Run a command; return its output."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode != 0) == fails, done.stdout
    return done.stdout
