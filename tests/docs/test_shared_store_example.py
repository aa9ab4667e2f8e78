"""``make run-shared``: nginx before two nodes on one store, as the README has it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
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

FOLDER = "deploy/shared-store"
SCRIPT = f"{FOLDER}/nodes.sh"
PROGRAMS = {"postgresql": ["postgres"], "redis": ["redis-server"], "etcd": ["etcd"]}
STORES = list(PROGRAMS)


@pytest.fixture
def home() -> Iterator[Path]:
    with a_home() as home:
        yield home


@pytest.fixture(scope="module")
def example(processes: None) -> Iterator[tuple[Path, str]]:  # noqa: ARG001
    """An example over Redis, shared by several tests: its folder and URL."""
    with a_home() as home, running(home, "redis") as url:
        yield home, url


@contextmanager
def a_home() -> Iterator[Path]:
    # Under root, the store runs as another user, who can't enter pytest's folders.
    folder = Path(tempfile.mkdtemp(prefix="fib-"))
    folder.chmod(0o711)
    home = checkout(folder)
    (home / FOLDER).mkdir(parents=True)
    for name in ("nodes.sh", "nodes.conf", "nginx.conf"):
        shutil.copy(ROOT / FOLDER / name, home / FOLDER / name)
    yield home
    shutil.rmtree(folder)


@contextmanager
def running(home: Path, store: str) -> Iterator[str]:
    """On a port, which is part of its URL; the four ports after it are used, too."""
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


def until_both_answer(url: str) -> None:
    seen: set[int] = set()

    def both_have_answered() -> bool:
        try:
            seen.add(json.loads(ask(f"{url}/status"))["process"]["pid"])
        except urllib.error.HTTPError as error:
            # For some seconds nginx does not try a node that just failed.
            error.close()
        return len(seen) == 2

    until(both_have_answered, "both nodes answer")


def ask(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        body = answer.read()
        assert isinstance(body, bytes)
        return body


@pytest.mark.long
@pytest.mark.parametrize("store", STORES)
def test_two_nodes_step_one_persistent_sequence(home: Path, store: str) -> None:
    with running(home, store) as url:
        until_both_answer(url)
        for index in range(1, 9):
            assert ask(f"{url}/next") == b'{"next": %b}' % digits_of(index)
            assert ask(f"{url}/current") == b'{"current": %b}' % digits_of(index)
    with running(home, store) as url:
        until_both_answer(url)
        assert ask(f"{url}/next") == b'{"next": %b}' % digits_of(9)


def supervisorctl(home: Path, *words: str) -> str:
    """The output of supervisorctl for the example over Redis."""
    name = str(Path(sys.prefix, "bin", "supervisorctl"))
    return subprocess.run(
        [name, "-c", f"{FOLDER}/nodes.conf", *words],
        cwd=home,
        env=environment({"FOLDER": str(home / "var/shared-store/redis")}),
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
    ).stdout


def outcome(url: str) -> tuple[int, str, bytes]:
    """The status, media type and body of an answer."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return answer.status, answer.headers.get_content_type(), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers.get_content_type(), error.read()


def test_without_the_engine_nodes_answer_503_with_the_reason(
    example: tuple[Path, str],
) -> None:
    home, url = example
    until_both_answer(url)
    supervisorctl(home, "stop", "store")

    def is_dead() -> bool:
        return outcome(f"{url}/next")[0] != 200

    until(is_dead, "nobody steps")
    paths = ("health", "current", "next", "", "numbers/5") * 8
    found = {(path, *outcome(f"{url}/{path}")) for path in paths}
    supervisorctl(home, "start", "store")
    until(lambda: outcome(f"{url}/next")[0] == 200, "it steps again")
    assert {status for _, status, _, _ in found} == {200, 503}
    assert {path for path, status, _, _ in found if status == 200} >= {"", "numbers/5"}
    for path, status, kind, body in found:
        if status == 503:
            assert kind == "application/problem+json", path
            assert "the server's log has the reason" in json.loads(body)["detail"], path


def test_nodes_step_one_sequence_and_a_killed_node_is_shown(
    example: tuple[Path, str],
) -> None:
    home, url = example
    until_both_answer(url)
    for _ in range(4):
        with urllib.request.urlopen(f"{url}/next", timeout=PATIENCE) as answer:
            index = int(answer.headers["ETag"].strip('"'))
            assert answer.read() == b'{"next": %b}' % digits_of(index)
    os.kill(int(supervisorctl(home, "pid", "node:node_1")), signal.SIGKILL)
    terminal = home / "terminal"
    until(lambda: "exited: node_1 (terminated by SIGKILL" in terminal.read_text(), "it is shown")
    fibcore = [str(Path(sys.prefix, "bin", "fibcore")), "show"]
    folder = home / "var/shared-store/redis"
    shown = subprocess.check_output(fibcore, cwd=folder, env=environment({}), text=True)
    assert "redis://127.0.0.1:" in shown
    assert re.search(rf"(?m)^index +{index}$", shown)
