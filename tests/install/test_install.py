"""The wheel is complete: installed into an empty virtual environment, it serves.

Its dependencies are installed as usual, from the index that pip is configured for.
"""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.ports import free_port
from tests.support.programs import OTHERS, ROOT, run
from tests.support.servers import Client
from tests.support.waiting import Log

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a virtual environment that contains only the wheel."""
    folder = tmp_path_factory.mktemp("empty")
    run(sys.executable, "-m", "venv", folder, cwd=folder)
    (wheel,) = built.glob("*.whl")
    run(folder / "bin" / "pip", "install", "--quiet", wheel, cwd=folder)
    return folder / "bin"


def test_wheel_and_sdist_have_the_files_they_need(built: Path) -> None:
    """The wheel has the page and the compiled modules, the sdist their sources."""
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    folder = Path("web", "endpoints", "page")
    page = {str(folder / each.name) for each in (ROOT / folder).iterdir()}
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    modules = [f"web/http/{each}" for each in ("answers", "heads", "parser")]
    modules += ["fibcore/_sequence", "fibcore/idempotency_key"]
    compiled = {f"{each}{suffix}" for each in modules}
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {*page, *compiled, "fibcore/py.typed", "fibcore/_sequence.pyi"} <= names
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    sources = {"fibcore/_sequence.pyx", "fibcore/_digits.h", "setup.py"}
    sources |= {"fibcore/idempotency_key.pxd", "web/http/answers.pxd", "web/http/parser.pxd"}
    assert {*page, *sources} <= held
    for each in names | held:
        assert not each.endswith(".c")
        assert each.split("/")[0] not in ("tests", "bench", "build")


@pytest.fixture
def server(installed: Path, tmp_path: Path) -> Iterator[Client]:
    """``fibcore serve`` in an empty folder; it is stopped at the end."""
    port = free_port()
    path = tmp_path / "log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            [installed / "fibcore", "serve", "--port", str(port)],
            cwd=tmp_path,
            env=OTHERS,
            stdout=log,
            stderr=log,
        )
    try:
        Log(path).expect("listening at")
        yield Client(f"http://127.0.0.1:{port}")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, path.read_text()
    finally:
        process.kill()
        process.wait()


def test_an_installed_wheel_serves_and_its_commands_work(
    server: Client, installed: Path, tmp_path: Path
) -> None:
    assert server.get("/next").body == b'{"next": 1}'
    assert b"<title>fibcore</title>" in server.get("/").body
    assert server.get("/page/page.js").status == 200

    def fibcore(*arguments: str) -> str:
        return run(installed / "fibcore", *arguments, cwd=tmp_path)

    assert json.loads(fibcore("status", "--json"))["index"] == "1"
    assert "healthy" in fibcore("status")
    assert f"{tmp_path}/var/fibcore.db" in fibcore("show")
    assert "good, at index 1" in fibcore("verify")
    fibcore("backup", "copy.db")
    assert "serve" in fibcore("--help")
    assert "complete" in fibcore("--print-completion", "bash")


def without(name: str, folder: Path) -> dict[str, str]:
    """An environment whose path has all programs except the compilers."""
    folder.mkdir()
    for each in os.environ["PATH"].split(":"):
        for program in Path(each).iterdir() if Path(each).is_dir() else ():
            link = folder / program.name
            if name not in program.name and not link.exists():
                link.symlink_to(program)
    return {**OTHERS, "PATH": str(folder)}


def test_without_a_compiler_pip_names_the_missing_package(
    installed: Path, source: Path, tmp_path: Path
) -> None:
    environ = without("gcc", tmp_path / "programs")
    environ.pop("CC", None)
    said = run(
        installed / "pip", "install", "--no-deps", source, cwd=tmp_path, environ=environ, fails=True
    )
    assert "fibcore is not installed: a C compiler (" in said
    assert "is missing, and its core is C. On Debian: apt-get install gcc libc6-dev" in said


WITHOUT_HEADERS: Final = """
import runpy, sys, sysconfig

get_path = sysconfig.get_path
sysconfig.get_path = lambda name, *more: "/nowhere" if name == "include" else get_path(name, *more)
sys.argv[1:] = ["--quiet", "build_ext", "--build-lib", "built", "--build-temp", "built"]
runpy.run_path("setup.py", run_name="__main__")
"""


def test_without_headers_setup_names_the_missing_package(source: Path) -> None:
    said = run(sys.executable, "-c", WITHOUT_HEADERS, cwd=source, fails=True)
    assert "fibcore is not installed: Python's headers (/nowhere/Python.h) are missing" in said
    assert "On Debian: apt-get install python3-dev" in said
