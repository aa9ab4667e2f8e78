"""The URL of a store: which are accepted, and that no message contains a secret."""

import contextlib
import inspect
import io
import logging
import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest
import redis
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg import pq

from fibcore.appliance.settings import Settings
from fibcore.command import cli
from fibcore.problems import (
    SettingsError,
    StoreSettingError,
    StoreUnavailableError,
    UrlInvalidError,
    explain,
)
from fibcore.stores.opening import ENGINES
from fibcore.stores.urls import parse, shown, without_secrets


@pytest.mark.parametrize(
    ("url", "visible"),
    [
        ("postgresql://u:secret@h,i:5433/db?sslpassword=secret", "postgresql://h,i:5433/db"),
        ("postgresql://h/db?password=secret", "postgresql://h/db"),
        ("postgresql:///db?host=/run/postgresql&password=a/b?c", "postgresql:///db"),
        ("postgresql://u@%2Frun%2Fpostgresql/db", "postgresql://%2Frun%2Fpostgresql/db"),
        ("redis://:secret@h:6379/1", "redis://h:6379/1"),
        ("redis://host/0?password=abc@Zebra9", "redis://host/0"),
        ("redis://u:sec%2Fret@[::1]:2/0", "redis://[::1]:2/0"),
        ("etcd://u:p@[fe80::1%25eth0]:2379,b/prefix", "etcd://[fe80::1%25eth0]:2379,b/prefix"),
    ],
)
def test_a_valid_url_is_shown_as_scheme_hosts_and_path(url: str, visible: str) -> None:
    parse(url)
    assert shown(url) == visible


@pytest.mark.parametrize(
    ("url", "visible", "why"),
    [
        ("redis://:sec/ret@h/0", "redis://...", "where its password ends is ambiguous"),
        ("redis://:sec/0", "redis://...", "an invalid host or port"),
        ("redis://:12/ret@h/0", "redis://...", "where its password ends is ambiguous"),
        ("redis://:12?ret@h/0", "redis://...", "not of the form NAME=VALUE"),
        ("redis://:12?a=b@h/0", "redis://...", "where its password ends is ambiguous"),
        ("redis://:12#ret@h/0", "redis://...", "a fragment"),
        ("redis://u:sec@ret@h/0", "redis://...", "where its password ends is ambiguous"),
        ("redis://h/0?password=a#b", "redis://...", "a fragment"),
        ("redis://h/0?password", "redis://...", "not of the form NAME=VALUE"),
        ("redis://u:se cret@h/0", "redis://...", "a character that must be percent-encoded"),
        ("redis://u:s\u00e9cret@h/0", "redis://...", "a character that must be percent-encoded"),
        ("redis://u:secret%zz@h/0", "redis://...", "a % without two digits"),
        ("redis://u:secret%00@h/0", "redis://...", "a null character"),
        ("redis://h:65536/0", "redis://...", "a port that is not from 1 to 65535"),
        ("redis://h:0/0", "redis://...", "a port that is not from 1 to 65535"),
        (f"redis://{'a' * 64}/0", "redis://...", "more than 63 between its dots"),
        (f"etcd://h,{'a.' * 127}a", "etcd://...", "a host of more than 253 characters"),
        ("etcd://a..b", "etcd://...", "an invalid host name"),
        ("postgresql://h/db?host=i", "postgresql://...", "names its host twice"),
        ("postgres:u:secret@h/db", "postgres:...", "does not begin with a scheme and ://"),
        ("u:secret@h/db", "u:...", "does not begin with a scheme and ://"),
        ("u secret@h", "...", "does not begin with a scheme and ://"),
        ("var/fibcore.db", "var/fibcore.db", "does not begin with a scheme and ://"),
    ],
)
def test_an_invalid_url_is_shown_as_its_scheme(url: str, visible: str, why: str) -> None:
    assert shown(url) == visible
    with pytest.raises(ValueError, match=re.escape(why)):
        parse(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("etcd://", "it names no host"),
        ("etcd://h,", "it names no host"),
        ("etcd://h:port", "an invalid host or port"),
        ("etcd://h?user=x", "its options may be cacert, cert, key; it has user"),
        ("etcd://h?cacert=x", "it names certificates, which only etcds:// uses"),
        ("etcds://h?cacert=/none", "its certificates can't be read"),
        ("redis+sentinel://h", "the name by which the Sentinels know the primary"),
        ("redis+sentinel:///main", "it names no host"),
        ("redis+sentinel://u:secret@h,/main", "it names no host"),
        ("redis+sentinel://u:secret@h/main?db=x", "Invalid value for 'db'"),
        ("redis+sentinel://u:secret@h/main?foo=1", "its options may be .*; it has foo"),
        ("redis://u:secret@h?foo=1", "its options may be .*; it has foo"),
        ("redis://u:secret@h?decode_responses=true", "its options may be .*; it has decode_respo"),
        ("redis://u:secret@h?ssl_ca_certs=FILE", "which only rediss:// uses"),
        ("rediss://u:secret@h?ssl_cert_reqs=maybe", "Invalid SSL Certificate"),
    ],
)
def test_an_engine_rejects_an_invalid_url(url: str, reason: str) -> None:
    with pytest.raises(UrlInvalidError, match=reason) as invalid:
        Settings.from_environ({"FIB_STORE": url}).opener()
    assert "secret" not in str(invalid.value)


def test_messages_of_drivers_are_shown_without_passwords() -> None:
    url = "postgresql://u:sec%20ret@h/db?password=other&rest=of%20it"
    told = "bad: sec%20ret, sec ret, other, rest, of%20it, db"
    assert without_secrets(told, url) == "bad: ***, ***, ***, ***, ***, db"
    assert "a" * 9 not in without_secrets("a" * 9, "redis://:12/" + "a" * 9 + "@h")


# Whatever a password is, and wherever it is in the URL.

REFUSED = "127.0.0.1:1"
"""A port on which nothing listens."""

NAMES = {
    "redis": [*inspect.signature(redis.connection.Connection).parameters, "db", "ssl_cert_reqs"],
    "postgres": [each.keyword.decode() for each in pq.Conninfo.get_defaults()],
    "etcd": ["cacert", "cert", "key"],
}
"""Options of the drivers."""

VALUES = st.sampled_from(["", "0", "1", "-1", "1e999", "yes", "None", "[]", "%ff", "/none", "a:b"])


@pytest.mark.parametrize("scheme", ENGINES)
@given(st.data())
def test_any_options_in_a_url_give_a_store_or_a_problem(scheme: str, data: st.DataObject) -> None:
    (known,) = (names for driver, names in NAMES.items() if scheme.startswith(driver))
    names = st.sampled_from([*known, "unknown"])
    options = data.draw(st.lists(st.tuples(names, VALUES), max_size=3))
    query = "&".join(f"{name}={value}" for name, value in options if name != "host")
    path = {"redis+sentinel": "/name/0", "redis": "/0", "rediss": "/0"}.get(scheme, "/name")
    settings = Settings.from_environ({"FIB_STORE": f"{scheme}://{REFUSED}{path}?{query}"})
    with pytest.raises((StoreSettingError, StoreUnavailableError)) as problem:
        settings.opener().open()
    assert "\n" not in explain(problem.value)


SCHEMES = [each for each in ENGINES if each not in ("etcds", "rediss")]
SECRETS = st.text("QXZJK789/?#@:&=% []\\'\"<>^`{|}+\u00e9\n", min_size=4, max_size=16)


def pieces(secret: str) -> list[str]:
    """Recognizable parts of a secret: its runs of letters and digits."""
    return [run for run in re.findall("[QXZJK789]+", secret) if len(run) > 2]


@st.composite
def urls(draw: st.DrawFn) -> tuple[str, str, list[str]]:
    """A URL with a secret, the part that may be shown, and the part that may not."""
    scheme, secret = draw(st.sampled_from(SCHEMES)), draw(SECRETS)
    written = draw(st.sampled_from([secret, quote(secret, safe="")]))
    path = {"redis+sentinel": "/name/0", "redis": "/0"}.get(scheme, "/name")
    form = draw(
        st.sampled_from(
            ["{user}:{it}@{host}{path}", ":{it}@{host}{path}", "{host}{path}?password={it}"]
        )
    )
    if scheme.startswith("etcd"):
        # It rejects a password there.
        form = form.replace("?password={it}", "")
    filled = form.format(user=draw(st.sampled_from(["u", ""])), it=written, host=REFUSED, path=path)
    return f"{scheme}://{filled}", f"{scheme}://{REFUSED}{path}", pieces(secret)


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


@contextlib.contextmanager
def nothing_of(secrets: list[str], told: list[str]) -> Iterator[None]:
    yield
    for each in told:
        assert not [secret for secret in secrets if secret in each], each


@given(urls())
@example(("redis://host:1/0?password=abc@ZZZ9", "redis://host:1/0", ["ZZZ9"]))
def test_no_message_of_a_store_has_any_part_of_a_secret(given: tuple[str, str, list[str]]) -> None:
    url, visible, secrets = given
    told: list[str] = [shown(url)]
    with nothing_of(secrets, told):
        try:
            settings = Settings.from_environ({"FIB_STORE": url})
            told.append(settings.where)
            opener = settings.opener()
        except (SettingsError, StoreSettingError) as error:
            told += [str(error), explain(error)]
            return
        assert opener.where == settings.where == visible
        if "//host" not in url:
            with pytest.raises(StoreUnavailableError) as refused:
                opener.open()
            told += [str(refused.value), explain(refused.value)]


@given(urls())
@example(("redis://u:777 @127.0.0.1:1/0", "redis://127.0.0.1:1/0", ["777"]))
def test_no_command_prints_any_part_of_a_secret(given: tuple[str, str, list[str]]) -> None:
    url, _, secrets = given
    for arguments in (["copy", url, "redis://127.0.0.1:1"], ["show", url], ["copy", url, url, url]):
        with (
            pytest.MonkeyPatch.context() as patched,
            contextlib.redirect_stdout(io.StringIO()) as out,
            contextlib.redirect_stderr(io.StringIO()) as err,
            contextlib.suppress(SystemExit),
        ):
            patched.setenv("FIB_STORE", "redis://127.0.0.1:1")
            assert cli.main(arguments) != 0
        assert not [secret for secret in secrets if secret in out.getvalue() + err.getvalue()]


# Its members


@pytest.mark.parametrize(
    ("text", "member"),
    [
        ("host", ("host", 7)),
        ("host:8", ("host", 8)),
        ("[::1]", ("::1", 7)),
        ("[::1]:8", ("::1", 8)),
    ],
)
def test_a_member_has_a_host_and_a_port(text: str, member: tuple[str, int]) -> None:
    assert parse(f"etcd://{text}").members(7) == [member]


def test_a_member_without_a_host_is_rejected() -> None:
    for text in ("", ":8"):
        with pytest.raises(ValueError, match="it names no host"):
            parse(f"etcd://{text}").members(7)


@pytest.mark.parametrize("end", ["", "/a/b", "?c=d", "/a/b?c=d"])
def test_a_url_has_members_after_its_user(end: str) -> None:
    found = parse(f"etcd://u:p@one,[::1]:2{end}")
    assert (found.scheme, found.user) == ("etcd", "u:p@")
    assert found.members(7) == [("one", 7), ("::1", 2)]
    assert (found.path, found.options) == ("/a/b" * ("/a" in end), (("c", "d"),) * ("?" in end))
