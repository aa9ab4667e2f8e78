"""Makes Debian packages of other releases from the built one."""

import re
import tempfile
from pathlib import Path

from tests.support.programs import run

__all__ = ["release"]


def release(package: Path, target: Path, version: str, changed: str) -> None:
    """Make ``target`` from ``package``, with another version and a changed module."""
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name, "tree")
        run("dpkg-deb", "--raw-extract", package, tree, cwd=tree.parent)
        (site,) = tree.glob("usr/lib/fibcore/.venv/lib/*/site-packages")
        (metadata,) = site.glob("fibcore-*.dist-info/METADATA")
        for each in (tree / "DEBIAN" / "control", metadata):
            each.write_text(re.sub("(?m)^Version: .*", f"Version: {version}", each.read_text()))
        with (site / changed).open("a") as module:
            module.write(f"\n# {version}\n")
        run("dpkg-deb", "-Zzstd", "-z1", "--build", tree, target, cwd=tree.parent)
