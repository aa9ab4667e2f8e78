"""``make run-shared``: nginx before two nodes on one store, as the README has it."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import requires
from tests.support.checkout import checkout, environment
from tests.support.ports import free_ports
from tests.support.reference import digits_of
from tests.support.supervised import ROOT
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.processes

SCRIPT = "deploy/shared-store/nodes.sh"
PROGRAMS = {"postgresql": ["postgres"], "redis": ["redis-server"], "etcd": ["etcd"]}
STORES = list(PROGRAMS)


@pytest.fixture
def home() -> Iterator[Path]:
    # As root, the store runs as another user, who must get there; not so in pytest's folders.
    folder = Path(tempfile.mkdtemp(prefix="fib-"))
    folder.chmod(0o711)
    home = checkout(folder)
    (home / SCRIPT).parent.mkdir(parents=True)
    for name in (SCRIPT, "deploy/shared-store/nodes.conf"):
        shutil.copy(ROOT / name, home / name)
    yield home
    shutil.rmtree(folder)


@contextmanager
def running(home: Path, store: str) -> Iterator[str]:
    """On a port, which is given in a URL; the four ports after it are taken, too."""
    for program in ("nginx", *PROGRAMS[store]):
        requires.program(program)
    port = free_ports(5)
    with home.joinpath("terminal").open("ab") as terminal:
        process = subprocess.Popen(
            [home / SCRIPT, "run", store],
            cwd=home,
            env=environment({"FIB_PORT": str(port)}),
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=terminal,
        )
    url = f"http://127.0.0.1:{port}"

    def is_healthy() -> bool:
        assert process.poll() is None, home.joinpath("terminal").read_text()
        try:
            return bool(ask(f"{url}/health") == b'{"status": "healthy"}')
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass
        return False

    try:
        until(is_healthy, "it is healthy")
        yield url
    except BaseException:
        for log in sorted(home.glob("var/shared-store/*/log/*")):
            print(f"---- {log}\n{log.read_text()}")
        raise
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0


def ask(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        body = answer.read()
        assert isinstance(body, bytes)
        return body


@pytest.mark.parametrize(
    "store",
    [
        "redis",
        pytest.param("postgresql", marks=pytest.mark.long),
        pytest.param("etcd", marks=pytest.mark.long),
    ],
)
def test_two_nodes_step_one_sequence_that_stays(home: Path, store: str) -> None:
    with running(home, store) as url:
        seen: set[int] = set()

        def both_have_answered() -> bool:
            try:
                seen.add(json.loads(ask(f"{url}/status"))["process"]["pid"])
            except urllib.error.HTTPError as error:
                # To nginx a node that was not there a moment ago is not for seconds.
                error.close()
            return len(seen) == 2

        until(both_have_answered, "both nodes answer")
        for index in range(1, 9):
            assert ask(f"{url}/next") == b'{"next": %b}' % digits_of(index)
            assert ask(f"{url}/current") == b'{"current": %b}' % digits_of(index)
    with running(home, store) as url:
        assert ask(f"{url}/next") == b'{"next": %b}' % digits_of(9)


def test_the_readme_has_what_is_tried_here() -> None:
    """The packages are those that the script asks for."""
    typed = re.findall(
        r"(?m)^ {4}sudo apt-get install nginx-light (\S+)\n {4}make run-shared STORE=(\S+)$",
        ROOT.joinpath("README.md").read_text(),
    )
    assert [store for _, store in typed] == STORES
    asked = re.findall(r"(?m)^ +(\w+)\) package=(\S+)", ROOT.joinpath(SCRIPT).read_text())
    assert [(package, store) for store, package in asked] == typed


def test_an_unknown_store_is_said_before_anything_starts(home: Path) -> None:
    done = subprocess.run(
        [home / SCRIPT, "run", "mysql"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == os.EX_UNAVAILABLE
    assert "STORE=postgresql, STORE=redis or STORE=etcd" in done.stderr
    assert not (home / "var").exists()
