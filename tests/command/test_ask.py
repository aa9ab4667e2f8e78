"""``fibcore next``, ``current``, ``previous`` and ``number N``."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.command.conftest import Fibcore, Replies, command
from tests.support.ports import free_port
from tests.support.proxy import Proxy
from tests.support.servers import ServerProcess
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.processes


@pytest.fixture
def proxy(server: ServerProcess) -> Iterator[Proxy]:
    """A way to the server on which replies can be lost."""
    with Proxy(server.client.port) as proxy:
        yield proxy


def lose_all_steps(proxy: Proxy) -> None:
    for _ in range(100):
        proxy.lose_a_reply(b"/next")


def test_numbers_are_printed_and_only_next_steps(server: ServerProcess, fibcore: Fibcore) -> None:
    assert [fibcore("next") for _ in range(4)] == [(0, f"{each}\n", "") for each in (1, 1, 2, 3)]
    assert fibcore("current") == fibcore("number", 4) == (0, "3\n", "")
    assert fibcore("previous") == (0, "2\n", "")
    assert fibcore("number", 90)[1] == "2880067194370816120\n"
    assert server.client.index == 4
    status, output, problem = fibcore("number", 10**18)
    assert (status, output) == (1, "")
    assert "FIB_MAX_INDEX" in problem


def test_numbers_and_indexes_are_strings_in_json(server: ServerProcess, fibcore: Fibcore) -> None:
    """Many programs are exact only to 2^53."""
    facts = {"index": "1", "number": "1", "exact": True}
    assert json.loads(fibcore("next", "--json")[1]) == facts
    assert json.loads(fibcore("current", "--json")[1]) == facts
    assert json.loads(fibcore("previous", "--json")[1]) == {**facts, "index": "0", "number": "0"}
    assert server.client.index == 1


def test_a_lost_answer_is_requested_again_without_a_second_step(
    server: ServerProcess, proxy: Proxy, fibcore: Fibcore
) -> None:
    proxy.lose_a_reply(b"/next")
    urls = (f"http://127.0.0.1:{port}" for port in (free_port(), proxy.port))
    assert fibcore("next", *(f"--url={each}" for each in urls)) == (0, "1\n", "")
    assert proxy.lost.acquire(blocking=False)
    assert server.client.index == 1


def test_a_step_in_doubt_is_reported_with_the_command_that_settles_it(
    server: ServerProcess, proxy: Proxy, fibcore: Fibcore
) -> None:
    lose_all_steps(proxy)
    url = f"http://127.0.0.1:{proxy.port}"
    key = "0:aaaaaaaaaaaaaaaaaaaaaa"
    status, output, problem = fibcore("next", "--url", url, "--key", key, "--timeout", 1)
    assert (status, output) == (os.EX_TEMPFAIL, "")
    assert "may or may not have been made" in problem
    assert problem.endswith(f"fibcore next --key {key} --url {url}.\n")
    secret = url.replace("//", "//ann:s%2fcret@")
    _, _, problem = fibcore("next", "--url", secret, "--key", key, "--timeout", 1)
    assert problem.endswith(f"--url {url.replace('//', '//USER:PASSWORD@')}.\n")
    assert "cret" not in problem
    proxy.heal()
    assert fibcore("next", "--url", url, "--key", key) == (0, "1\n", "")
    assert server.client.index == 1


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_step_can_be_requested_again(
    server: ServerProcess, proxy: Proxy, fibcore: Fibcore, sent: signal.Signals
) -> None:
    lose_all_steps(proxy)
    asks = command("next", "--url", f"http://127.0.0.1:{proxy.port}")
    with subprocess.Popen(asks, stderr=subprocess.PIPE, text=True) as process:
        assert proxy.lost.acquire(timeout=PATIENCE)
        process.send_signal(sent)
        _, problem = process.communicate(timeout=PATIENCE)
    assert process.returncode == os.EX_TEMPFAIL
    key = re.search(r"next --key (\S+) ", problem)
    assert key is not None
    assert fibcore("next", "--key", key[1]) == (0, "1\n", "")
    assert server.client.index == 1


@pytest.mark.parametrize(
    ("code", "body", "status", "words"),
    [
        (503, b"", os.EX_TEMPFAIL, "503 Service Unavailable"),
        (404, b"", 1, "rejected the request (404)"),
        (200, b"<p>", os.EX_UNAVAILABLE, "is not that of a fibcore server"),
    ],
)
def test_an_answer_that_is_no_number_is_reported(
    fibcore: Fibcore, code: int, body: bytes, status: int, words: str
) -> None:
    with Replies(body, code) as other:
        found, output, problem = fibcore("current", "--url", other.url, "--timeout", 1)
    assert (found, output) == (status, "")
    assert words in problem
