"""Fixtures for the tests of built packages, which take minutes and run only on demand.

INSTALL=1 runs those of wheel and sdist, PACKAGE=FILE those of that Debian package.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support import requires
from tests.support.programs import ROOT, run

PACKAGE: Final = Path(os.environ.get("PACKAGE", "")).absolute()

collect_ignore_glob = [] if os.environ.get("INSTALL") else ["test_install.py", "test_pythons.py"]
if not PACKAGE.is_file():
    collect_ignore_glob += ["test_package.py"]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout as in git, without build products."""
    folder = tmp_path_factory.mktemp("source")
    listing = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    listed = run(requires.program("git"), *listing, cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sdist, and of the wheel built from it."""
    folder = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "build", "--outdir", folder, source, cwd=folder)
    return folder
