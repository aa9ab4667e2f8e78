"""A new version is put in the place of the old one, under load, on the old database."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.conftest import Fault
from tests.faults.load import Load
from tests.support.supervised import ROOT, Supervised
from tests.support.waiting import until

pytestmark = [pytest.mark.long, pytest.mark.processes]


def replace(source: str, target: str) -> None:
    """Put a new file in the place of one that may be in use: what is mapped must not change."""
    Path(target).unlink(missing_ok=True)
    shutil.copy2(source, target)


def put_in_place(appliance: Supervised, version: int) -> None:
    """Install the project's code in the appliance's folder, as pip does, marked with a version."""
    for package in ("fibcore", "supervise", "web"):
        shutil.copytree(
            ROOT / package, appliance.folder / package, dirs_exist_ok=True, copy_function=replace
        )
    service = appliance.folder / "web" / "service.py"
    text = service.read_text()
    assert text.count('"serving from index') == 1
    service.write_text(
        text.replace('"serving from index', f'"version {version} serving from index')
    )


def restart(appliance: Supervised) -> None:
    """What ``make restart`` does."""
    command = [sys.executable, "-m", "supervise.restart"]
    done = subprocess.run(
        command, cwd=appliance.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" restarted") == 4


def check_load(fault: Fault, appliance: Supervised, load: Load) -> None:
    fault.check(load, last=appliance.index)
    assert load.errors.total() == 0


@pytest.mark.proves(
    "processes",
    "a new version is put in place",
    "one process is restarted after the other; nothing is lost, no connection is refused",
)
@pytest.mark.proves("load", "a restart of one process after the other")
def test_one_restart_after_the_other_loses_nothing(fault: Fault) -> None:
    """It refuses nobody."""
    with Supervised() as appliance:
        assert appliance.standby
        with Load(appliance.port) as load:
            for version in fault.tries(short=2, long=10, share=0.02):
                load.wait_for_steps(50)
                put_in_place(appliance, version)
                restart(appliance)
                load.wait_for_steps(50)
                served = f"version {version} serving from index"
                assert any(served in appliance.log(name).text for name in ("web_0", "web_1"))
        check_load(fault, appliance, load)
        assert load.refused == 0


@pytest.mark.proves(
    "processes",
    "a new version is put in place",
    control="both restarted at once: connections are refused until one has started",
)
def test_two_restarts_at_once_would_refuse_connections(fault: Fault) -> None:
    with Supervised() as appliance:
        assert appliance.standby
        with Load(appliance.port) as load:
            for _ in fault.tries(short=1, long=1, share=0):
                load.wait_for_steps(50)
                # What restart does, with the time between shown to be one without a socket.
                appliance.supervisorctl("stop", "web:*")
                until(lambda: load.refused > 0, "a connection is refused")
                appliance.supervisorctl("start", "web:*")
                load.wait_for_steps(50)
        check_load(fault, appliance, load)
    assert load.refused > 0
