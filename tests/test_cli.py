"""The ``fibcore`` command: what it prints, its exit statuses, and what it does beside a server."""

import argparse
import importlib
import os
import pty
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fibcore import MAX_INDEX, cli, configuration, maintenance
from fibcore.settings import Settings
from fibcore.stores import CommitFailedError, StoreUnavailableError, files, sqlite_file
from fibcore.stores.sqlite import SqliteStore
from fibcore.words import explain, typed
from supervise.backup import BackupCopy
from tests.support.invalid import SPOILED, contents
from tests.support.reference import digits_of
from tests.support.servers import ServerProcess, listening_socket
from tests.support.supervised import Supervised
from tests.support.waiting import until
from tests.test_high_water_mark import serve_and_be_killed

Fibcore = Callable[..., tuple[int, str, str]]


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path that the command takes by itself; nothing is there."""
    database = tmp_path / "fibcore.db"
    monkeypatch.setenv("FIB_STATE", str(database))
    return database


@pytest.fixture
def fibcore(capsys: pytest.CaptureFixture[str]) -> Fibcore:
    """Run the command here; return its status, its output, and what it complains of."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = cli.main([str(each) for each in arguments])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def server(database: Path) -> Iterator[ServerProcess]:
    with listening_socket() as listener, ServerProcess(database, listener) as server:
        yield server.wait_until_it_serves()


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "fibcore", *map(str, arguments)]


def make(database: Path, index: int) -> None:
    with closing(SqliteStore(database)) as store:
        store.commit(index)


def rows(output: str) -> dict[str, str]:
    return {line[:17].strip(): line[17:] for line in output.splitlines()}


# show


def test_show_says_where_the_sequence_stands(database: Path, fibcore: Fibcore) -> None:
    make(database, 25_000)
    status, output, complaint = fibcore("show")
    assert (status, complaint) == (0, "")
    assert rows(output) == {
        "database": str(database),
        "index": "25000",
        "number": "21954383555173030127...77036587231777596875 (5225 digits)",
        "served by": "nobody",
        "durability": "synchronous=full when last written: no step that was answered is lost, not "
        "even in a power cut",
        "backup copy": "none",
    }


@pytest.mark.parametrize(
    ("index", "number"),
    [
        (0, "0 (1 digit)"),
        (10, "55 (2 digits)"),
        (93, "12200160415121876738 (20 digits)"),
        (100, "35422484817926191507...54224848179261915075 (21 digits)"),
    ],
)
def test_show_shows_a_short_number_whole(
    database: Path, fibcore: Fibcore, index: int, number: str
) -> None:
    make(database, index)
    assert rows(fibcore("show")[1])["number"] == number


@pytest.mark.parametrize("index", [0, 1, 93, 94, 30_000])
def test_show_digits_prints_the_number_and_nothing_else(
    database: Path, fibcore: Fibcore, index: int
) -> None:
    make(database, index)
    assert fibcore("show", "--digits") == (0, digits_of(index).decode() + "\n", "")


def test_show_takes_the_kind_of_integer_from_the_environment_or_the_command_line(
    database: Path, fibcore: Fibcore, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(database, 94)
    modular = f"{int(digits_of(94)) % 2**64}\n"
    assert fibcore("show", "--digits", "--integers", "uint64")[1] == modular
    monkeypatch.setenv("FIB_INTEGERS", "uint64")
    assert fibcore("show", "--digits")[1] == modular
    assert fibcore("show", "--digits", "--integers", "exact")[1] == f"{digits_of(94).decode()}\n"


def test_show_does_not_print_a_number_that_there_is_no_memory_for(
    database: Path, fibcore: Fibcore
) -> None:
    make(database, MAX_INDEX)
    status, output, complaint = fibcore("show", "--digits")
    assert (status, output) == (1, "")
    assert "is past 1000000000, the largest index with integers exact" in complaint
    assert fibcore("show", "--digits", "--integers", "uint64")[0] == 0


def test_show_says_what_the_level_of_durability_loses(database: Path, fibcore: Fibcore) -> None:
    sqlite_file.create(database)
    assert rows(fibcore("show")[1])["durability"] == "not known: it has not been served yet"
    SqliteStore(database, "normal").close()
    durability = rows(fibcore("show")[1])["durability"]
    assert durability == "synchronous=normal when last written: a power cut loses the last steps"


# verify


def test_verify_checks_the_database_the_high_water_mark_and_the_backup_copy(
    database: Path, fibcore: Fibcore
) -> None:
    make(database, 7)
    BackupCopy(database).refresh()
    make(database, 8)
    status, output, complaint = fibcore("verify")
    assert (status, complaint) == (0, "")
    assert output.splitlines() == [
        "high-water mark  index 8, recorded with synchronous=full: counts",
        "backup copy      good, at index 7",
        "database         good, at index 8",
    ]


def test_verify_does_not_miss_what_is_no_reason_to_be_invalid(
    database: Path, fibcore: Fibcore
) -> None:
    sqlite_file.create(database, 8)
    status, output, complaint = fibcore("verify")
    assert (status, complaint) == (0, "")
    assert output.splitlines() == [
        "high-water mark  none that says anything",
        "backup copy      none",
        "database         good, at index 8",
    ]


@pytest.mark.processes
def test_verify_finds_invalid_what_the_server_would_and_knows_the_way_out(
    database: Path, fibcore: Fibcore
) -> None:
    serve_and_be_killed(database)
    files.wal_path(database).unlink()
    before = contents(database.parent)
    status, output, complaint = fibcore("verify")
    assert status == os.EX_DATAERR
    assert rows(output)["database"] == "invalid"
    assert "index 5 was committed" in complaint
    way_out = typed(f"fibcore set-index 5 --database {database}")
    assert f"To go on where it stood, with no step lost: {way_out}." in complaint
    assert contents(database.parent) == before
    assert fibcore("set-index", 5)[0] == 0
    assert fibcore("verify")[0] == 0


def test_verify_reports_a_damaged_backup_copy(database: Path, fibcore: Fibcore) -> None:
    make(database, 8)
    files.backup_copy_path(database).write_bytes(b"damaged")
    status, output, complaint = fibcore("verify")
    assert status == os.EX_DATAERR
    assert rows(output)["backup copy"] == "damaged"
    assert rows(output)["database"] == "good, at index 8"
    assert f"{database.name}.backup is damaged: file is not a database" in complaint


# backup and restore


def test_a_backup_can_be_restored(database: Path, fibcore: Fibcore, tmp_path: Path) -> None:
    make(database, 50)
    file = tmp_path / "backup.db"
    assert fibcore("backup", file) == (0, f"{file}: a verified copy at index 50\n", "")
    database.write_bytes(b"damaged")
    files.high_water_mark_path(database).unlink()
    status, output, complaint = fibcore("restore", file)
    assert (status, complaint) == (0, "")
    assert output == (
        f"{database} stands at index 50\n"
        f"what was there could not be trusted, and is kept as {database}.invalid-1\n"
    )
    assert maintenance.stands_at(database) == 50
    assert sqlite_file.verify_file(file) == 50


def test_the_backup_copy_can_be_restored(database: Path, fibcore: Fibcore) -> None:
    make(database, 50)
    BackupCopy(database).refresh()
    database.write_bytes(b"damaged")
    assert fibcore("restore", files.backup_copy_path(database))[0] == 0
    assert maintenance.stands_at(database) == 50


def test_an_older_backup_is_restored_if_that_is_meant(
    database: Path, fibcore: Fibcore, tmp_path: Path
) -> None:
    make(database, 50)
    file = tmp_path / "backup.db"
    fibcore("backup", file)
    make(database, 60)
    status, output, complaint = fibcore("restore", file)
    assert (status, output) == (1, "")
    assert "stood at index 60: going back to 50 answers the indexes between again" in complaint
    assert fibcore("restore", "--lower", file) == (
        0,
        f"{database} stands at index 50; it stood at 60\n",
        "",
    )


@pytest.mark.processes
@pytest.mark.parametrize("spoiled", SPOILED, ids=lambda spoiled: spoiled.name)
def test_a_file_that_is_no_good_copy_is_not_restored(
    database: Path, fibcore: Fibcore, tmp_path: Path, spoiled: argparse.Namespace
) -> None:
    make(database, 5)
    folder = tmp_path / "copy"
    folder.mkdir()
    file = folder / "backup.db"
    sqlite_file.create(file, 50)
    spoiled.spoil(file)
    before = contents(folder), contents(database.parent)
    status, _, complaint = fibcore("restore", file)
    assert status == os.EX_DATAERR
    assert f"{file} can't be restored" in complaint
    assert (contents(folder), contents(database.parent)) == before


# set-index


def test_the_index_is_set(database: Path, fibcore: Fibcore) -> None:
    assert fibcore("set-index", 5) == (0, f"{database} stands at index 5\n", "")
    assert fibcore("set-index", 9) == (0, f"{database} stands at index 9; it stood at 5\n", "")
    assert fibcore("set-index", 4)[0] == 1
    assert fibcore("set-index", "--lower", 4)[0] == 0
    assert maintenance.stands_at(database) == 4


def test_what_it_makes_is_nobody_elses_to_read(database: Path, fibcore: Fibcore) -> None:
    umask = os.umask(0o022)
    try:
        fibcore("set-index", 5)
        fibcore("backup", database.with_name("backup.db"))
        assert {path.stat().st_mode & 0o777 for path in database.parent.iterdir()} == {0o600}
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(umask)


@pytest.mark.parametrize("index", ["-1", "", "x", "1.0", "٣", "1" * 20])
def test_what_is_no_index_is_not_understood(database: Path, fibcore: Fibcore, index: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        fibcore("set-index", index)
    assert not database.exists()


def test_an_index_past_the_largest_is_not_set(database: Path, fibcore: Fibcore) -> None:
    assert fibcore("set-index", 10**9 + 1)[0] == 1
    assert fibcore("set-index", "--integers", "uint64", MAX_INDEX + 1)[0] == 1
    assert not database.exists()
    assert fibcore("set-index", "--integers", "uint64", MAX_INDEX)[0] == 0


# Beside a server


@pytest.mark.processes
def test_a_database_that_is_served_is_shown_verified_and_copied(
    server: ServerProcess, fibcore: Fibcore, tmp_path: Path
) -> None:
    for index in range(1, 6):
        assert server.client.get("/next").index == index
        status, output, _ = fibcore("show")
        assert status == 0
        assert rows(output)["index"] == str(index)
        assert rows(output)["served by"] == f"process {server.pid}"
        assert fibcore("verify")[0] == 0
        assert fibcore("backup", tmp_path / "backup.db")[0] == 0
        assert sqlite_file.verify_file(tmp_path / "backup.db") == index


@pytest.mark.processes
def test_a_database_that_is_served_is_not_set_nor_restored(
    server: ServerProcess, fibcore: Fibcore, tmp_path: Path
) -> None:
    sqlite_file.create(tmp_path / "backup.db", 50)
    assert server.client.get("/next").index == 1
    for arguments in (("set-index", 9), ("restore", tmp_path / "backup.db")):
        status, output, complaint = fibcore(*arguments)
        assert (status, output) == (os.EX_TEMPFAIL, "")
        assert f"in use by process {server.pid}. Nothing has been changed." in complaint
        assert f"{typed('supervisorctl stop')} 'web:*'" in complaint
    assert server.client.get("/next").index == 2


@pytest.mark.processes
def test_a_standby_that_has_taken_over_is_respected_too(database: Path, fibcore: Fibcore) -> None:
    with listening_socket() as listener:
        first = ServerProcess(database, listener).wait_until_it_serves()
        with ServerProcess(database, listener, name="second") as second:
            second.wait_until_it_stands_by()
            first.process.kill()
            first.wait()
            second.wait_until_it_serves()
            assert fibcore("set-index", 9)[0] == os.EX_TEMPFAIL
            assert second.client.get("/next").index == 1


@pytest.mark.processes
def test_an_appliance_whose_wal_was_lost_is_invalid_and_goes_on_where_it_stood_by_one_command(
    fibcore: Fibcore,
) -> None:
    with Supervised() as appliance:
        for _ in range(5):
            appliance.get("/next")
        both = appliance.server, appliance.standby
        # So that no other server is started until the WAL is gone.
        os.kill(appliance.pid, signal.SIGSTOP)
        for pid in reversed(both):
            os.kill(pid, signal.SIGKILL)
        files.wal_path(appliance.database).unlink()
        os.kill(appliance.pid, signal.SIGCONT)
        for name in ("web_0", "web_1"):
            appliance.log(name).expect("shows that index 5 was committed.*fibcore set-index 5")
        until(lambda: _states(appliance) == {"EXITED"}, "both have ended for good")
        status, _, complaint = fibcore("verify", "--database", appliance.database)
        assert status == os.EX_DATAERR
        way_out = typed(f"fibcore set-index 5 --database {appliance.database}")
        assert f"with no step lost: {way_out}." in complaint
        assert fibcore("set-index", "--database", appliance.database, 5)[0] == 0
        appliance.supervisorctl("start", "web:*")
        assert appliance.client.get("/next").headers["ETag"] == '"6"'


def _states(appliance: Supervised) -> set[str]:
    return {
        process.state for name, process in appliance.processes().items() if name.startswith("web:")
    }


# The command line


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StoreUnavailableError("fibcore.db", "full"), 75),
        (CommitFailedError("fibcore.db", 1, "broken"), 74),
        (PermissionError("denied"), 74),
    ],
)
def test_trouble_has_a_status_of_its_own_and_is_said(
    fibcore: Fibcore,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
) -> None:
    def trouble(_: Path) -> int:
        raise error

    monkeypatch.setattr(maintenance, "stands_at", trouble)
    assert fibcore("show") == (status, "", f"fibcore: {explain(error)}\n")


@pytest.mark.parametrize("arguments", [(), ("dance",), ("backup",), ("show", "--database", "")])
def test_a_command_that_is_not_understood_has_status_2(
    fibcore: Fibcore, arguments: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        fibcore(*arguments)


def test_the_database_is_the_one_that_the_server_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fibcore: Fibcore
) -> None:
    monkeypatch.delenv("FIB_STATE", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(configuration, "home", lambda: tmp_path)
    taken = Settings.from_environ({}).database
    assert taken is not None
    for path in (taken, tmp_path / "other.db"):
        path.parent.mkdir(exist_ok=True)
        make(path, 3)
    assert rows(fibcore("show")[1])["database"] == str(tmp_path / "var" / "fibcore.db")
    assert rows(fibcore("show", "--database", "other.db")[1])["database"] == str(
        tmp_path / "other.db"
    )
    monkeypatch.setenv("FIB_STATE", "other.db")
    assert rows(fibcore("show")[1])["database"] == str(tmp_path / "other.db")


def test_the_console_script_is_this_command() -> None:
    project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())
    module, _, name = project["project"]["scripts"]["fibcore"].partition(":")
    assert getattr(importlib.import_module(module), name) is cli.main


@pytest.mark.processes
def test_a_reader_that_has_enough_is_no_error(database: Path) -> None:
    make(database, 1_000_000)
    with subprocess.Popen(
        command("show", "--digits"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(5) == digits_of(1_000_000)[:5]
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


@pytest.mark.processes
def test_a_bar_shows_what_is_done_on_a_terminal_and_is_gone_at_the_end(
    database: Path, tmp_path: Path
) -> None:
    make(database, 6_000_000)
    terminal, seen_by_it = pty.openpty()
    with tmp_path.joinpath("digits").open("wb") as output:
        subprocess.run(command("show", "--digits"), stdout=output, stderr=seen_by_it, check=True)
    os.close(seen_by_it)
    drawn = os.read(terminal, 65536).decode()
    os.close(terminal)
    assert drawn.startswith("\r[" + 40 * " " + "]   0%")
    assert "\r[" + 40 * "#" + "] 100%" in drawn
    assert drawn.endswith("\r\x1b[K")
    assert tmp_path.joinpath("digits").read_bytes() == digits_of(6_000_000) + b"\n"


@pytest.mark.processes
def test_there_is_no_bar_where_the_digits_go_to_the_terminal(database: Path) -> None:
    make(database, 100)
    terminal, its = pty.openpty()
    subprocess.run(command("show", "--digits"), stdout=its, stderr=its, check=True)
    os.close(its)
    assert os.read(terminal, 65536) == digits_of(100) + b"\r\n"
    os.close(terminal)


@pytest.mark.processes
def test_nothing_of_the_server_is_imported() -> None:
    program = "import sys, fibcore.cli; print(*sys.modules)"
    imported = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.split()
    assert "fibcore.maintenance" in imported
    assert not {"asyncio", "starlette", "supervise", "uvicorn", "web"} & set(imported)


def test_a_truncated_database_is_said_with_the_way_out_that_loses_nothing(
    database: Path, fibcore: Fibcore
) -> None:
    make(database, 1000)
    BackupCopy(database).refresh()
    make(database, 1009)
    os.truncate(database, database.stat().st_size // 2)
    for asked in ("show", "verify"):
        status, _, complaint = fibcore(asked)
        assert status == os.EX_DATAERR
        way_out = typed(f"fibcore set-index 1009 --database {database}")
        assert f"with no step lost: {way_out}." in complaint
        assert "restore" not in complaint
    assert fibcore("set-index", 1009)[0] == 0
    assert maintenance.stands_at(database) == 1009


def test_what_is_not_there_is_not_damaged(
    database: Path, fibcore: Fibcore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _, complaint = fibcore("show")
    assert status == os.EX_NOINPUT
    assert complaint.startswith(f"fibcore: There is no database {database}.")
    make(database, 5)
    status, _, complaint = fibcore("restore", tmp_path / "nosuch.bak")
    assert status == os.EX_NOINPUT
    assert f"{tmp_path / 'nosuch.bak'} can't be restored: there is no such file." in complaint
    status, _, complaint = fibcore("backup", tmp_path / "nofolder" / "x")
    assert status == os.EX_CANTCREAT
    assert f"there is no folder {tmp_path / 'nofolder'}" in complaint
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    status, _, complaint = fibcore("backup", tmp_path / "x")
    assert status == os.EX_CANTCREAT
    assert f"this user may not write to {tmp_path}. The database is as it was." in complaint


def test_a_setting_that_is_wrong_keeps_the_command_from_guessing(
    fibcore: Fibcore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIB_INTEGERS", "float")
    status, _, complaint = fibcore("show")
    assert status == os.EX_CONFIG
    assert "FIB_INTEGERS must be one of exact, uint64" in complaint
