"""What the tests of what is built share: left out unless INSTALL is set, as they take minutes."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.support import requires
from tests.support.programs import ROOT, run

collect_ignore_glob = [] if os.environ.get("INSTALL") else ["test_*.py"]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout as git has it, with nothing that was built in it."""
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
    """The folder of the sdist, and of the wheel that is built from that."""
    folder = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "build", "--outdir", folder, source, cwd=folder)
    return folder
