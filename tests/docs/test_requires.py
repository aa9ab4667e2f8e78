"""The programs that tests require are listed in one place, and .ci/run installs them."""

import re
import subprocess
from pathlib import Path

import pytest

from tests import conftest
from tests.support import requires

ROOT = Path(__file__).parents[2]
CI = ROOT / ".ci" / "run"
VM = ROOT / "tests" / "vm" / "run"


def installed_by_ci() -> set[str]:
    (listed,) = re.findall(r"apt-get install (.*?) >/dev/null", CI.read_text(), re.DOTALL)
    return {word for word in listed.replace("\\\n", " ").split() if not word.startswith("-")}


@pytest.mark.proves("suite", "`.ci/run` installs every package that a test requires")
def test_ci_installs_every_package_that_a_test_requires() -> None:
    named = {*requires.PACKAGES.values(), *requires.FILES.values()}
    assert named <= installed_by_ci()
    (of_the_vm,) = re.findall(r"packages=\((.*?)\)", VM.read_text(), re.DOTALL)
    assert set(of_the_vm.split()) <= installed_by_ci()


def test_every_test_finds_programs_through_requires() -> None:
    """A test that looked one up itself would have its own message and list, too."""
    own = "shutil.which" + "("
    looking = [
        path.name for path in ROOT.joinpath("tests").rglob("*.py") if own in path.read_text()
    ]
    assert looking == ["requires.py"]


@pytest.mark.processes
def test_no_optional_program_is_started_without_requires() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"requires\.program\('etcdctl'\)"):
        subprocess.run(["etcdctl"], check=False)


def test_with_require_all_a_missing_program_fails_the_run(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Before the first test; it continues if nothing is missing, or REQUIRE_ALL is not set."""
    monkeypatch.setattr(requires, "_find", lambda name: None if name == "etcdctl" else name)
    monkeypatch.setattr(requires, "_matching", lambda _: [Path("there")])
    monkeypatch.delattr(request.config, "workerinput", raising=False)
    monkeypatch.delenv("REQUIRE_ALL", raising=False)
    conftest.pytest_sessionstart(request.session)
    monkeypatch.setenv("REQUIRE_ALL", "1")
    with pytest.raises(pytest.exit.Exception) as ended:
        conftest.pytest_sessionstart(request.session)
    assert ended.value.msg == "REQUIRE_ALL is set: first, apt-get install etcd-client"
    assert ended.value.returncode == 1
    monkeypatch.setattr(requires, "_find", lambda name: name)
    conftest.pytest_sessionstart(request.session)
