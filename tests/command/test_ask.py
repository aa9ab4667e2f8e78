"""``fibcore next``, ``current``, ``previous`` and ``number N``."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator

import pytest

from fibcore.command import cli
from tests.command.conftest import Fibcore, command
from tests.support.fake_server import FakeServer, hang, lose, raw
from tests.support.ports import free_port
from tests.support.reference import fibonacci
from tests.support.servers import ServerProcess
from tests.support.waiting import PATIENCE, until


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """The server of the settings."""
    with FakeServer(7) as asked:
        monkeypatch.setenv("FIB_PORT", str(asked.server_port))
        yield asked


def test_numbers_are_printed(fibcore: Fibcore, asked: FakeServer) -> None:
    said = [fibcore(*each.split()) for each in ("current", "next", "previous", "number 90")]
    numbers = [fibonacci(index) for index in (7, 8, 7, 90)]
    assert said == [(0, f"{number}\n", "") for number in numbers]
    assert asked.index == 8


def test_numbers_are_printed_with_their_indexes_as_json(
    fibcore: Fibcore, asked: FakeServer
) -> None:
    """Both are strings: many programs are exact only to 2^53."""
    assert json.loads(fibcore("next", "--json")[1]) == {"index": "8", "number": "21", "exact": True}
    assert json.loads(fibcore("previous", "--json")[1])["index"] == "7"
    assert asked.index == 8


def test_a_lost_answer_is_requested_again(fibcore: Fibcore, asked: FakeServer) -> None:
    with FakeServer(7) as other:
        other.will(lose, lose)
        urls = ("--url", f"http://127.0.0.1:{free_port()}", "--url", other.url)
        assert fibcore("next", *urls) == (0, "21\n", "")
        assert other.index == 8
    assert asked.index == 7


def test_a_step_in_doubt_is_reported_with_the_command_that_settles_it(
    fibcore: Fibcore, asked: FakeServer
) -> None:
    with FakeServer(7) as other:
        other.will(*[lose] * 100)
        key = "7:aaaaaaaaaaaaaaaaaaaaaa"
        arguments = ("next", "--url", other.url)
        status, output, problem = fibcore(*arguments, "--key", key, "--timeout", "1")
        assert (status, output) == (os.EX_TEMPFAIL, "")
        assert "may or may not have been made" in problem
        assert problem.endswith(f"fibcore next --key {key} --url {other.url}.\n")
        secret = other.url.replace("//", "//ann:s%2fcret@")
        _, _, problem = fibcore("next", "--url", secret, "--key", key, "--timeout", "1")
        shown = other.url.replace("//", "//USER:PASSWORD@")
        assert problem.endswith(f"fibcore next --key {key} --url {shown}.\n")
        assert "cret" not in problem
        other.heal()
        assert fibcore(*arguments, "--key", key) == (0, "21\n", "")
        assert other.index == 8
    assert asked.index == 7


@pytest.mark.parametrize(
    ("reply", "status", "says"),
    [
        ("HTTP/1.1 503 Service Unavailable\n\n", os.EX_TEMPFAIL, "503 Service Unavailable"),
        ("HTTP/1.1 404 Not Found\n\n", 1, "rejected the request (404): 404 Not Found"),
        ("HTTP/1.1 200 OK\n\n<p>", os.EX_UNAVAILABLE, "is not that of a fibcore server"),
    ],
)
def test_an_error_that_retrying_cannot_change_is_reported(
    fibcore: Fibcore, asked: FakeServer, reply: str, status: int, says: str
) -> None:
    asked.will(*[raw(reply)] * 100)
    found, output, problem = fibcore("current", "--timeout", "1")
    assert (found, output) == (status, "")
    assert says in problem


@pytest.mark.parametrize(
    "arguments",
    [
        "next --url 8080",
        "next --key 7",
        "next --timeout 0",
        "next --timeout x",
        "number x",
        f"number {2**63}",
    ],
)
def test_an_invalid_argument_is_a_usage_error(fibcore: Fibcore, arguments: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        fibcore(*arguments.split())


@pytest.mark.processes
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_step_can_be_requested_again(
    asked: FakeServer, sent: signal.Signals
) -> None:
    asked.will(raw('HTTP/1.1 200 OK\nETag: "7-text"\nContent-Type: text/plain\n\n13'), hang)
    with subprocess.Popen(command("next"), stderr=subprocess.PIPE, text=True) as process:
        until(lambda: bool(asked.keys), "it has asked for a step")
        process.send_signal(sent)
        _, problem = process.communicate(timeout=PATIENCE)
    assert process.returncode == os.EX_TEMPFAIL
    key = re.search(r"next --key (\S+)\.$", problem)
    assert key is not None
    assert cli.main(["next", "--key", key[1]]) == 0
    assert asked.index == 8


@pytest.mark.processes
def test_the_command_steps_a_real_server(
    server: ServerProcess, fibcore: Fibcore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIB_PORT", str(server.client.port))
    numbers = [fibcore("next")[1] for _ in range(4)]
    assert numbers == ["1\n", "1\n", "2\n", "3\n"]
    assert fibcore("current") == fibcore("number", 4) == (0, "3\n", "")
    assert fibcore("previous") == (0, "2\n", "")
    status, _, problem = fibcore("number", 10**18)
    assert status == 1
    assert "FIB_MAX_INDEX" in problem
