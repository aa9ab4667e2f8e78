"""Programs, files and privileges that tests require, and the Debian packages that contain them.

A test that lacks one is skipped, with a line that says what to install. With REQUIRE_ALL=1 the run
ends before its first test instead, listing everything missing. ``.ci/run`` installs every package
named here.
"""

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Final, NoReturn

import pytest

CAP_SYS_ADMIN = 21
"""The number of the capability to mount; see capabilities(7)."""

PACKAGES: Final = {
    "chromium": "chromium",
    "curl": "curl",
    "etcd": "etcd-server",
    "etcdctl": "etcd-client",
    "gcc": "gcc",
    "git": "git",
    "initdb": "postgresql",
    "ip": "iproute2",
    "iptables": "iptables",
    "make": "make",
    "mkfs.ext4": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "nginx": "nginx-light",
    "openssl": "openssl",
    "pg_basebackup": "postgresql",
    "pg_isready": "postgresql",
    "pgbouncer": "pgbouncer",
    "postgres": "postgresql",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "psql": "postgresql",
    "redis-cli": "redis-server",
    "redis-server": "redis-server",
    "ss": "iproute2",
    "strace": "strace",
    "systemd-nspawn": "systemd-container",
}
"""The package of every program that a test starts, unless every Debian has it."""

FILES: Final = {"/usr/lib/*/faketime/libfaketimeMT.so.1": "faketime"}
"""The packages of other files, by glob pattern."""


def program(name: str) -> str:
    """Return the path of a program in ``PACKAGES``; skip the test if it is missing."""
    package = PACKAGES[name]
    found = _find(name)
    if found is None:
        _skip(f"{name} is missing: apt-get install {package}")
    return found


def file(pattern: str) -> Path:
    """Return the first file that matches a pattern in ``FILES``; skip the test if there is none."""
    found = _matching(pattern)
    if not found:
        _skip(f"{pattern} is missing: apt-get install {FILES[pattern]}")
    return found[0]


def all_missing() -> list[str]:
    """Return the packages of everything missing on this machine."""
    programs = {package for name, package in PACKAGES.items() if _find(name) is None}
    return sorted(programs | {FILES[each] for each in FILES if not _matching(each)})


def root() -> None:
    """Skip the test, or fail with REQUIRE_ALL, unless this process may mount and switch users."""
    status = Path("/proc/self/status").read_text()
    (rights,) = re.findall(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    if os.geteuid() != 0 or not int(rights, 16) >> CAP_SYS_ADMIN & 1:
        pytest_of_this = Path(sys.prefix, "bin", "pytest")
        reason = f"needs root, also to mount: sudo {pytest_of_this} -m root -p no:cacheprovider"
        (pytest.fail if os.environ.get("REQUIRE_ALL") else pytest.skip)(reason)


def _find(name: str) -> str | None:
    # Debian keeps PostgreSQL's programs off the path: several versions may be installed.
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    folders = (os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", *map(str, versions))
    return shutil.which(name, path=os.pathsep.join(folders))


def _matching(pattern: str) -> list[Path]:
    return sorted(Path("/").glob(pattern.removeprefix("/")))


def _skip(reason: str) -> NoReturn:
    pytest.skip(reason)
