"""Problems that keep ``make run`` from starting anything: one line, and the exit status."""

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from fibcore import problems
from fibcore.appliance.servers import Server
from fibcore.appliance.settings import Settings
from fibcore.command import check
from fibcore.stores.lock import WriterLock
from supervise.run import main
from tests.support.checkout import checkout
from tests.support.ports import free_port
from tests.support.supervised import ROOT

Reject: TypeAlias = Callable[..., str]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return checkout(tmp_path)


@pytest.fixture
def reject(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Reject:
    """Run in a folder with some settings; return the line with the reason why nothing starts."""

    def run(folder: Path, status: int, **settings: str) -> str:
        umask = os.umask(0o077)
        with monkeypatch.context() as patched:
            patched.chdir(folder)
            for name in [each for each in os.environ if each.startswith("FIB_")]:
                patched.delenv(name)
            for name, value in {"FIB_PORT": str(free_port()), **settings}.items():
                patched.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main()
        os.umask(umask)
        printed = capsys.readouterr()
        assert (ended.value.code, printed.out, printed.err.count("\n")) == (status, "", 1)
        return printed.err

    return run


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"FIB_PORT": "abc"}, "FIB_PORT is 'abc'; it must be a whole number from 1 to 65535."),
        ({"FIB_PORT": "70000"}, "FIB_PORT is '70000'; it must be a whole number from 1 to 65535."),
        ({"FIB_PORT": "0"}, "FIB_PORT is '0'; it must be a whole number from 1 to 65535."),
        ({"FIB_HOST": "no.such.host.invalid"}, "FIB_HOST=no.such.host.invalid can't be resolved: "),
        ({"FIB_HOST": "::"}, "FIB_HOST is ::, an IPv6 address"),
        ({"FIB_HOST": "192.0.2.1"}, "FIB_HOST=192.0.2.1 is not an address of this machine"),
        (
            {"FIB_STORE": "mysql://host/name"},
            "FIB_STORE is 'mysql://host/name'; it must be sqlite:",
        ),
        ({"FIB_SYNCRONOUS": "off"}, "FIB_SYNCRONOUS is not a setting"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_make_run_reports_an_invalid_setting(
    home: Path, reject: Reject, settings: dict[str, str], why: str
) -> None:
    line = reject(home, os.EX_CONFIG, **settings)
    assert line.startswith(f"fibcore: {why}")
    assert re.search("Nothing has been started or changed|database is untouched", line)


def test_make_run_reports_a_port_in_use(home: Path, reject: Reject) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = reject(home, os.EX_CONFIG, FIB_PORT=str(port))
    assert f"FIB_PORT={port} at 127.0.0.1 is in use by another program" in line


def test_make_run_reports_a_port_used_by_its_own_server(
    home: Path, reject: Reject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """supervisord would end with a traceback; ``fibcore check`` is right to accept it."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        server = Server(1, {}, Settings.from_environ({"FIB_PORT": port}))
        monkeypatch.setattr(check, "servers_of", lambda _: [server])
        line = reject(home, os.EX_CONFIG, FIB_PORT=port)
    assert f"FIB_PORT={port} at 127.0.0.1 is in use by another program" in line


def test_make_run_reports_a_host_without_an_ipv4_address(
    home: Path, reject: Reject, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def resolve(host: str, port: int, family: int = 0, kind: int = 0, **others: int) -> object:
        if family == socket.AF_INET:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, port, family, kind, **others)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    line = reject(home, os.EX_CONFIG, FIB_HOST="localhost")
    assert line.startswith("fibcore: FIB_HOST=localhost can't be resolved: ")


@pytest.mark.parametrize("name", ["web_1.log", "supervisord.log"])
def test_make_run_reports_an_unwritable_log(home: Path, reject: Reject, name: str) -> None:
    """As after a ``sudo make run``."""
    log = home / "var" / "log" / name
    log.parent.mkdir(parents=True)
    log.symlink_to("missing/file")
    line = reject(home, os.EX_CANTCREAT)
    assert line.startswith(f"fibcore: {log} can't be used: ")


def test_make_run_reports_an_invalid_line_of_the_settings(home: Path, reject: Reject) -> None:
    home.joinpath("fibcore.conf").write_text("FIB_PORT 9000\n")
    assert "line 1 is not FIB_NAME=value" in reject(home, os.EX_CONFIG)


def test_make_run_reports_an_unwritable_folder(home: Path, reject: Reject) -> None:
    home.joinpath("file").touch()
    line = reject(home, os.EX_CANTCREAT, FIB_STATE="file/fibcore.db")
    assert f"{home}/file/fibcore.db can't be used: {home}/file is not a folder" in line


def test_make_run_does_not_claim_to_retry(
    home: Path, reject: Reject, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = home / "fib.db.lock"
    lock.touch()
    # root may use any
    monkeypatch.setattr(os, "access", lambda path, _: str(path) != str(lock))
    line = reject(home, os.EX_NOPERM, FIB_STATE="fib.db")
    assert f"This user may not use {lock}: permission denied. Give this user" in line
    assert line.endswith("write permission.\n")


@pytest.mark.parametrize(
    "name", ["50%", 'a"b', "x" * 200], ids=["percent sign", "quote", "long name"]
)
def test_make_run_reports_a_folder_unusable_for_supervisord(
    tmp_path: Path, reject: Reject, name: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    line = reject(checkout(folder), os.EX_CANTCREAT)
    assert f"supervisord can't run in the folder {folder}" in line
    assert not (folder / "var").exists()


def test_make_run_reports_a_database_served_from_elsewhere(home: Path, reject: Reject) -> None:
    home.joinpath("var").mkdir()
    lock = WriterLock(home / "var" / "fibcore.db")
    assert lock.acquire(wait=False)
    line = reject(home, os.EX_TEMPFAIL)
    assert f"is already served by process {os.getpid()}" in line
    lock.release()


def test_systemd_does_not_retry_a_start_that_needs_an_operator() -> None:
    """Every status of ``make run`` for a permanent problem, such as a missing sequence."""
    unit = ROOT.joinpath("deploy", "debian", "fibcore.service").read_text()
    prevented = re.search(r"(?m)^RestartPreventExitStatus=(.*)$", unit)
    assert prevented is not None
    kinds: list[type[problems.Problem]] = [
        *(problems.SettingsError, problems.StoreSettingError, problems.CantListenError),
        *(problems.DatabaseInvalidError, problems.NoRightError, problems.IndexPastLimitError),
    ]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert {each.status for each in kinds} <= set(map(int, prevented[1].split()))
