"""The command with shared stores, and between them and files."""

import json
import os
import re
import uuid
from pathlib import Path

import pytest

from tests.command.conftest import Fibcore, rows
from tests.support.engines import Engine, Etcd, Postgresql, Redis
from tests.support.servers import ServerProcess, listening_socket

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("sequence")]


@pytest.fixture
def sequence(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> str:
    """The configured sequence, which does not exist."""
    name = f"test-{uuid.uuid4()}"
    monkeypatch.setenv("FIB_STORE", engine.url)
    monkeypatch.setenv("FIB_SEQUENCE", name)
    return name


def index_of(fibcore: Fibcore, *arguments: object) -> int:
    """The index that the command shows."""
    return int(json.loads(fibcore("show", "--json", *arguments)[1])["index"])


def test_init_creates_a_sequence_once(fibcore: Fibcore, sequence: str) -> None:
    status, _, problem = fibcore("show")
    assert status == os.EX_NOINPUT
    assert f"There is no sequence {sequence} in " in problem
    assert problem.endswith("fibcore init.\n")
    status, output, _ = fibcore("init")
    assert (status, "has been created, at index 0" in output) == (0, True)
    assert fibcore("set-index", 3)[0] == 0
    status, output, _ = fibcore("init")
    assert (status, "is at index 3 already" in output) == (0, True)


def test_show_and_verify_print_the_index_and_the_durability(fibcore: Fibcore) -> None:
    fibcore("set-index", 120)
    status, output, problem = fibcore("show")
    assert (status, problem) == (0, "")
    shown = rows(output)
    assert shown["index"] == "120"
    assert shown["number"].startswith("5358359254990966640871840 (25 digits)"[:20])
    assert "durability" in shown
    assert fibcore("show", "--digits")[1] == "5358359254990966640871840\n"
    assert rows(fibcore("verify")[1])["sequence"] == "good, at index 120"
    for command in ("show", "verify"):
        facts = json.loads(fibcore(command, "--json")[1])
        assert (facts["store"], facts["index"]) == (shown["store"], "120")


def test_a_node_continues_from_an_index_set_beside_it(
    fibcore: Fibcore, sequence: str, engine: Engine, tmp_path: Path
) -> None:
    """It exits when a person has lowered the index, for which the name is asked."""
    fibcore("set-index", 100)
    settings = {"FIB_SEQUENCE": sequence}
    with (
        listening_socket() as listener,
        ServerProcess(engine.url, listener, settings, logs=tmp_path) as node,
    ):
        assert node.wait_until_it_serves().client.get("/next").index == 101
        status, output, _ = fibcore("set-index", 5_000)
        assert (status, "is at index 5000; previously at 101" in output) == (0, True)
        assert node.client.get("/next").index == 5_001
        status, _, problem = fibcore("set-index", 10)
        assert (status, "add --lower" in problem) == (1, True)
        status, _, problem = fibcore("set-index", "--lower", 10)
        assert status == 1
        assert "Each running node exits with status 65" in problem
        assert f"If this is intended, add --name {sequence}." in problem
        assert fibcore("set-index", "--lower", "--name", "other", 10)[0] == 1
        assert node.client.get("/next").index == 5_002
        assert fibcore("set-index", "--lower", "--name", sequence, 10)[0] == 0
        assert node.wait() == os.EX_DATAERR
    assert index_of(fibcore) == 10


def test_a_copy_is_a_file_that_restores_a_lost_sequence(
    fibcore: Fibcore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy.db"
    fibcore("set-index", 100)
    assert fibcore("backup", copy) == (0, f"{copy}: a verified copy at index 100\n", "")
    fibcore("set-index", 105)
    assert fibcore("backup", copy)[0] == 0
    assert index_of(fibcore, "--database", copy) == 105
    fibcore("set-index", 106)
    assert fibcore("restore", copy)[0] == 1
    monkeypatch.setenv("FIB_SEQUENCE", f"test-{uuid.uuid4()}")
    assert fibcore("restore", copy)[0] == 0
    assert index_of(fibcore) == 105


def test_a_sequence_moves_from_a_file_into_an_engine_and_back(
    fibcore: Fibcore, engine: Engine, tmp_path: Path
) -> None:
    there, back = tmp_path / "there.db", tmp_path / "back.db"
    fibcore("set-index", 77, "--database", there)
    status, output, problem = fibcore("copy", f"sqlite:{there}", engine.url)
    assert (status, problem) == (0, "")
    assert "is at index 77" in output
    assert fibcore("set-index", 78)[0] == 0
    assert fibcore("copy", engine.url, f"sqlite:{back}")[0] == 0
    assert index_of(fibcore, "--database", back) == 78
    status, _, problem = fibcore("copy", f"sqlite:{there}", engine.url)
    assert (status, "has reached index 78" in problem) == (1, True)


def writes(engine: Engine) -> str:
    """A counter of the engine that grows with each write."""
    if isinstance(engine, Postgresql):
        return engine.sql("SELECT pg_snapshot_xmax(pg_current_snapshot())")
    if isinstance(engine, Redis):
        (changes,) = re.findall(r"changes_since_last_save:(\d+)", engine.cli("info", "persistence"))
        return str(changes)
    assert isinstance(engine, Etcd)
    status = json.loads(engine.ctl("endpoint", "status", "-w", "json").stdout)
    return str(status[0]["Status"]["header"]["revision"])


def test_commands_that_read_do_not_write(fibcore: Fibcore, engine: Engine, tmp_path: Path) -> None:
    fibcore("set-index", 5)
    before = writes(engine)
    for command in (("show",), ("verify",), ("check",), ("backup", tmp_path / "copy.db")):
        assert fibcore(*command)[0] == 0
    assert writes(engine) == before
    fibcore("set-index", 6)
    assert writes(engine) != before
