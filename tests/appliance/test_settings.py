"""The settings: where each comes from, what is valid, and that all are documented alike.

``fibcore config`` shows them. docs/operations.md and fibcore.conf list them.
"""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fibcore import MAX_EXACT_INDEX, MAX_INDEX
from fibcore.command.cli import main

ROOT: Final = Path(__file__).parents[2]

Config = Callable[..., tuple[int, dict[str, dict[str, str]], str]]

HOST: Final = "an address or a host name, with 1 to 63 characters between its dots"
PORT: Final = "a whole number from 1 to 65535"
HOSTS: Final = "host names without ports, separated by commas"
SEQUENCE: Final = "1 to 64 letters, digits, or _ . -"
FILE: Final = "sqlite:FILE, where FILE names a file"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the instance: the current one, with an empty file of settings."""
    for name in [each for each in os.environ if each.startswith("FIB_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    edit(tmp_path, "")
    return tmp_path


@pytest.fixture
def config(
    folder: Path,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Config:
    """Run ``fibcore config`` with these variables; return its status, settings and errors."""

    def run(**environ: str) -> tuple[int, dict[str, dict[str, str]], str]:
        with monkeypatch.context() as patch:
            for name, text in environ.items():
                patch.setenv(name, text)
            capsys.readouterr()
            status = main(["config", "--json"])
        output, errors = capsys.readouterr()
        return status, json.loads(output), errors

    return run


def edit(folder: Path, text: str) -> None:
    folder.joinpath("fibcore.conf").write_text(text)


# Where a value comes from


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("FIB_HOST=a", "a"),
        (" FIB_HOST = 'a' ", "a"),
        ("FIB_HOST=a # why", "a"),
        ("FIB_HOST=a#b", "a#b"),
        ("FIB_HOST='a # b' # why", "a # b"),
        ("FIB_HOST='", "'"),
        ("FIB_HOST= # none", ""),
        ("FIB_HOST=a\nFIB_HOST=b", "b"),
        ("\ufeffFIB_HOST=a\r\n", "a"),
        ("# FIB_HOST=a\n; FIB_HOST=a\n#FIB_HOST=a\n\n", "127.0.0.1"),
    ],
)
def test_a_line_has_a_value_its_quotes_and_a_comment(
    folder: Path, config: Config, line: str, value: str
) -> None:
    edit(folder, line)
    assert config()[1]["FIB_HOST"]["value"] == value


@pytest.mark.parametrize("line", ["FIB_PORT", "PORT=1", "export FIB_PORT=1", "=", "FIB_PORT: 1"])
def test_a_line_that_is_not_a_setting_is_reported_with_its_number(
    folder: Path, config: Config, line: str
) -> None:
    edit(folder, f"# words\n{line}\n")
    status, _, errors = config()
    assert status == os.EX_CONFIG
    assert f"{folder}/fibcore.conf, line 2 is not FIB_NAME=value. " in errors


def test_the_environment_comes_before_the_file_and_the_file_before_the_default(
    folder: Path, config: Config
) -> None:
    """Nothing that an earlier run has left decides."""
    edit(folder, "FIB_PORT=9000\nFIB_MAX_INDEX=5\n")
    folder.joinpath("var").mkdir()
    folder.joinpath("var", "fibcore.env").write_text("FIB_PORT=9001\nFIB_STATE=/srv/x.db\n")
    found = config(FIB_PORT="9002")[1]
    pairs = {name: (each["value"], each["source"]) for name, each in found.items()}
    assert pairs["FIB_PORT"] == ("9002", "environment")
    assert pairs["FIB_MAX_INDEX"] == ("5", f"{folder}/fibcore.conf, line 2")
    assert pairs["FIB_SYNCHRONOUS"] == ("full", "default")
    assert pairs["FIB_STORE"] == (f"sqlite:{folder}/var/fibcore.db", "default")


@pytest.mark.parametrize(
    ("line", "environ", "database"),
    [
        ("FIB_STATE=other.db", {}, "other.db"),
        ("FIB_STORE=sqlite:/srv/other.db", {}, "/srv/other.db"),
        ("FIB_STATE=other.db", {"FIB_STORE": "sqlite:/srv/x.db"}, "/srv/x.db"),
        ("FIB_STORE=sqlite:other.db", {"FIB_STATE": "/srv/x.db"}, "/srv/x.db"),
        ("FIB_STORE=sqlite:~/other.db", {"HOME": "/home/me"}, "/home/me/other.db"),
    ],
)
def test_a_file_of_settings_names_its_database_from_its_own_folder(
    folder: Path, config: Config, line: str, environ: dict[str, str], database: str
) -> None:
    edit(folder, line)
    found = config(**environ)[1]["FIB_STORE"]["value"]
    assert found.removeprefix("sqlite:") == str(folder / database)


def test_a_store_in_a_file_of_its_own_is_not_shown(folder: Path, config: Config) -> None:
    """So its password is in no environment and on no command line."""
    (folder / "store").write_text("redis://:Zebra9@host/0\n")
    status, found, errors = config(FIB_STORE="@store")
    assert (status, errors) == (0, "")
    assert found["FIB_STORE"]["value"] == f"@{folder}/store"
    for content in (b"Zebra9://h", b"\xff"):
        (folder / "store").write_bytes(content)
        status, _, errors = config(FIB_STORE="@store")
        assert status == os.EX_CONFIG
        assert f"FIB_STORE is '@{folder}/store'" in errors
        assert "Zebra9" not in errors


# Valid and invalid values


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        *(("FIB_HOST", text, HOST) for text in ("", "a" * 64, "a..b", "a b", "http://a", "[::1]")),
        *(("FIB_PORT", text, PORT) for text in ("-1", "http", "", "80 ", "8_0", "\u0668")),
        *(("FIB_ALLOWED_HOSTS", text, HOSTS) for text in ("a.test:80", "*")),
        *(("FIB_SEQUENCE", text, SEQUENCE) for text in ("", "a b", 65 * "a")),
        ("FIB_SEQUENCE", "other", "a file holds only one"),
        *(("FIB_STATE", text, "it must name a file") for text in ("", "/")),
        *(("FIB_STORE", text, "sqlite:…") for text in ("", "sqlite:", "x.db", "mysql://h/n")),
        ("FIB_STORE", "sqlite:/", FILE),
        *(
            (name, text, f"one of {', '.join(choices)}")
            for name, choices in {
                "FIB_SYNCHRONOUS": ("full", "normal", "off"),
                "FIB_INTEGERS": ("exact", "uint64"),
                "FIB_ACCESS_LOG": ("on", "off"),
            }.items()
            for text in (choices[0].upper(), "true", "")
        ),
    ],
)
def test_an_invalid_setting_is_named_with_its_valid_values(
    config: Config, name: str, text: str, wanted: str
) -> None:
    status, _, errors = config(**{name: text})
    assert status == os.EX_CONFIG
    assert f"{name} is {text!r}; it must " in errors or name == "FIB_SEQUENCE"
    assert wanted in errors
    assert "Nothing has been started or changed." in errors


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("FIB_PORT", 1, 65_535),
        ("FIB_MAX_INDEX", 1, MAX_EXACT_INDEX),
        ("FIB_MAX_WAITING_STEPS", 1, 10**6),
        ("FIB_MAX_KEYS", 100, 100_000),
        ("FIB_MAX_ANSWER_BYTES", 2**20, 2**40),
        ("FIB_MAX_CONNECTIONS", 1, 10**6),
        ("FIB_RECEIVE_TIMEOUT", 0.1, 3600),
        ("FIB_SEND_TIMEOUT", 0.1, 3600),
        ("FIB_STOP_TIMEOUT", 0, 60),
    ],
)
def test_a_number_is_accepted_only_within_its_bounds(
    config: Config, name: str, least: float, most: float
) -> None:
    for value in (least, most):
        assert config(**{name: str(value)})[0] == 0
    is_whole = not name.endswith("TIMEOUT")
    by = 1 if is_whole else 0.01
    wanted = f"{'a whole number' if is_whole else 'seconds'} from {least} to {most}"
    for text in (f"{least - by:g}", f"{most + by}", "nan", "inf", "10s"):
        status, _, errors = config(**{name: text})
        assert status == os.EX_CONFIG
        assert f"must be {wanted}" in errors


def test_the_largest_index_depends_on_the_kind_of_integer(config: Config) -> None:
    for largest, status in ((MAX_INDEX, 0), (MAX_INDEX + 1, os.EX_CONFIG)):
        assert config(FIB_INTEGERS="uint64", FIB_MAX_INDEX=str(largest))[0] == status


def test_credentials_in_an_invalid_store_are_not_shown(config: Config) -> None:
    status, _, errors = config(FIB_STORE="mysql://user:secret@host/name?password=secret")
    assert status == os.EX_CONFIG
    assert "secret" not in errors


def test_the_store_is_set_in_only_one_place(config: Config) -> None:
    status, _, errors = config(FIB_STATE="fib.db", FIB_STORE="sqlite:other.db")
    assert status == os.EX_CONFIG
    assert "FIB_STORE and FIB_STATE name different stores" in errors


def test_an_unknown_setting_is_reported_with_the_one_that_may_be_meant(
    folder: Path, config: Config
) -> None:
    assert "FIB_PROT is not a setting. Did you mean FIB_PORT? " in config(FIB_PROT="1")[2]
    edit(folder, "\nFIB_SYNCRONOUS=off")
    assert f"{folder}/fibcore.conf, line 2: FIB_SYNCRONOUS is not a setting." in config()[2]


NAMES: Final = re.findall(r"(?m)^#(FIB_\w+)=", (ROOT / "fibcore.conf").read_text())

TEXTS: Final = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(environ=st.dictionaries(st.sampled_from(NAMES), TEXTS))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_accepted_or_rejected_by_the_name_of_its_setting(
    config: Config, environ: dict[str, str]
) -> None:
    status, _, errors = config(**environ)
    assert (status, errors) == (0, "") or any(name in errors for name in environ)


# What people read and edit


def test_the_settings_file_lists_each_setting_with_its_default(
    folder: Path, config: Config
) -> None:
    """Unedited, it changes nothing."""
    text = (ROOT / "fibcore.conf").read_text()
    edit(folder, text)
    found = config()[1]
    listed = dict(re.findall(r"(?m)^#(FIB_\w+)=(.*)$", text))
    assert set(listed) - {"FIB_STATE"} == set(found)
    assert {each["source"] for each in found.values()} == {"default"}
    for name, each in found.items():
        assert listed[name] in ("", each["value"]) or name == "FIB_STORE"


def test_the_table_of_settings_lists_all_with_their_defaults(config: Config) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    rows = dict(re.findall(r"(?m)^\| `(FIB_\w+)` \| (.*?) \|", text))
    assert set(rows) == set(NAMES)
    for name, each in config()[1].items():
        assert rows[name].strip("`") in ("", each["value"]) or name == "FIB_STORE"
