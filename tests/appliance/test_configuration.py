"""Precedence of settings: the environment, fibcore.conf, the defaults, and nothing else."""

import re
from pathlib import Path

import pytest

from fibcore.appliance import settings
from fibcore.appliance.settings import FILE, Given, Settings, gather, home, without_settings
from fibcore.problems import SettingsError

HOST_IS_EMPTY = (
    "FIB_HOST is ''; it must be an address or a host name, with 1 to 63 characters between its "
    "dots."
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the instance: the current one, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit(folder: Path, text: str) -> None:
    folder.joinpath(FILE).write_text(text)


def texts(folder: Path, environ: dict[str, str] | None = None) -> dict[str, str]:
    gathered = gather(environ or {}, folder=folder)
    assert gathered.errors == []
    return {name: given.text for name, given in gathered.values.items()}


def error(folder: Path, environ: dict[str, str] | None = None) -> SettingsError:
    with pytest.raises(SettingsError) as invalid:
        Settings.of(gather(environ or {}, folder=folder))
    return invalid.value


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("FIB_HOST=a", "a"),
        (" FIB_HOST = 'a' ", "a"),
        ('FIB_HOST="a b"', "a b"),
        ("FIB_HOST=a # why", "a"),
        ("FIB_HOST=a#b", "a#b"),
        ("FIB_HOST='a # b' # why", "a # b"),
        ("FIB_HOST='", "'"),
        ("FIB_HOST= # none", ""),
        ("FIB_HOST=", ""),
        ("FIB_HOST=a\nFIB_HOST=b", "b"),
        ("\ufeffFIB_HOST=a\r\n", "a"),
        ("# FIB_HOST=a\n; FIB_HOST=a\n#FIB_HOST=a\n\n", "127.0.0.1"),
    ],
)
def test_a_line_has_a_value_its_quotes_and_a_comment(folder: Path, line: str, value: str) -> None:
    edit(folder, line)
    assert texts(folder)["FIB_HOST"] == value


@pytest.mark.parametrize("line", ["FIB_PORT", "PORT=1", "export FIB_PORT=1", "=", "FIB_PORT: 1"])
def test_a_line_that_is_not_a_setting_is_reported_with_its_number(folder: Path, line: str) -> None:
    edit(folder, f"# words\n{line}\n")
    assert str(error(folder)).startswith(f"{folder}/fibcore.conf, line 2 is not FIB_NAME=value. ")


def test_an_unreadable_settings_file_is_an_error(folder: Path) -> None:
    folder.joinpath(FILE).mkdir()
    assert "fibcore.conf can't be read: " in str(error(folder))
    folder.joinpath(FILE).rmdir()
    folder.joinpath(FILE).write_bytes(b"\xff")
    assert "fibcore.conf can't be read: " in str(error(folder))


def test_options_override_the_environment_then_the_file_then_the_defaults(folder: Path) -> None:
    edit(folder, "FIB_PORT=9000\nFIB_MAX_INDEX=5\nFIB_HOST=a\n")
    environ = {"FIB_PORT": "9001", "FIB_HOST": "b", "PATH": "/bin"}
    found = gather(environ, [Given("FIB_PORT", "9002", "--port")], folder=folder).values
    assert found["FIB_PORT"] == ("FIB_PORT", "9002", "--port")
    assert found["FIB_HOST"] == ("FIB_HOST", "b", "environment")
    assert found["FIB_MAX_INDEX"] == ("FIB_MAX_INDEX", "5", f"{folder}/fibcore.conf, line 2")
    assert found["FIB_SYNCHRONOUS"] == ("FIB_SYNCHRONOUS", "full", "default")


def test_leftovers_of_an_earlier_run_decide_nothing(folder: Path) -> None:
    edit(folder, "FIB_PORT=9000\n")
    folder.joinpath("var").mkdir()
    folder.joinpath("var", "fibcore.env").write_text("FIB_PORT=9001\nFIB_STATE=/srv/x.db\n")
    assert texts(folder)["FIB_PORT"] == "9000"
    assert texts(folder)["FIB_STORE"] == f"sqlite:{folder}/var/fibcore.db"


def test_with_every_setting_in_the_environment_no_file_is_read(folder: Path) -> None:
    """An edited file applies to all processes of the appliance at the next start."""
    edit(folder, "FIB_STORE=sqlite:x.db\n")
    environ = gather({}, folder=folder).environ()
    edit(folder, "FIB_STORE=sqlite:other.db\nFIB_NONSENSE\n")
    assert texts(folder, environ) == environ
    assert texts(folder, environ)["FIB_STORE"] == f"sqlite:{folder}/x.db"
    # The control: one of them is missing.
    del environ["FIB_LOG_FORMAT"]
    assert len(gather(environ, folder=folder).errors) == 1


@pytest.mark.parametrize(
    ("line", "environ", "database"),
    [
        ("", {}, "var/fibcore.db"),
        ("FIB_STATE=other.db", {}, "other.db"),
        ("FIB_STORE=sqlite:other.db", {}, "other.db"),
        ("FIB_STORE=sqlite:/srv/other.db", {}, "/srv/other.db"),
        ("FIB_STATE=other.db", {"FIB_STORE": "sqlite:/srv/x.db"}, "/srv/x.db"),
        ("FIB_STORE=sqlite:other.db", {"FIB_STATE": "/srv/x.db"}, "/srv/x.db"),
        ("FIB_STORE=sqlite:~/other.db", {}, "/home/me/other.db"),
        ("", {"FIB_STATE": "~/other.db"}, "/home/me/other.db"),
        ("FIB_STATE=~nobody-is-called-so/x.db", {}, "~nobody-is-called-so/x.db"),
    ],
)
def test_every_current_folder_leads_to_the_same_database(
    folder: Path, line: str, environ: dict[str, str], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(folder, line)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir("/")
    assert Settings.of(gather(environ, folder=folder)).database == folder / database


def test_a_relative_file_in_the_environment_is_in_the_current_folder(folder: Path) -> None:
    folder.joinpath("elsewhere").mkdir()
    found = gather({"FIB_STATE": "x.db"}, folder=folder / "elsewhere")
    assert Settings.of(found).database == folder / "x.db"


def test_every_current_folder_leads_to_the_same_store_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(folder, "FIB_STORE=@secrets/store")
    folder.joinpath("secrets").mkdir()
    folder.joinpath("secrets", "store").write_text("redis://:Zebra9@host/0\n")
    monkeypatch.chdir("/")
    assert texts(folder)["FIB_STORE"] == f"@{folder}/secrets/store"
    assert Settings.of(gather({}, folder=folder)).where == "redis://host/0"


def test_an_invalid_value_is_reported_with_its_file_and_line(folder: Path) -> None:
    edit(folder, "\nFIB_PORT=abc # why\nFIB_SYNCRONOUS=off\nFIB_MAX_INDEX=0\n")
    found = error(folder, {"FIB_HOST": ""})
    file, end = f"{folder}/fibcore.conf", " Nothing has been started or changed."
    assert [str(each).removesuffix(end) for each in (found, *found.others)] == [
        f"{file}, line 3: FIB_SYNCRONOUS is not a setting. Did you mean FIB_SYNCHRONOUS?",
        HOST_IS_EMPTY,
        f"{file}, line 2: FIB_PORT is 'abc'; it must be a whole number from 1 to 65535.",
        f"{file}, line 4: FIB_MAX_INDEX is '0'; it must be a whole number from 1 to 1000000000.",
    ]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("FIB_PROT", "FIB_PROT is not a setting. Did you mean FIB_PORT? "),
        ("FIB_", "FIB_ is not a setting. The settings are FIB_HOST, FIB_PORT, "),
        ("FIB_GRACEFUL_STOP", "FIB_GRACEFUL_STOP has been renamed to FIB_STOP_TIMEOUT. "),
        ("FIB_MAX_WAITING", "FIB_MAX_WAITING has been renamed to FIB_MAX_WAITING_STEPS. "),
        ("FIB_MAX_IN_FLIGHT", "FIB_MAX_IN_FLIGHT has been renamed to FIB_MAX_ANSWER_BYTES. "),
    ],
)
def test_an_unknown_or_renamed_setting_is_reported_by_name(
    folder: Path, name: str, hint: str
) -> None:
    assert str(error(folder, {name: "1"})).startswith(hint)
    edit(folder, f"{name}=1")
    assert str(error(folder)).startswith(f"{folder}/fibcore.conf, line 1: {hint}")


def test_irrelevant_settings_are_not_checked(folder: Path) -> None:
    edit(folder, "FIB_PORT=abc\nFIB_NONSENSE=1\nFIB_STATE=x.db\n")
    found = Settings.of(gather({}, folder=home(), only=["FIB_STORE"]))
    assert (found.database, found.port) == (folder / "x.db", 8080)


def test_home_is_the_folder_with_a_settings_file_or_else_of_the_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The current folder comes before that of the command."""
    elsewhere, checkout = folder / "elsewhere", folder / "checkout"
    for each in (elsewhere, checkout):
        each.mkdir()
    monkeypatch.setattr("sys.prefix", str(checkout / ".venv"))
    monkeypatch.chdir(elsewhere)
    assert home() == elsewhere
    edit(checkout, "")
    assert home() == checkout
    edit(elsewhere, "")
    assert home() == elsewhere


def test_every_setting_is_removed_from_an_environment() -> None:
    assert without_settings({"FIB_X": "1", "FIB": "2", "PATH": "/bin"}) == {
        "FIB": "2",
        "PATH": "/bin",
    }


def test_former_names_are_not_settings() -> None:
    known = re.findall(r'_setting\(\s*"(FIB_\w+)"', Path(settings.__file__).read_text())
    assert set(settings.RENAMED.values()) <= set(known)
    assert not set(settings.RENAMED) & set(known)
