"""Programs that some tests need beside Python: where one is missing it is said; in CI it fails."""

import os
import shutil

import pytest

__all__ = ["needs"]


def needs(program: str, package: str | None = None) -> str:
    """Where ``program`` is, which Debian's ``package`` brings; without it the test is skipped."""
    found = shutil.which(program)
    if found is None:
        why = f"{program} is missing: apt-get install {package or program}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    return found
