"""The settings: each is validated at the start, and listed in docs/operations.md."""

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fibcore import MAX_EXACT_INDEX, MAX_INDEX
from fibcore.appliance.settings import DEFAULT_SEQUENCE, Settings, gather
from fibcore.problems import IndexPastLimitError, IndexTooLargeError, SettingsError

CONF = Path(__file__).parents[2] / "fibcore.conf"
TABLE = Path(__file__).parents[2] / "docs" / "operations.md"

VARIABLES = [setting.metadata["variable"] for setting in fields(Settings)]


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("FIB_HOST", "::1", "host", "::1"),
        ("FIB_PORT", f"{80:020}", "port", 80),
        ("FIB_ALLOWED_HOSTS", "", "allowed_hosts", frozenset()),
        ("FIB_ALLOWED_HOSTS", "Fib.test,[::1]", "allowed_hosts", {"fib.test", "[::1]"}),
        ("FIB_ALLOWED_ORIGINS", "", "allowed_origins", frozenset()),
        ("FIB_ALLOWED_ORIGINS", "HTTPS://a.test:443", "allowed_origins", {"https://a.test"}),
        (
            "FIB_ALLOWED_ORIGINS",
            "http://a:80 ,http://b",
            "allowed_origins",
            {"http://a", "http://b"},
        ),
        ("FIB_ALLOWED_ORIGINS", "https://a:80", "allowed_origins", {"https://a:80"}),
        ("FIB_STATE", "/srv/fib.db", "database", Path("/srv/fib.db")),
        ("FIB_STATE", "fib.db", "database", Path.cwd() / "fib.db"),
        ("FIB_STATE", "fib.db", "store", f"sqlite:{Path.cwd() / 'fib.db'}"),
        ("FIB_STORE", "sqlite:/srv/fib.db", "database", Path("/srv/fib.db")),
        ("FIB_STORE", "sqlite:fib.db", "where", str(Path.cwd() / "fib.db")),
        ("FIB_ACCESS_LOG", "on", "access_log", True),
        ("FIB_FORWARDED_ALLOW_IPS", "10.0.0.0/8 ::1,*", "forwarded_allow_ips", "10.0.0.0/8,::1,*"),
    ],
)
def test_a_setting_accepts_its_valid_values(
    variable: str, text: str, name: str, value: object
) -> None:
    assert getattr(Settings.from_environ({variable: text}), name) == value


@pytest.mark.parametrize(
    ("variable", "text", "wanted"),
    [
        ("FIB_HOST", "", "an address or a host name, with 1 to 63 characters between its dots"),
        ("FIB_HOST", "a" * 64, "an address or a host name, with 1 to 63 characters between"),
        ("FIB_HOST", "a..b", "an address or a host name, with 1 to 63 characters between its"),
        ("FIB_HOST", "a b", "an address or a host name, with 1 to 63 characters between its dots"),
        ("FIB_HOST", "http://a", "an address or a host name, with 1 to 63 characters between its"),
        ("FIB_HOST", "[::1]", "an address or a host name, with 1 to 63 characters between its"),
        ("FIB_PORT", "-1", "a whole number from 1 to 65535"),
        ("FIB_PORT", "http", "a whole number from 1 to 65535"),
        ("FIB_PORT", "", "a whole number from 1 to 65535"),
        ("FIB_PORT", "80 ", "a whole number from 1 to 65535"),
        ("FIB_PORT", "8_0", "a whole number from 1 to 65535"),
        ("FIB_PORT", "\u0668", "a whole number from 1 to 65535"),
        ("FIB_ALLOWED_HOSTS", "a.test:80", "host names without ports, separated by commas"),
        ("FIB_ALLOWED_HOSTS", "*", "host names without ports, separated by commas"),
        ("FIB_ALLOWED_ORIGINS", "*", "origins such as https://example.com:8443"),
        ("FIB_ALLOWED_ORIGINS", "null", "origins such as https://example.com:8443"),
        ("FIB_ALLOWED_ORIGINS", "a.test", "origins such as https://example.com:8443"),
        ("FIB_ALLOWED_ORIGINS", "https://a.test/", "origins such as https://example.com:8443"),
        ("FIB_PORT", f"{80:021}", "a whole number from 1 to 65535"),
        ("FIB_FORWARDED_ALLOW_IPS", "10.0.0.1/8", "addresses or networks such as 10.0.0.0/8"),
        ("FIB_SEQUENCE", "", "1 to 64 letters, digits, or _ . -"),
        ("FIB_SEQUENCE", "a b", "1 to 64 letters, digits, or _ . -"),
        ("FIB_SEQUENCE", 65 * "a", "1 to 64 letters, digits, or _ . -"),
        ("FIB_STATE", "", "it must name a file"),
        ("FIB_STORE", "", "sqlite:…"),
        ("FIB_STORE", "sqlite:", "sqlite:…"),
        ("FIB_STORE", "sqlite:/", "sqlite:FILE, where FILE names a file"),
        ("FIB_STORE", "sqlite:/a\0b", "sqlite:FILE, where FILE names a file"),
        ("FIB_STATE", "/", "it must name a file"),
        ("FIB_STORE", "var/fibcore.db", "sqlite:…"),
        ("FIB_STORE", "mysql://host/name", "sqlite:…"),
    ],
)
def test_an_invalid_setting_is_named_with_its_valid_values(
    variable: str, text: str, wanted: str
) -> None:
    with pytest.raises(SettingsError) as invalid:
        Settings.from_environ({variable: text})
    message = str(invalid.value)
    assert message.startswith(f"{variable} is {text!r}; it must ")
    assert wanted in message
    assert message.endswith(". Nothing has been started or changed.")


@pytest.mark.parametrize(
    ("variable", "least", "most"),
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
    variable: str, least: float, most: float
) -> None:
    (name,) = (each.name for each in fields(Settings) if each.metadata["variable"] == variable)
    for value in (least, most):
        assert getattr(Settings.from_environ({variable: str(value)}), name) == value
    is_whole = not variable.endswith("TIMEOUT")
    wanted = f"{'a whole number' if is_whole else 'seconds'} from {least} to {most}"
    by = 1 if is_whole else 0.01
    for text in (f"{least - by:g}", f"{most + by}", "nan", "inf", "10s", "soon"):
        with pytest.raises(SettingsError, match=f"must be {wanted}"):
            Settings.from_environ({variable: text})


@pytest.mark.parametrize(
    ("variable", "choices"),
    [
        ("FIB_SYNCHRONOUS", ("full", "normal", "off")),
        ("FIB_INTEGERS", ("exact", "uint64")),
        ("FIB_ACCESS_LOG", ("on", "off")),
    ],
)
def test_choices_are_case_sensitive_and_exact(variable: str, choices: tuple[str, ...]) -> None:
    for each in choices:
        Settings.from_environ({variable: each})
    for text in (choices[0].upper(), "true", ""):
        with pytest.raises(SettingsError, match=f"must be one of {', '.join(choices)}"):
            Settings.from_environ({variable: text})


def test_credentials_in_an_invalid_store_are_not_shown() -> None:
    with pytest.raises(SettingsError, match=r"^FIB_STORE is ") as invalid:
        Settings.from_environ({"FIB_STORE": "mysql://user:secret@host/name?password=secret"})
    assert "secret" not in str(invalid.value)
    with pytest.raises(SettingsError, match="FIB_PORT is 'a://b@c'"):
        Settings.from_environ({"FIB_PORT": "a://b@c"})


def test_a_database_file_holds_only_one_sequence() -> None:
    assert Settings.from_environ({"FIB_SEQUENCE": DEFAULT_SEQUENCE}).database is not None
    with pytest.raises(SettingsError, match="a file holds only one"):
        Settings.from_environ({"FIB_SEQUENCE": "other"})
    shared = {"FIB_STORE": "postgresql://host/name", "FIB_SEQUENCE": "other"}
    assert Settings.from_environ(shared).sequence == "other"


def test_the_store_is_set_in_only_one_place() -> None:
    both = {"FIB_STATE": "fib.db", "FIB_STORE": "sqlite:fib.db"}
    assert Settings.from_environ(both).store == f"sqlite:{Path.cwd() / 'fib.db'}"
    with pytest.raises(SettingsError, match="FIB_STORE and FIB_STATE name different stores"):
        Settings.from_environ({**both, "FIB_STORE": "sqlite:other.db"})


def test_the_largest_index_depends_on_the_kind_of_integer() -> None:
    modular = {"FIB_INTEGERS": "uint64"}
    assert Settings.from_environ(modular).max_index == MAX_INDEX
    past_exact = str(MAX_EXACT_INDEX + 1)
    assert Settings.from_environ({**modular, "FIB_MAX_INDEX": past_exact}).max_index == int(
        past_exact
    )
    with pytest.raises(SettingsError, match=f"from 1 to {MAX_INDEX}"):
        Settings.from_environ({**modular, "FIB_MAX_INDEX": str(MAX_INDEX + 1)})


@given(st.dictionaries(st.sampled_from(VARIABLES), st.text(max_size=12)))
def test_any_text_is_accepted_or_rejected_by_the_name_of_its_variable(
    environ: dict[str, str],
) -> None:
    message = "not invalid"
    try:
        Settings.from_environ(environ)
    except SettingsError as error:
        message = str(error)
    assert message == "not invalid" or message.split()[0] in environ


def test_an_index_past_its_limit_is_a_problem() -> None:
    settings = Settings.from_environ({"FIB_MAX_INDEX": "6"})
    assert settings.problem_at(6) is None
    assert isinstance(settings.problem_at(7), IndexPastLimitError)
    largest = Settings.from_environ({"FIB_MAX_INDEX": str(MAX_EXACT_INDEX)})
    assert largest.problem_at(MAX_EXACT_INDEX) is None
    assert isinstance(largest.problem_at(MAX_EXACT_INDEX + 1), IndexTooLargeError)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("sqlite:x.db", "sqlite:./x.db", True),
        ("sqlite:x.db", "sqlite:y.db", False),
        ("sqlite:x.db", "redis://host/0", False),
        ("redis://host/0", "redis://host/0", True),
        ("redis://host/0", "redis://host/1", False),
    ],
)
def test_settings_know_whether_their_store_is_the_same(one: str, other: str, same: bool) -> None:
    ours, theirs = (Settings.from_environ({"FIB_STORE": each}) for each in (one, other))
    assert ours.has_same_store(theirs) == theirs.has_same_store(ours) == same


# The table for people, and the file that they edit


def rows_of_the_table() -> Iterator[str]:
    """The rows of the table that has this header."""
    lines = iter(TABLE.read_text().splitlines())
    for line in lines:
        if re.fullmatch(r"\| variable \| default \| meaning \|", line):
            break
    next(lines, None)
    for line in lines:
        if not line.startswith("|"):
            return
        yield line


def test_the_store_may_be_given_in_a_file(tmp_path: Path) -> None:
    """So its password is in no environment and on no command line."""
    file = tmp_path / "store"
    file.write_text("redis://:Zebra9@host/0\nanything\n")
    settings = Settings.from_environ({"FIB_STORE": f"@{file}"})
    assert (settings.store, settings.where) == ("redis://:Zebra9@host/0", "redis://host/0")
    file.write_text(f"sqlite:{tmp_path}/x.db")
    assert Settings.from_environ({"FIB_STORE": f"@{file}"}).database == tmp_path / "x.db"
    file.write_text(f"sqlite:{tmp_path}/y.db", "utf-8-sig")
    assert Settings.from_environ({"FIB_STORE": f"@{file}"}).database == tmp_path / "y.db"
    file.write_text("Zebra9://h")
    with pytest.raises(SettingsError, match=f"is '@{file}'") as invalid:
        Settings.from_environ({"FIB_STORE": f"@{file}"})
    assert "Zebra9" not in str(invalid.value)
    for content in (None, b"\xff"):
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(SettingsError, match=f"FIB_STORE is '@{file}'; it must be a file that"):
            Settings.from_environ({"FIB_STORE": f"@{file}"})
        file.touch()


@pytest.mark.parametrize(
    ("host", "names", "answered"),
    [
        ("127.0.0.1", "", frozenset()),
        ("127.0.0.2", "", frozenset()),
        ("::1", "", frozenset()),
        ("localhost", "", frozenset()),
        ("0.0.0.0", "", None),
        ("::", "", None),
        ("198.51.100.7", "", None),
        ("fib.test", "", None),
        ("127.0.0.1", "fib.test", {"fib.test"}),
        ("0.0.0.0", "fib.test", {"fib.test"}),
    ],
)
def test_without_a_list_any_host_name_is_allowed_only_off_the_loopback(
    host: str, names: str, answered: frozenset[str] | None
) -> None:
    settings = Settings.from_environ({"FIB_HOST": host, "FIB_ALLOWED_HOSTS": names})
    assert settings.answered_hosts == answered


def test_the_settings_file_lists_each_setting_with_its_default() -> None:
    """Unedited, it changes nothing."""
    listed = re.findall(r"^#(FIB_\w+)=(.*)$", CONF.read_text(), re.MULTILINE)
    settings = [(each.metadata["variable"], each.metadata["default"]) for each in fields(Settings)]
    assert listed == settings
    assert {each.source for each in gather({}, folder=CONF.parent).values.values()} == {"default"}


def test_the_table_of_settings_lists_all_in_order() -> None:
    defaults = Settings.from_environ({})
    rows = []
    for setting in fields(Settings):
        metadata = setting.metadata
        default = metadata["default"] or getattr(defaults, setting.name) or ""
        shown = f"`{default}`" if default else ""
        rows.append(f"| `{metadata['variable']}` | {shown} | {metadata['meaning']} |")
    assert list(rows_of_the_table()) == rows, "it should be:\n" + "\n".join(rows)
