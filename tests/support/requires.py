"""What some tests require that not every machine has.

Without it a test is skipped, and what it would take is said. With REQUIRE_ALL=1 it fails.
"""

import os
import re
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

__all__ = ["program", "root"]

CAP_SYS_ADMIN = 21
"""The number of the right to mount, see capabilities(7)."""


def program(name: str, package: str | None = None) -> str:
    """Where the program is, which Debian's ``package`` brings."""
    found = shutil.which(name)
    if found is None:
        missing(f"{name} is missing: apt-get install {package or name}")
    return found


def root() -> None:
    """Return if this process may mount, and become another user."""
    status = Path("/proc/self/status").read_text()
    (rights,) = re.findall(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    if os.geteuid() != 0 or not int(rights, 16) >> CAP_SYS_ADMIN & 1:
        pytest_of_this = Path(sys.prefix, "bin", "pytest")
        missing(f"needs root, also to mount: sudo {pytest_of_this} -m root -p no:cacheprovider")


def missing(why: str) -> NoReturn:
    """Skip the test, or fail."""
    (pytest.fail if os.environ.get("REQUIRE_ALL") else pytest.skip)(why)
