"""The wheel on every supported Python of this machine, in an empty environment."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.ports import free_port
from tests.support.programs import OTHERS, run
from tests.support.servers import Client
from tests.support.waiting import Log, until

pytestmark = pytest.mark.processes

OLDEST: Final = (3, 11)


def pythons() -> dict[str, Path]:
    """The supported versions, on the path or from pyenv, each with its program."""
    folders = [*map(Path, OTHERS["PATH"].split(":")), *Path.home().glob(".pyenv/versions/*/bin")]
    found: dict[str, Path] = {}
    for folder in folders:
        for program in folder.glob("python3.*"):
            if (version := re.fullmatch(r"python3\.(\d+)", program.name)) is None:
                continue
            # A program of pyenv may have no version behind it.
            works = subprocess.run([program, "-c", "import ensurepip, venv"], capture_output=True)
            if (3, int(version[1])) >= OLDEST and works.returncode == 0:
                found.setdefault(program.name, program)
    return found


FOUND: Final = pythons()


def test_the_python_of_the_tests_is_among_them() -> None:
    assert f"python3.{sys.version_info.minor}" in FOUND


@pytest.fixture(params=FOUND)
def installed(request: pytest.FixtureRequest, built: Path, tmp_path: Path) -> Path:
    """``fibcore``, installed from the sdist into an empty environment of one of them."""
    folder = tmp_path / "empty"
    run(FOUND[request.param], "-m", "venv", folder, cwd=tmp_path)
    (sdist,) = built.glob("*.tar.gz")
    run(folder / "bin" / "pip", "install", "--quiet", sdist, cwd=folder)
    return folder / "bin" / "fibcore"


@contextmanager
def serving(
    fibcore: Path, folder: Path, name: str, port: int
) -> Iterator[tuple[subprocess.Popen[bytes], Log]]:
    path = folder / name
    with path.open("wb") as log:
        process = subprocess.Popen(
            [fibcore, "serve", "--port", str(port)], cwd=folder, env=OTHERS, stdout=log, stderr=log
        )
    try:
        yield process, Log(path)
    finally:
        process.kill()
        process.wait()


def test_a_server_steps_is_killed_is_taken_over_and_logs_it(
    installed: Path, tmp_path: Path
) -> None:
    port = free_port()
    client = Client(f"http://127.0.0.1:{port}")
    with ExitStack() as stack:
        server, log = stack.enter_context(serving(installed, tmp_path, "server.log", port))
        log.expect("listening at")
        assert client.get("/next").body == b'{"next": 1}'
        standby, log = stack.enter_context(serving(installed, tmp_path, "standby.log", port))
        log.expect(f"standing by: process {server.pid} serves")
        server.send_signal(signal.SIGKILL)
        log.expect("taking over")
        lines = ("serving from index 1", "listening at", "took over: ")  # in any order
        until(lambda: all(line in log.text for line in lines), lambda: log.text)
        assert client.get("/next").body == b'{"next": 1}'
        assert client.get("/numbers/100000").status == 200
        standby.send_signal(signal.SIGTERM)
        assert standby.wait(30) == 0
        log.expect("stopped at index 2")
        assert "Traceback" not in (tmp_path / "standby.log").read_text()
