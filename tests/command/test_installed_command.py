"""The command of the installed service: how it is typed reaches the program as it was typed."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.supervised import ROOT

pytestmark = pytest.mark.processes

SETTINGS = """\
# Edited by a person.
FIB_PORT=80
FIB_ALLOWED_HOSTS=a, b
FIB_ALLOWED_ORIGINS="https://a.example https://b.example"
#FIB_HOST=0.0.0.0
PATH=/nowhere
FIB_STORE='sqlite:/srv/my files/$HOME.db'
"""


@pytest.mark.parametrize(
    ("name", "inserted"), [("fibcore", []), ("supervisorctl", ["-c", "/srv/a b/supervisord.conf"])]
)
def test_each_setting_and_argument_reaches_the_command_as_one_word(
    tmp_path: Path, name: str, inserted: list[str]
) -> None:
    settings = tmp_path / "settings"
    settings.write_text(SETTINGS)
    sudo = tmp_path / "sudo"
    sudo.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    sudo.chmod(0o755)
    command = tmp_path / name
    command.symlink_to(ROOT / "deploy" / "systemd" / "command")
    typed = ["backup", "my file", "*", "$HOME", ""]
    printed = subprocess.run(
        ["/bin/sh", command, *typed],
        env={
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "FIBCORE_HOME": "/srv/a b",
            "FIBCORE_SETTINGS": str(settings),
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout
    assert printed.split("\n")[:-1] == [
        *("-n", "-u", "fibcore", "--", "env"),
        "FIB_STORE=sqlite:/var/lib/fibcore/fibcore.db",
        "FIB_PORT=80",
        "FIB_ALLOWED_HOSTS=a, b",
        "FIB_ALLOWED_ORIGINS=https://a.example https://b.example",
        "FIB_STORE=sqlite:/srv/my files/$HOME.db",
        f"/srv/a b/.venv/bin/{name}",
        *inserted,
        *typed,
    ]
