"""Where settings come from: the environment, what the instance was started with, fibcore.conf."""

from pathlib import Path

import pytest

from fibcore.appliance import configuration
from fibcore.appliance.configuration import read_file, started_with, to_start_with, write_file
from fibcore.appliance.settings import Settings
from fibcore.problems import SettingsError


@pytest.fixture
def home(tmp_path: Path) -> Path:
    tmp_path.joinpath("var").mkdir()
    return tmp_path


def edit(home: Path, text: str) -> None:
    home.joinpath(configuration.EDITED).write_text(text)


def test_a_line_is_uncommented_and_quoted_as_systemd_has_it(home: Path) -> None:
    edit(home, "# words\n; words\n\n#FIB_PORT=1\nFIB_PORT=9000\n FIB_HOST = '0.0.0.0' \n")
    assert read_file(home / "fibcore.conf") == {"FIB_PORT": "9000", "FIB_HOST": "0.0.0.0"}


@pytest.mark.parametrize("line", ["FIB_PORT", "PORT=1", "export FIB_PORT=1", "="])
def test_a_line_that_is_no_setting_is_said_with_its_number(home: Path, line: str) -> None:
    edit(home, f"# words\n{line}\n")
    with pytest.raises(SettingsError, match=r"fibcore\.conf, line 2 is not FIB_NAME=value"):
        to_start_with(home, {})


def test_a_file_that_can_not_be_read_is_said(home: Path) -> None:
    home.joinpath("fibcore.conf").mkdir()
    with pytest.raises(SettingsError, match="can't be read"):
        to_start_with(home, {})


def test_the_environment_goes_before_the_file(home: Path) -> None:
    """The file goes before the default."""
    edit(home, "FIB_PORT=9000\nFIB_MAX_INDEX=5\n")
    settings = Settings.from_environ(to_start_with(home, {"FIB_PORT": "9001", "PATH": "/bin"}))
    assert (settings.port, settings.max_index, settings.host) == (9001, 5, "127.0.0.1")


@pytest.mark.parametrize(
    ("line", "environ", "database"),
    [
        ("", {}, "var/fibcore.db"),
        ("FIB_STATE=other.db", {}, "other.db"),
        ("FIB_STORE=sqlite:other.db", {}, "other.db"),
        ("FIB_STORE=sqlite:/srv/other.db", {}, "/srv/other.db"),
        ("FIB_STATE=other.db", {"FIB_STORE": "sqlite:/srv/x.db"}, "/srv/x.db"),
        ("FIB_STORE=sqlite:other.db", {"FIB_STATE": "/srv/x.db"}, "/srv/x.db"),
    ],
)
def test_the_database_is_one_wherever_it_is_asked_from(
    home: Path, line: str, environ: dict[str, str], database: str
) -> None:
    edit(home, line)
    assert Settings.from_environ(to_start_with(home, environ)).database == home / database


def test_a_file_that_names_the_store_is_one_wherever_it_is_asked_from(home: Path) -> None:
    edit(home, "FIB_STORE=@secrets/store")
    home.joinpath("secrets").mkdir()
    home.joinpath("secrets", "store").write_text("redis://:Zebra9@host/0\n")
    found = to_start_with(home, {})
    assert found["FIB_STORE"] == f"@{home}/secrets/store"
    assert Settings.from_environ(found).where == "redis://host/0"


def test_what_an_instance_was_started_with_is_what_is_seen(home: Path) -> None:
    edit(home, "FIB_PORT=9000\n")
    assert started_with(home, {})["FIB_PORT"] == "9000"
    write_file(home / configuration.STARTED, to_start_with(home, {"FIB_STATE": "/srv/x.db"}))
    edit(home, "FIB_PORT=9002\n")
    assert started_with(home, {}) == {"FIB_PORT": "9000", "FIB_STATE": "/srv/x.db"}
    assert to_start_with(home, {})["FIB_PORT"] == "9002"


def test_the_instance_is_that_of_the_folder_or_the_command(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The current folder goes before that which the command is of."""
    elsewhere, checkout = home / "elsewhere", home / "checkout"
    for folder in (elsewhere, checkout):
        folder.mkdir()
    monkeypatch.setattr("sys.prefix", str(checkout / ".venv"))
    monkeypatch.chdir(elsewhere)
    assert configuration.home() == elsewhere
    edit(checkout, "")
    assert configuration.home() == checkout
    edit(elsewhere, "")
    assert configuration.home() == elsewhere
