"""The ``fibcore`` command with shared stores, and between them and files."""

import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fibcore.appliance.settings import Settings, gather, home
from fibcore.stores import Description, sqlite_file
from fibcore.stores.engine import EngineOpener, EngineStore
from fibcore.stores.sqlite import SqliteStore
from tests.command.conftest import Fibcore, rows
from tests.support.engines import Engine, Etcd, Postgresql, Redis
from tests.support.ports import free_port

pytestmark = pytest.mark.usefixtures("patient", "opener")


@pytest.fixture
def opener(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> EngineOpener:
    """A configured sequence that does not exist."""
    monkeypatch.setenv("FIB_STORE", engine.url)
    monkeypatch.setenv("FIB_SEQUENCE", f"test-{uuid.uuid4()}")
    opener = Settings.of(gather(folder=home())).opener()
    assert isinstance(opener, EngineOpener)
    return opener


@pytest.fixture
def store(opener: EngineOpener) -> Iterator[EngineStore]:
    """The same, created, at index 100."""
    opener.create(100)
    with closing(opener.open()) as store:
        yield store


def test_init_creates_a_sequence_once(fibcore: Fibcore, opener: EngineOpener) -> None:
    status, _, complaint = fibcore("show")
    assert status == os.EX_NOINPUT
    assert complaint.endswith("fibcore init.\n")
    status, output, _ = fibcore("init")
    assert (status, "has been created, at index 0" in output) == (0, True)
    with closing(opener.open()) as store:
        assert store.advance(3) == 3
    status, output, _ = fibcore("init")
    assert (status, "is at index 3 already" in output) == (0, True)


def test_init_creates_a_file_too(
    fibcore: Fibcore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FIB_SEQUENCE")
    monkeypatch.setenv("FIB_STORE", f"sqlite:{tmp_path}/new/fibcore.db")
    assert fibcore("init")[0] == 0
    assert sqlite_file.verify_file(tmp_path / "new" / "fibcore.db") == 0
    assert "already" in fibcore("init")[1]


def test_show_and_verify_print_the_index_and_the_durability(
    fibcore: Fibcore, store: EngineStore
) -> None:
    store.advance(20)
    status, output, complaint = fibcore("show")
    assert (status, complaint) == (0, "")
    shown = rows(output)
    assert shown["store"] == store.where
    assert shown["index"] == "120"
    assert shown["number"].startswith("5358359254990966640871840 (25 digits)"[:20])
    assert "durability" in shown
    assert fibcore("show", "--digits")[1] == "5358359254990966640871840\n"
    assert rows(fibcore("verify")[1])["sequence"] == "good, at index 120"
    for command in ("show", "verify"):
        told = json.loads(fibcore(command, "--json")[1])
        assert (told["store"], told["index"]) == (store.where, "120")
        assert bool(told["warnings"]) == bool(store.warnings)


def test_nodes_continue_from_an_index_set_beside_them(fibcore: Fibcore, store: EngineStore) -> None:
    status, output, _ = fibcore("set-index", 5_000)
    assert (status, "is at index 5000; previously at 100" in output) == (0, True)
    assert store.advance(1) == 5_001
    status, _, complaint = fibcore("set-index", 10)
    assert (status, "add --lower" in complaint) == (1, True)
    assert store.read() == 5_001
    status, _, complaint = fibcore("set-index", "--lower", 10)
    assert status == 1
    assert "Each running node exits with status 65" in complaint
    name = os.environ["FIB_SEQUENCE"]
    assert f"If this is intended, add --name {name}." in complaint
    assert fibcore("set-index", "--lower", "--name", "other", 10)[0] == 1
    assert fibcore("set-index", "--lower", "--name", name, 10)[0] == 0
    assert store.read() == 10


def test_a_copy_is_a_file_that_restores_a_lost_sequence(
    fibcore: Fibcore, store: EngineStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy.db"
    status, output, _ = fibcore("backup", copy)
    assert (status, output) == (0, f"{copy}: a verified copy at index 100\n")
    store.advance(5)
    assert fibcore("backup", copy)[0] == 0
    assert sqlite_file.verify_file(copy) == 105
    status, _, complaint = fibcore("restore", copy)
    assert (status, complaint) == (0, "")
    store.advance(1)
    assert fibcore("restore", copy)[0] == 1
    monkeypatch.setenv("FIB_SEQUENCE", f"test-{uuid.uuid4()}")
    assert fibcore("restore", copy)[0] == 0
    assert rows(fibcore("show")[1])["index"] == "105"


def test_a_sequence_moves_from_a_file_into_an_engine_and_back(
    fibcore: Fibcore, opener: EngineOpener, engine: Engine, tmp_path: Path
) -> None:
    there, back = tmp_path / "there.db", tmp_path / "back.db"
    with closing(SqliteStore(there)) as file:
        file.commit(77)
    status, output, complaint = fibcore("copy", f"sqlite:{there}", engine.url)
    assert (status, complaint) == (0, "")
    assert "is at index 77" in output
    with closing(opener.open()) as store:
        assert store.advance(1) == 78
    assert fibcore("copy", engine.url, f"sqlite:{back}")[0] == 0
    assert sqlite_file.verify_file(back) == 78
    status, _, complaint = fibcore("copy", f"sqlite:{there}", engine.url)
    assert (status, "has reached index 78" in complaint) == (1, True)


def test_a_served_file_is_not_moved(
    fibcore: Fibcore, opener: EngineOpener, engine: Engine, tmp_path: Path
) -> None:
    served = Settings.from_environ({"FIB_STORE": f"sqlite:{tmp_path}/served.db"}).opener()
    served.stand_by(lambda _: None)
    with closing(served.open()):
        status, _, complaint = fibcore("copy", f"sqlite:{tmp_path}/served.db", engine.url)
        assert (status, "Stop the server" in complaint) == (os.EX_TEMPFAIL, True)
    assert opener.create(0) is None


def test_steps_during_a_copy_are_noticed(
    fibcore: Fibcore,
    store: EngineStore,
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    describe = EngineOpener.describe

    def describe_and_step(self: EngineOpener) -> Description:
        try:
            return describe(self)
        finally:
            store.advance(1)

    monkeypatch.setattr(EngineOpener, "describe", describe_and_step)
    status, _, complaint = fibcore("copy", engine.url, f"sqlite:{tmp_path}/copy.db")
    assert (status, "a server still steps it" in complaint) == (1, True)


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


def test_commands_that_read_do_not_write(
    fibcore: Fibcore,
    opener: EngineOpener,
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The default port may be in use, which ``check`` would report.
    monkeypatch.setenv("FIB_PORT", str(free_port()))
    opener.create(5)
    before = writes(engine)
    for command in (("show",), ("verify",), ("check",), ("backup", tmp_path / "copy.db")):
        assert fibcore(*command)[0] == 0
    assert writes(engine) == before
    # The control: a server's record is a write.
    with closing(opener.open()):
        assert writes(engine) != before
