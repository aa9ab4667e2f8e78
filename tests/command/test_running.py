"""``fibcore serve`` and ``fibcore status``: a server of one process, and the state of servers."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.command.conftest import Fibcore, Replies, command, edit, rows
from tests.support.ports import free_port
from tests.support.servers import Client, ServerProcess
from tests.support.waiting import PATIENCE, Log


@pytest.mark.processes
def test_the_other_commands_find_the_server_of_their_folder(
    tmp_path: Path, fibcore: Fibcore
) -> None:
    """Even at a port that only its command line named."""
    port = free_port()
    log = tmp_path / "serve.log"
    with log.open("wb") as output:
        server = subprocess.Popen(command("serve", "--port", port), stderr=output)
    try:
        Log(log).expect("listening at")
        assert Client(f"http://127.0.0.1:{port}").get("/next").body == b'{"next": 1}'
        status, said, problem = fibcore("status")
        assert (status, problem) == (0, "")
        found = rows(said)
        where = f"http://127.0.0.1:{port}, process {server.pid}, serving for "
        assert found["server"].startswith(where)
        assert (found["health"], found["index"], found["number"]) == ("healthy", "1", "1 (1 digit)")
        assert found["steps"].startswith("1 by this process, 1 per commit, each ")
        assert found["store"] == "sqlite, integers=exact, synchronous=full"
        assert (found["standby"], found["takeovers"], found["backup copy"]) == ("none", "0", "none")
        assert rows(fibcore("show")[1])["served by"] == f"process {server.pid}"
        status, said, problem = fibcore("show", "--database", "other.db")
        assert (status, "There is no database" in problem) == (os.EX_NOINPUT, True)
        edit(tmp_path, "FIB_STATE=other.db")
        status, _, problem = fibcore("set-index", 5)
        assert (status, "but this command would use" in problem) == (os.EX_CONFIG, True)
        assert not (tmp_path / "other.db").exists()
        server.send_signal(signal.SIGINT)
        assert server.wait(PATIENCE) == 0
    finally:
        server.kill()
        server.wait()
    edit(tmp_path, "FIB_STATE=var/fibcore.db")
    assert rows(fibcore("show")[1])["index"] == "1"


def test_invalid_options_of_serve_are_reported_before_it_starts(
    fibcore: Fibcore, tmp_path: Path
) -> None:
    for option, value, words in (
        ("--port", "x", "--port: FIB_PORT is 'x'; it must be a whole number from 1 to 65535."),
        ("--store", "sqlite:", "--store: FIB_STORE is 'sqlite:'; it must be "),
    ):
        status, output, problem = fibcore("serve", option, value)
        assert (status, output) == (os.EX_CONFIG, "")
        assert words in problem
        assert "Nothing has been started or changed." in problem
    assert not (tmp_path / "var").exists()


def test_a_server_that_does_not_answer_is_named(fibcore: Fibcore, tmp_path: Path) -> None:
    edit(tmp_path, f"FIB_PORT={free_port()}\nFIB_HOST=0.0.0.0")
    status, output, problem = fibcore("status")
    assert (status, output) == (os.EX_UNAVAILABLE, "")
    assert "No server answers at http://127.0.0.1:" in problem
    assert "(connection refused). " in problem
    assert "fibcore serve starts one; --url selects a server elsewhere." in problem


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>", b"[]", b"{}", b"\xff", b"[" * 100_000),
        *(b'{"healthy": true}', b'{"healthy": false}', b'{"healthy": true, "process": 1}'),
    ],
    ids=lambda body: repr(body[:20]),
)
def test_an_answer_of_another_program_is_not_taken_for_a_status(
    fibcore: Fibcore, body: bytes
) -> None:
    with Replies(body) as other:
        status, output, _ = fibcore("status", "--url", other.url)
        each, line, _ = fibcore("status", "--all", other.url)
    assert (status, output) == (os.EX_UNAVAILABLE, "")
    assert (each, line) == (os.EX_UNAVAILABLE, f"{other.url:<31} does not answer\n")


def shared(server: ServerProcess) -> dict[str, Any]:
    """The status of a node on a shared store, made from that of ``server``."""
    found: dict[str, Any] = json.loads(server.client.get("/status").body)
    found["process"]["uptime"] = 90_061.0
    found |= {"index": "9007199254740993", "digits": 20, "first": "1" * 20, "last": ""}
    found["store"] |= {"kind": "postgresql", "sequence": "fibonacci", "integers": "uint64"}
    found["store"]["warnings"] = ["It may lose steps."]
    return found


@pytest.mark.processes
def test_status_of_a_shared_store_omits_the_details_of_files(
    server: ServerProcess, fibcore: Fibcore
) -> None:
    node = shared(server)
    with Replies(json.dumps(node).encode()) as other:
        found = rows(fibcore("status", "--url", other.url)[1])
        assert json.loads(fibcore("status", "--json", "--url", other.url)[1]) == node
    assert found["server"].endswith("serving for 1 d 1 h")
    assert found["number"] == f"{'1' * 20} (20 digits)"
    assert found["store"] == "postgresql, integers=uint64, sequence fibonacci"
    assert found["durability"] == "It may lose steps."
    assert not {"standby", "takeovers", "backup copy"} & set(found)


@pytest.mark.processes
def test_an_unhealthy_node_is_a_problem_and_all_nodes_have_a_line_each(
    server: ServerProcess, fibcore: Fibcore
) -> None:
    node = shared(server)
    ill = node | {"healthy": False, "reason": "It is broken.", "index": None}
    missing = f"http://127.0.0.1:{free_port()}"
    with Replies(json.dumps(node).encode()) as one, Replies(json.dumps(ill).encode()) as two:
        status, output, problem = fibcore("status", "--url", two.url)
        assert status == os.EX_UNAVAILABLE
        assert (rows(output)["health"], rows(output)["index"]) == ("unavailable", "unknown")
        assert problem == "fibcore: It is broken.\n"
        status, output, problem = fibcore("status", "--all", one.url, two.url, missing)
        assert status == os.EX_UNAVAILABLE
        first, second, third = output.splitlines()
        assert first.split()[:4] == [one.url, "healthy", "index", "9007199254740993"]
        assert second.split()[:4] == [two.url, "unavailable", "index", "unknown"]
        assert third == f"{missing:<31} does not answer"
        assert f"{two.url}: It is broken." in problem
        found = json.loads(fibcore("status", "--json", "--all", one.url, missing)[1])["nodes"]
        assert [each["healthy"] for each in found] == [True, False]
        assert fibcore("status", "--all", one.url)[0] == 0


@pytest.mark.processes
def test_credentials_in_a_url_are_sent_and_never_shown(
    server: ServerProcess, fibcore: Fibcore
) -> None:
    with Replies(server.client.get("/status").body) as there:
        url = there.url.replace("//", "//ann:s%2fcret@")
        answered = [fibcore("status", each, url) for each in ("--url", "--all")]
    unanswered = [fibcore("status", each, url) for each in ("--url", "--all")]
    assert {each[0] for each in answered} == {0}
    assert {each[0] for each in unanswered} == {os.EX_UNAVAILABLE}
    assert there.credentials == {"Basic YW5uOnMvY3JldA=="}
    assert "cret" not in repr([answered, unanswered])


@pytest.mark.processes
def test_status_shows_a_takeover_and_a_standby(
    server: ServerProcess, database: Path, fibcore: Fibcore
) -> None:
    settings = {"FIB_PORT": str(server.client.port)}
    with ServerProcess(database, server.listener, settings, name="second") as second:
        second.wait_until_it_stands_by()
        server.log.skip()
        assert rows(fibcore("status")[1])["standby"] == "ready"
        server.signal(signal.SIGKILL)
        server.wait()
        second.wait_until_it_serves()
        second.log.expect("nothing was served for")
        found = rows(fibcore("status")[1])
    assert found["takeovers"].startswith("1, the last ")
    assert found["takeovers"].endswith(" ago: the previous server was killed or crashed")
    assert found["standby"] == "none"
