"""The messages of problems: the remedy that loses nothing comes first."""

import errno
import os
import sys
from pathlib import Path

import pytest

from fibcore import problems
from fibcore.appliance.settings import Settings
from fibcore.problems import CantListenError, DriverMissingError, explain, typed

WHERE = Path("/srv/fibcore.db")


def known(
    error: problems.DatabaseInvalidError, index: int, *, last: bool
) -> problems.DatabaseInvalidError:
    error.known, error.known_is_last = index, last
    return error


CONDITIONS = [
    problems.DatabaseInvalidError(WHERE, "it is empty"),
    problems.ForeignDatabaseError(WHERE, "another program made it"),
    problems.NoRightError(WHERE, "denied"),
    problems.StoreNotThereError(WHERE, "there is no such file"),
    problems.DatabaseMissingError(WHERE, ("fibcore.db.mark",)),
    problems.StepsLostError(WHERE, 5, "fibcore.db.mark", known=9),
    problems.IndexTooLargeError(WHERE, 10**10, 10**9),
    problems.IndexPastLimitError(WHERE, 11, 10),
    problems.CatchingUpError(WHERE, 9),
    problems.FolderUnusableError(WHERE, "denied"),
    problems.StoreUnavailableError(WHERE, "full"),
    problems.StoreBusyError(WHERE),
    problems.CommitFailedError(WHERE, 7, "I/O error"),
    problems.AnotherWriterError(WHERE, 7, 6),
    DriverMissingError("etcd"),
    problems.InUseError(WHERE, 1),
    problems.LowerError(WHERE, 5, 9),
    problems.InTheWayError(WHERE, "it is a letter"),
    problems.OwnFileError(WHERE),
    problems.CopyInvalidError(WHERE, "there is no such file"),
    problems.NoFolderError(WHERE, "there is no folder"),
    problems.CopyFailedError(WHERE, "full"),
]


@pytest.mark.parametrize("error", CONDITIONS, ids=lambda error: type(error).__name__)
def test_every_problem_has_its_own_text_in_one_line(error: Exception) -> None:
    message = explain(error)
    assert message[0].isupper() or message.startswith("/")
    assert message.endswith(".")
    assert "\n" not in message


def test_in_a_checkout_make_stores_installs_a_missing_driver() -> None:
    assert "Install it, in a checkout: make stores;" in explain(DriverMissingError("redis"))


def test_the_remedy_that_loses_nothing_is_named_first() -> None:
    cut = known(problems.DatabaseInvalidError(WHERE, "it is malformed"), 1009, last=True)
    assert explain(cut).endswith(f"with no step lost: {typed('fibcore set-index 1009')}.")
    another = " --database /srv/x.db"
    assert explain(cut, another).endswith(f"{typed('fibcore set-index 1009')}{another}.")
    assert "restore" not in explain(cut)
    assert "--lower" not in explain(cut)

    lost = known(problems.StepsLostError(WHERE, 5, "fibcore.db.mark", known=9), 9, last=True)
    assert explain(lost).index("set-index 9") < explain(lost).index("set-index --lower 5")

    gone = known(problems.DatabaseMissingError(WHERE, ("fibcore.db.mark",)), 9, last=True)
    assert explain(gone).index("set-index 9") < explain(gone).index("set-index --lower 0")


def test_a_command_is_shown_as_the_user_would_type_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout, bin_folder = tmp_path / "checkout", tmp_path / "checkout" / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    bin_folder.joinpath("fibcore").touch(mode=0o755)
    monkeypatch.setattr(sys, "prefix", str(bin_folder.parent))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(checkout)
    assert typed("fibcore set-index 5") == ".venv/bin/fibcore set-index 5"
    monkeypatch.chdir(tmp_path)
    assert typed("fibcore set-index 5") == "checkout/.venv/bin/fibcore set-index 5"
    monkeypatch.chdir("/")
    monkeypatch.setenv("PATH", str(bin_folder))
    assert typed("fibcore set-index 5") == "fibcore set-index 5"


def test_a_known_index_that_may_not_be_the_last_is_no_promise() -> None:
    cut = known(problems.DatabaseInvalidError(WHERE, "it is malformed"), 1000, last=False)
    assert "no step lost" not in explain(cut)
    assert explain(cut).index("set-index 1000") < explain(cut).index("fibcore restore FILE")


def test_a_missing_file_is_not_called_damaged() -> None:
    message = explain(problems.StoreNotThereError(WHERE, "there is no such file"))
    assert message.startswith(f"There is no database {WHERE}.")
    assert "invalid" not in message
    assert "restore" not in message


def test_a_foreign_error_is_explained_by_its_own_text() -> None:
    assert explain(OSError("no such device")) == "no such device"


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (errno.EADDRINUSE, "FIB_PORT=80 at 127.0.0.1 is in use by another program."),
        (errno.EADDRNOTAVAIL, "FIB_HOST=127.0.0.1 is not an address of this machine."),
        (errno.EACCES, "This user may not listen on FIB_PORT=80: ports below 1024 need a"),
        (-2, "FIB_HOST=127.0.0.1 can't be resolved: "),
        (errno.EAFNOSUPPORT, "The server can't listen on FIB_HOST=127.0.0.1 FIB_PORT=80: "),
    ],
)
def test_each_reason_not_to_listen_has_its_own_text(number: int, why: str) -> None:
    settings = Settings.from_environ({"FIB_PORT": "80"})
    message = CantListenError(
        settings.host, settings.port, OSError(number, os.strerror(abs(number)))
    ).explain()
    assert message.startswith(why)
    assert "The database is untouched." in message
