"""Fixtures and helpers for the tests of the command."""

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fibcore.appliance.settings import FILE
from fibcore.command import cli
from fibcore.stores.sqlite import SqliteStore
from tests.support.servers import ServerProcess, listening_socket

Fibcore = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the checkout, since the command would find a server running there."""
    (tmp_path / FILE).touch(0o600)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default path of the command, without a database."""
    database = tmp_path / "fibcore.db"
    monkeypatch.setenv("FIB_STATE", str(database))
    return database


@pytest.fixture
def fibcore(capsys: pytest.CaptureFixture[str]) -> Fibcore:
    """Run the command in this process; return its exit status, its output and its errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = cli.main([str(each) for each in arguments])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def server(database: Path) -> Iterator[ServerProcess]:
    with listening_socket() as listener:
        # As a service sets it: the command queries the server of its folder at that address.
        port = {"FIB_PORT": str(listener.getsockname()[1])}
        with ServerProcess(database, listener, port) as server:
            yield server.wait_until_it_serves()


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "fibcore", *map(str, arguments)]


def make(database: Path, index: int) -> None:
    with closing(SqliteStore(database)) as store:
        store.commit(index)


def rows(output: str) -> dict[str, str]:
    return {line[:17].strip(): line[17:] for line in output.splitlines()}
