"""The Makefile: a build is as new as its sources."""

import subprocess
from pathlib import Path

import pytest

from tests.support import requires
from tests.support.checkout import environment
from tests.support.supervised import ROOT
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.processes

EDITED_WHILE_BUILDING = """#!/bin/sh -e
# It takes until the source is newer than what the build began with.
until [ fibcore.conf -nt "$1.began" ]; do touch fibcore.conf; done
touch "$1"
"""


@pytest.mark.parametrize("stamped", [True, False], ids=["stamped", "control"])
def test_the_package_is_built_again_after_an_edit_made_while_it_was_built(
    tmp_path: Path, stamped: bool
) -> None:
    """The control: without the stamp, the package is newer than the edit."""
    makefile = (ROOT / "Makefile").read_text()
    assert "touch -r $@.began $@" in makefile
    tmp_path.joinpath("Makefile").write_text(
        makefile if stamped else makefile.replace("touch -r $@.began $@", "true")
    )
    for name in ("pyproject.toml", "fibcore.conf"):
        tmp_path.joinpath(name).write_bytes((ROOT / name).read_bytes())
    build = tmp_path / "deploy" / "debian" / "build"
    build.parent.mkdir(parents=True)
    build.write_text(EDITED_WHILE_BUILDING)
    build.chmod(0o755)

    def make(*options: str) -> int:
        command = [requires.program("make"), "deb", *options]
        return subprocess.run(
            command, cwd=tmp_path, env=environment({}), timeout=PATIENCE, check=False
        ).returncode

    assert make() == 0
    assert make("--question") == (1 if stamped else 0)
